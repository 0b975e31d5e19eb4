"""The whole workflow from scratch: demonstrations, meta-learning, adaptation, closed-loop episodes, report.

    make quickstart          (or: python experiments/quickstart.py)

Ctrl-C loses nothing; the same command resumes where it stopped.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from metalora_jax.envs.collect import collect
from metalora_jax.evaluation.protocol import experiment, films
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.reports import report
from metalora_jax.machine.progress import progress
from metalora_jax.training import checkpoint, command

_CONFIG = config_flags.DEFINE_config_file("config", "configs/quickstart.py", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart/run", "Directory for adapters, records and the report.")


def main(_: list[str]) -> None:
    workdir, comparison = Path(_WORKDIR.value), Comparison.from_config(_CONFIG.value.to_dict())
    checkpoint.claim(workdir, comparison.to_json())
    print("1/4  recording scripted demonstrations in the simulator")
    assert comparison.demos is not None
    jobs = comparison.demos.jobs()
    for _ in progress(collect(jobs, comparison.demos.workers), description="demonstration files", total=len(jobs)):
        pass
    print("2/4  meta-learning, and the multi-task control on the same data")
    experiment.train(comparison, workdir)
    print("3/4  adaptation to held-out conditions, then closed-loop episodes")
    experiment.run(comparison, workdir)
    print("4/4  films and report")
    films.before_and_after(comparison, workdir)
    print(f"raw records: {workdir / 'episodes.jsonl'}\nreport: {report.write_report(workdir)}")


if __name__ == "__main__":
    command.run(main)
