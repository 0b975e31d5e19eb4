"""Checks a set-up and demonstrations before any training, and ends with a short list of what is wrong.

    python experiments/doctor.py --world=libero --demos='runs/demos/*.hdf5' --output=runs/doctor
    python experiments/doctor.py --world=metaworld --demos=my_task_demo.hdf5 --base=runs/base

Without --demos it checks the installation alone. The exit status is 1 if something is wrong, else 0. A page
with the frames that it rendered goes to --output.
"""

import sys
from pathlib import Path

from absl import flags

from metalora_jax.envs.world import WORLDS
from metalora_jax.evaluation.doctor import page
from metalora_jax.evaluation.doctor.run import Request, examine
from metalora_jax.training import command

_DEFAULT = Request("libero")
_WORLD = flags.DEFINE_enum("world", _DEFAULT.world, WORLDS, "The simulator.")
_DEMOS = flags.DEFINE_list("demos", [], "HDF5 files, directories, patterns, LeRobot or TFDS data sets.")
_TASK = flags.DEFINE_string("task", "", "Task of all demonstrations, if neither file nor instruction names it.")
_CAMERAS = flags.DEFINE_list("cameras", [], "Cameras to check, in the order of the base; default: all of the world's.")
_KEYS = flags.DEFINE_list("keys", [], "camera=FEATURE, state=FEATURE or action=FEATURE, of a dataset with other names.")
_BASE = flags.DEFINE_string("base", None, "Base directory to compare with; 'nano' is the one in the package.")
_STATISTICS = flags.DEFINE_string("statistics", "", "JSON file: ours, or LeRobot's, openpi's, OpenVLA's.")
_REPLAYS = flags.DEFINE_integer("replays", _DEFAULT.replays, "Demonstrations to replay from each file.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", "runs/doctor", "Directory for the page and its pictures.")


def main(_: list[str]) -> None:
    request = Request(
        world=_WORLD.value,
        demos=tuple(_DEMOS.value),
        cameras=tuple(_CAMERAS.value),
        keys=dict(pair.split("=", 1) for pair in _KEYS.value),
        task=_TASK.value,
        base="" if _BASE.value == "nano" else _BASE.value,
        statistics=_STATISTICS.value,
        replays=_REPLAYS.value,
    )
    results = []
    for result in examine(request):
        results.append(result)
        print(page.line(result.outcome), flush=True)
    outcomes = [result.outcome for result in results]
    files = page.write(Path(_OUTPUT.value), results)
    print(f"\n{page.summary(outcomes)}\n")
    print("to look at:", *files, sep="\n  ")
    sys.exit(1 if any(outcome.findings for outcome in outcomes) else 0)


if __name__ == "__main__":
    command.run(main)
