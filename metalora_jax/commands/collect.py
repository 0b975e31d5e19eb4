"""Records scripted demonstrations, one LIBERO-layout HDF5 file for each task.

    metalora collect --task=drawer-open --demos=2        (into runs/demos/clean/drawer-open_demo.hdf5)
    metalora collect --suite=libero_object --demos=20
    metalora collect --config=configs/metaworld_demos.py

Finished files are kept: the same command resumes where it stopped. Only successes are kept; failures are counted.
"""

from runpy import run_path

from absl import flags
from ml_collections import config_flags

from metalora_jax.commands import recipes
from metalora_jax.envs.collect import Collection, collect
from metalora_jax.machine.progress import progress

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_SUITE = flags.DEFINE_string("suite", None, "a LIBERO suite; short for --config=configs/libero_demos.py:SUITE")
_TASK = flags.DEFINE_string("task", None, "one Meta-World task, recorded undisturbed as in configs/metaworld_demos.py")
_DEMOS = flags.DEFINE_integer("demos", None, "demonstrations of each task, instead of the config's", lower_bound=1)
_NOISE = flags.DEFINE_float("noise", None, "pushes on the hand [action units], instead of the config's", lower_bound=0)

check = Collection.from_config  # what --print_config holds the config against


def config() -> dict:
    """The recipe that the flags name, with what they change."""
    if sum(flag.value is not None for flag in (_CONFIG, _SUITE, _TASK)) != 1:
        raise ValueError("set exactly one of --task=drawer-open, --suite=libero_object and --config=configs/...")
    if _TASK.value is not None:
        recipe = run_path(str(recipes.folder() / "metaworld_demos.py"))["get_config"]().to_dict()
        recipe["parts"] = {"clean": recipe["parts"]["clean"] | {"tasks": (_TASK.value,)}}
    elif _SUITE.value is not None:
        recipe = run_path(str(recipes.folder() / "libero_demos.py"))["get_config"](_SUITE.value).to_dict()
    else:
        recipe = _CONFIG.value.to_dict()
    check(recipe)  # it may be another command's
    for part in recipe["parts"].values():
        part.update({k: v for k, v in (("demos", _DEMOS.value), ("noise", _NOISE.value)) if v is not None})
    return recipe


def main(_: list[str]) -> None:
    wanted = Collection.from_config(config())
    jobs = wanted.jobs()
    for done in progress(collect(jobs, wanted.workers), description="tasks recorded", total=len(jobs)):
        if done.failures:
            print(f"{done.job.task}: the expert failed {done.failures} times; only successes are kept")
    print(f"demonstrations: {wanted.directory}")
