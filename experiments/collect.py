"""Records scripted demonstrations of Meta-World tasks, one LIBERO-layout HDF5 file for each task.

    python experiments/collect.py --config=configs/metaworld_demos.py

Finished files are kept: the same command goes on where it stopped.
"""

from ml_collections import config_flags

from metalora_jax.envs.collect import collect, jobs_of
from metalora_jax.training import command
from metalora_jax.training.progress import progress

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)


def main(_: list[str]) -> None:
    config = _CONFIG.value.to_dict()
    jobs = jobs_of(config)
    for done in progress(collect(jobs, config["workers"]), description="tasks recorded", total=len(jobs)):
        if done.failures:
            print(f"{done.job.task}: the expert failed {done.failures} times; only successes are kept")
    print(f"demonstrations: {config['directory']}")


if __name__ == "__main__":
    command.run(main)
