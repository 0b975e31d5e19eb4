"""The whole workflow from scratch: demonstrations, meta-learning, adaptation, closed-loop episodes, report.

    make quickstart          (or: python experiments/quickstart.py)

Ctrl-C loses nothing; the same command resumes where it stopped.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from metalora_jax.envs.collect import collect, jobs_of
from metalora_jax.evaluation.protocol import experiment, films
from metalora_jax.evaluation.reports import report
from metalora_jax.progress import progress
from metalora_jax.training import checkpoint, command

_CONFIG = config_flags.DEFINE_config_file("config", "configs/quickstart.py", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart/run", "Directory for adapters, records and the report.")


def main(_: list[str]) -> None:
    workdir, config = Path(_WORKDIR.value), _CONFIG.value.to_dict()
    checkpoint.claim(workdir, config)
    print("1/4  recording scripted demonstrations in the simulator")
    jobs = jobs_of(config["demos"])
    for _ in progress(collect(jobs, config["demos"]["workers"]), description="demonstration files", total=len(jobs)):
        pass
    print("2/4  meta-learning, and the multi-task control on the same data")
    experiment.train(config, workdir)
    print("3/4  adaptation to held-out conditions, then closed-loop episodes")
    experiment.run(config, workdir)
    print("4/4  films and report")
    films.before_and_after(config, workdir)
    print(f"raw records: {workdir / 'episodes.jsonl'}\nreport: {report.write_report(workdir)}")


if __name__ == "__main__":
    command.run(main)
