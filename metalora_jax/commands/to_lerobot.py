"""Writes demonstrations as a LeRobot dataset (version 3.0), from any format that the package can read.

    metalora to_lerobot --demos=runs/demos/clean --cameras=agentview --fps=80 --output=runs/lerobot

The pictures go into the tables as PNG files, exactly; or into videos with --pictures=h264.
"""

from collections.abc import Iterator
from pathlib import Path

from absl import flags

from metalora_jax.data import lerobot_v3, sources
from metalora_jax.machine.progress import progress
from metalora_jax.types import Demo

_DEMOS = flags.DEFINE_string(
    "demos", None, "An HDF5 file, a directory of them, or a LeRobot or TFDS dataset.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write the dataset to.", required=True)
_FPS = flags.DEFINE_integer("fps", None, "Frames per second; LIBERO's simulator 20, Meta-World 80.", 1, required=True)
_CAMERAS = flags.DEFINE_list("cameras", ["agentview", "eye_in_hand"], "Cameras, by this package's names.")
_TASKS = flags.DEFINE_list("tasks", [], "Tasks, by name or instruction; empty is all.")
_LIMIT = flags.DEFINE_integer("limit", None, "Number of demonstrations of each task; the first ones are used.", 1)
_DROP = flags.DEFINE_list("drop", [], "Demonstrations not to read, by the dataset's own numbers: 3,7; or task:3.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out demonstrations that cannot be used, and say which.")
_ROBOT = flags.DEFINE_string("robot", None, "Robot type, for lerobot's metadata.")
_PICTURES = flags.DEFINE_enum("pictures", "png", list(lerobot_v3.PICTURES), "How pictures are stored.")


def main(_: list[str]) -> None:
    source = sources.open(_DEMOS.value, _CAMERAS.value, drop=_DROP.value, skip_bad=_SKIP_BAD.value)
    tasks = [source.find(task) for task in _TASKS.value] or source.names()

    def demos() -> Iterator[Demo]:
        for task in progress(tasks, description="tasks"):
            yield from source.demos(task, _LIMIT.value)

    lerobot_v3.write(Path(_OUTPUT.value), demos(), _CAMERAS.value, _FPS.value, _ROBOT.value, _PICTURES.value)
    written = sources.open(_OUTPUT.value, _CAMERAS.value)
    for task, count in written.tasks().items():
        print(f"{count:5d}  {task}")
    print(f"dataset: {_OUTPUT.value}")
