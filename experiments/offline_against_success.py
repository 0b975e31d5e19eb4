"""Adapts policies in a simulator, measures them offline, and runs them: does offline error predict success?

    python experiments/offline_against_success.py --config=configs/so101_offline_against_success.py \
        --workdir=runs/so101/offline_against_success

Resumable. --report_only makes the report of what there is again, of cells whose episodes are all over.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from metalora_jax.commands import start
from metalora_jax.evaluation.offline import against_success, agreement_report

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the raw records and the report.", required=True)
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Run nothing: make the report again; no --config is needed.")


def main(_: list[str]) -> None:
    workdir = Path(_WORKDIR.value)
    if not _REPORT_ONLY.value:
        if _CONFIG.value is None:
            raise ValueError("no study to run: --config=configs/so101_offline_against_success.py")
        against_success.run(against_success.Study.from_config(_CONFIG.value.to_dict()), workdir)
    page = agreement_report.write_report(workdir)
    print(page.with_name("report.md").read_text())
    print(f"raw records: {workdir / against_success.OFFLINE}, {workdir / against_success.EPISODES}")
    print(f"to look at: {page}")


if __name__ == "__main__":
    start.run(main, check=against_success.Study.from_config)
