"""Writes demonstrations as a LeRobot dataset (version 3.0), from any format that the package can read.

    python experiments/to_lerobot.py --demos=runs/demos/clean --cameras=agentview --fps=80 --output=runs/lerobot
    python experiments/to_lerobot.py --demos=runs/so101/demos/clean --world=so101 --fps=10 --output=runs/so101/lerobot

A world gives its cameras, and the names of its joints. The pictures go into the tables as PNG files, exactly; or into
videos with --pictures=h264.
"""

from collections.abc import Iterator
from pathlib import Path

from absl import flags

from metalora_jax.data import lerobot_v3, sources
from metalora_jax.envs.world import WORLDS, world
from metalora_jax.machine.progress import progress
from metalora_jax.training import command
from metalora_jax.types import Demo

_DEMOS = flags.DEFINE_string(
    "demos", None, "An HDF5 file, a directory of them, or a LeRobot or TFDS dataset.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write the dataset to.", required=True)
_FPS = flags.DEFINE_integer("fps", None, "Frames per second; LIBERO's simulator 20, Meta-World 80.", 1, required=True)
_CAMERAS = flags.DEFINE_list("cameras", None, "Cameras, by this package's names: the world's.")
_WORLD = flags.DEFINE_enum("world", "libero", WORLDS, "Where it was recorded: gives cameras, and names of joints.")
_TASKS = flags.DEFINE_list("tasks", [], "Tasks, by name or instruction; empty is all.")
_LIMIT = flags.DEFINE_integer("limit", None, "Number of demonstrations of each task; the first ones are used.", 1)
_DROP = flags.DEFINE_list("drop", [], "Demonstrations not to read, by the dataset's own numbers: 3,7; or task:3.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out demonstrations that cannot be used, and say which.")
_ROBOT = flags.DEFINE_string("robot", None, "Robot type, for lerobot's metadata.")
_PICTURES = flags.DEFINE_enum("pictures", "png", list(lerobot_v3.PICTURES), "How pictures are stored.")


def main(_: list[str]) -> None:
    where = world(_WORLD.value)
    cameras, joints = _CAMERAS.value or list(where.cameras), [f"{joint}.pos" for joint in where.joints]
    source = sources.open(_DEMOS.value, cameras, drop=_DROP.value, skip_bad=_SKIP_BAD.value)
    tasks = [source.find(task) for task in _TASKS.value] or source.names()

    def demos() -> Iterator[Demo]:
        for task in progress(tasks, description="tasks"):
            yield from source.demos(task, _LIMIT.value)

    to = Path(_OUTPUT.value)
    lerobot_v3.write(to, demos(), cameras, _FPS.value, _ROBOT.value, _PICTURES.value, joints=joints)
    written = sources.open(to, cameras)
    for task, count in written.tasks().items():
        print(f"{count:5d}  {task}")
    print(f"dataset: {_OUTPUT.value}")


if __name__ == "__main__":
    command.run(main)
