"""Compares meta-learned adapters with honest baselines, few-shot and in closed loop, and ends with a report.

    metalora few_shot --config=configs/few_shot_conditions.py --workdir=runs/few_shot_conditions

A config with a section `offline` in place of `control` needs no simulator: adapted policies are judged by their action
error on the other demonstrations of their task. That is no success rate, and the report says so.

Trains any adapters that do not exist yet. Ctrl-C loses nothing; the same command resumes.
"""

from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from metalora_jax.evaluation.offline import comparison as offline
from metalora_jax.evaluation.protocol import experiment, films
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.reports import report
from metalora_jax.machine.processes import Host

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for adapters, records and the report.", required=True)
_HOST = flags.DEFINE_integer("host", 0, "Number of this machine; all share the work directory.")
_HOSTS = flags.DEFINE_integer("hosts", 1, "How many machines share the episodes.", lower_bound=1)

check = Comparison.from_config  # what --print_config holds the config against


def main(_: list[str]) -> None:
    workdir, comparison = Path(_WORKDIR.value), Comparison.from_config(_CONFIG.value.to_dict())
    if comparison.offline:
        if _HOSTS.value > 1:
            raise ValueError("a comparison without a simulator runs on one machine: leave out --hosts")
        print(f"raw records: {offline.run(comparison, workdir) / offline.RECORDS}")
        print(f"report: {offline.write_report(workdir)}")
        return
    if unused := [name for name in ("demos", "scene") if getattr(comparison, name) is not None]:
        logging.warning("the config's %s is for quickstart.py, and not used here", " and ".join(unused))
    films.check(comparison.films)
    experiment.run(comparison, workdir, Host(_HOST.value, _HOSTS.value))
    print(f"raw records: {workdir}/episodes*.jsonl")
    if _HOST.value == 0:
        films.before_and_after(comparison, workdir)
    if _HOSTS.value > 1:
        print(f"when all {_HOSTS.value} hosts have finished, run: make report RUN={workdir}")
        return
    print(f"report: {report.write_report(workdir)}")
