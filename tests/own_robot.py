"""Made-up datasets of robots that people have, and the commands of the page about them."""

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metalora_jax.data import lerobot_v3
from metalora_jax.types import Demo
from tests import lerobot_directory

PAGE = Path(__file__).parents[1] / "docs" / "own_robot.md"
POLICY = "lerobot/smolvla_base@COMMIT"  # as the page calls it
_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")


class Kind(NamedTuple):
    """A robot."""

    names: tuple[str, ...]  # of state and action
    cameras: tuple[str, ...]
    fps: int
    robot_type: str
    scale: float  # of its motions


SO100 = Kind(
    tuple(f"{j}.pos" for j in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")),
    *(("top", "wrist"), 30, "so100_follower", 30.0),
)
ALOHA = Kind(
    tuple(f"{side}_{joint}.pos" for side in ("left", "right") for joint in _ARM),
    *(("cam_high", "cam_left_wrist", "cam_right_wrist"), 50, "aloha", 0.8),
)
CARTESIAN = Kind(("x", "y", "z", "rx", "ry", "rz", "gripper"), ("front",), 10, "franka", 0.2)


def demos(kind: Kind, tasks: Sequence[str], each: int, steps: int = 24, size: int = 32) -> list[Demo]:
    """Smooth motions from one place to another, each task's towards its own; pictures follow them."""
    rng = np.random.default_rng(len(kind.names))
    goals = rng.normal(size=(len(tasks), len(kind.names)))
    made = []
    for number in range(each):
        for goal, task in zip(goals, tasks, strict=True):
            progress = np.linspace(0, 1, steps + number)[:, None]
            start = rng.normal(size=len(kind.names))
            path = kind.scale * (start + (goal - start) * progress**2 * (3 - 2 * progress))
            path += 0.01 * kind.scale * rng.normal(size=path.shape)
            images = rng.integers(0, 60, (len(path), len(kind.cameras), size, size, 3), dtype=np.uint8)
            for image, share in zip(images, progress[:, 0], strict=True):
                image[:, :, int(share * (size - 4)) :][:, :, :4] = 200
            lagging = np.concatenate([path[:1], path[:-1]]) + 0.01 * kind.scale * rng.normal(size=path.shape)
            made.append(Demo(task, images, lagging.astype(np.float32), path.astype(np.float32)))
    return made


def write(root: Path, kind: Kind, tasks: Sequence[str], each: int, **options) -> Path:
    """A LeRobot dataset with the names of the robot's joints and cameras."""
    keys = {camera: f"observation.images.{camera}" for camera in kind.cameras}
    recorded = demos(kind, tasks, each, **options)
    lerobot_v3.write(root, recorded, kind.cameras, kind.fps, kind.robot_type, "h264", keys)
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    for key in ("observation.state", "action"):
        info["features"][key]["names"] = list(kind.names)
    path.write_text(json.dumps(info))
    return root


def write_source(
    file: Path,
    demos: Sequence[Demo],
    names: Sequence[str],
    cameras: Sequence[str],
    fps: int,
    robot: str = "so101_follower",
) -> Path:
    """What lerobot is to record, for `experiments/peer/recording.py`."""
    fields = {"fps": fps, "names": names, "cameras": cameras, "robot": robot}
    for i, demo in enumerate(demos):
        parts = {"images": demo.images, "state": demo.state, "actions": demo.actions, "text": demo.instruction}
        fields |= {f"{part}{i}": value for part, value in parts.items()}
    np.savez(file, **fields)
    return file


def write_policy(directory: Path) -> Path:
    """A SmolVLA in lerobot's layout, of a size that a test can train, for three cameras; it has seen an SO-100."""
    known = {"mean": np.zeros(6, np.float32), "std": np.full(6, SO100.scale, np.float32)}
    statistics = {f"{part}.{name}": known[name] for part in ("observation.state", "action") for name in known}
    config = dataclasses.replace(lerobot_directory.small(), cameras=3)
    return lerobot_directory.write(directory, config, statistics)


def commands(page: Path = PAGE) -> list[list[str]]:
    """What the page tells one to type, as words: the lines that begin with metalora, each with those that go on."""
    text = page.read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^    (metalora .*)$", text, re.MULTILINE)]
