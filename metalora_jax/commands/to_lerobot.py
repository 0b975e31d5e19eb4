"""Writes demonstrations as a LeRobot dataset (version 3.0), from any format that the package can read.

    metalora to_lerobot --demos=runs/demos/clean --cameras=agentview --fps=80 --output=runs/lerobot
    metalora to_lerobot --demos=runs/so101/demos/clean --world=so101 --fps=10 --output=runs/so101/lerobot

Names of joints, the rate and the robot's type are taken from the source; --fps is needed where that has no rate, and
--world=so101 names joints that were recorded here.

The pictures go into the tables as PNG files, exactly; or into videos with --pictures=h264.
"""

from collections.abc import Iterator
from pathlib import Path

from absl import flags

from metalora_jax.data import lerobot_v3, sources
from metalora_jax.envs.world import WORLDS, world
from metalora_jax.machine.progress import progress
from metalora_jax.types import Demo

_DEMOS = flags.DEFINE_string(
    "demos", None, "An HDF5 file, a directory of them, or a LeRobot or TFDS dataset.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write the dataset to.", required=True)
_FPS = flags.DEFINE_integer("fps", None, "Frames per second, if the source does not say; Meta-World 80.", 1)
_CAMERAS = flags.DEFINE_list("cameras", [], "Cameras, by this package's names; empty: all.")
_KEYS = flags.DEFINE_list("keys", [], "camera=FEATURE, state=FEATURE or action=FEATURE, of a dataset with other names.")
_WORLD = flags.DEFINE_enum("world", None, WORLDS, "Where it was recorded: names the joints that the source does not.")
_TASKS = flags.DEFINE_list("tasks", [], "Tasks, by name or instruction; empty is all.")
_LIMIT = flags.DEFINE_integer("limit", None, "Number of demonstrations of each task; the first ones are used.", 1)
_DROP = flags.DEFINE_list("drop", [], "Demonstrations not to read, by the dataset's own numbers: 3,7; or task:3.")
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Leave out demonstrations that cannot be used, and say which.")
_ROBOT = flags.DEFINE_string("robot", None, "Robot type, for lerobot's metadata; empty: the source's.")
_PICTURES = flags.DEFINE_enum("pictures", "png", list(lerobot_v3.PICTURES), "How pictures are stored.")


def _rate(said: float | None) -> int:
    """Frames per second: the source's, or --fps where it has none."""
    if said is None:
        if _FPS.value is None:
            raise ValueError(f"{_DEMOS.value} does not say how many frames it has per second; give --fps")
        return _FPS.value
    if _FPS.value not in (None, round(said)):
        raise ValueError(f"--fps={_FPS.value}, but {_DEMOS.value} has {said:g} frames per second; leave --fps out")
    return round(said)


def main(_: list[str]) -> None:
    keys = sources.read_keys(_KEYS.value)
    cameras = _CAMERAS.value or list(sources.cameras_of(_DEMOS.value, keys))
    if not cameras:
        raise ValueError(f"{_DEMOS.value} does not list its cameras; name them with --cameras")
    source = sources.open(_DEMOS.value, cameras, keys, drop=_DROP.value, skip_bad=_SKIP_BAD.value)
    robot = source.embodiment
    fps = _rate(robot.fps)
    joints = {part: names for part, names in (("state", robot.state), ("action", robot.action)) if names}
    if _WORLD.value and not joints:
        named = tuple(f"{joint}.pos" for joint in world(_WORLD.value).joints)
        joints = dict.fromkeys(("state", "action"), named) if named else {}
    tasks = [source.find(task) for task in _TASKS.value] or source.names()
    if _DROP.value and not any(source.listing(task) for task in tasks):
        raise ValueError(f"no demonstration of {_DEMOS.value} is left to write; name fewer with --drop")

    def demos() -> Iterator[Demo]:
        for task in progress(tasks, description="tasks"):
            yield from source.demos(task, _LIMIT.value)

    kind = _ROBOT.value or robot.robot_type
    lerobot_v3.write(Path(_OUTPUT.value), demos(), cameras, fps, kind, _PICTURES.value, joints=joints)
    written = sources.open(_OUTPUT.value, cameras)
    for task, count in written.tasks().items():
        print(f"{count:5d}  {task}")
    print(f"dataset: {_OUTPUT.value}")
