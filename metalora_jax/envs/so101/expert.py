"""A scripted expert for the SO-101: way points of the gripper, and joint targets that lead to the next one.

Its action depends on where the arm is, not on time alone: pushed off its course, it returns. At rest the servos give
way to gravity, so that the target is ahead by what holds the arm's weight.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.envs.so101.kinematics import ARM, Arm, Pose
from metalora_jax.envs.so101.tasks import SIDE, Task

_PAD = -0.0972  # [m] of the pads' centres along the gripper's axis
_FIXED = -0.0015  # [m] of the fixed pad's face, along the jaw
BETWEEN = np.array([_FIXED + SIDE / 2, 0.0, _PAD])  # where a gripped cube's centre is, in the gripper's frame
_APART = np.array([0.009, 0.0, 0.0])  # of the fixed pad from a cube, before the jaw closes
_TIP = np.array([0.0, 0.0, _PAD])  # of the closed gripper
OPEN, GRIP, SHUT = 65.0, 24.0, 3.0  # of the gripper, 0 to 100
_SPEED, _LAG = 0.28, 0.05  # [m/s] of the hand, [s] of the servos
_ABOVE = 0.09  # [m] over the table at which a cube is carried, and the open gripper passes over others
_LOW = 0.008  # [m] over a cube's centre, where it is gripped


class Way(NamedTuple):
    """One way point."""

    place: np.ndarray  # (3,) [m]
    jaw: np.ndarray  # (3,)
    point: np.ndarray  # which point of the gripper's frame is to be there
    gripper: float  # 0 to 100
    near: float = 0.012  # [m] from which the next one follows
    wait: float = 0.0  # [s] there, for the gripper to close or open
    speed: float = _SPEED  # [m/s]


def _square(towards: np.ndarray, turned: float) -> np.ndarray:
    """Of the four horizontal directions of a cube that is `turned` [rad], the one most along `towards`."""
    angles = turned + np.arange(4) * np.pi / 2
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros(4)], axis=1)
    return directions[np.argmax(directions @ towards)]


def ways(task: Task, cube: np.ndarray, turned: float, marker: np.ndarray | None, jaw: np.ndarray) -> list[Way]:
    """The way points.

    Args:
      task: what to do.
      cube: (3,) its centre [m].
      turned: about the vertical [rad].
      marker: (3,) its centre [m], where something is placed.
      jaw: (3,) how the gripper opens at the episode's start: it turns as little as possible.
    """
    up, out = np.array([0.0, 0.0, 1.0]), cube * [1, 1, 0] / np.linalg.norm(cube[:2])
    ahead = 1.0 if jaw @ out >= 0 else -1.0
    if task.verb == "push":
        behind = cube - (SIDE / 2 + 0.035) * out
        jaw = ahead * out
        over, low = behind + 0.045 * up, behind + 0.002 * up  # the arm cannot reach higher so near its base
        return [
            Way(over, jaw, _TIP, SHUT, near=0.03),
            Way(low, jaw, _TIP, SHUT, near=0.012),
            Way(low + 0.11 * out, jaw, _TIP, SHUT, near=0.022, speed=0.15),
            Way(low + 0.05 * out, jaw, _TIP, SHUT),  # a cube that has tilted falls back
        ]
    jaw, grip = _square(ahead * out, turned), cube + _LOW * up
    before = BETWEEN + _APART
    steps = [
        Way(grip + (_ABOVE - 0.02) * up, jaw, before, OPEN, near=0.02),
        Way(grip, jaw, before, OPEN, near=0.008),
        Way(grip, jaw, BETWEEN, GRIP, near=0.03, wait=0.4),
        Way(grip + _ABOVE * up, jaw, BETWEEN, GRIP, near=0.02),
    ]
    if task.verb == "place":
        assert marker is not None
        pan = np.arctan2(marker[1], marker[0]) - np.arctan2(cube[1], cube[0])
        c, s = np.cos(pan), np.sin(pan)
        jaw = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ jaw  # turned by the shoulder alone
        down = marker * [1, 1, 0] + (SIDE / 2 + _LOW + 0.004) * up
        over = down + (_ABOVE - 0.02) * up
        steps += [
            Way(over, jaw, BETWEEN, GRIP, near=0.012),
            Way(down, jaw, BETWEEN, GRIP, near=0.006, speed=0.2),
            Way(down, jaw, BETWEEN, OPEN, near=0.05, wait=0.3),
            Way(over, jaw, before, OPEN),
        ]
    return steps


def follow(arm: Arm, data: Any, stiffness: float, path: list[Way], fps: int) -> Callable[[], np.ndarray]:
    """What gives, at each control step, the next joint targets (6,): five [rad], then the gripper, 0 to 100.

    Args:
      arm: the kinematics.
      data: the simulation's `mujoco.MjData`, which is only read.
      stiffness: of the servos [Nm/rad].
      path: the way points; the last one is held.
      fps: control steps in a second.
    """
    at, waited = 0, 0.0

    def act() -> np.ndarray:
        nonlocal at, waited
        joints = data.qpos[:ARM].copy()
        while at < len(path) - 1:
            way = path[at]
            if np.linalg.norm(way.place - arm.pose(joints, way.point).place) > way.near:
                break
            if waited < way.wait:
                waited += 1 / fps
                break
            at, waited = at + 1, 0.0
        way = path[at]
        here = arm.pose(joints, way.point)
        left = way.place - here.place
        step = way.speed * (1 / fps + _LAG)
        towards = here.place + left * min(1.0, step / max(float(np.linalg.norm(left)), 1e-9))
        target = arm.solve(Pose(towards, way.jaw), joints, way.point) + data.qfrc_bias[:ARM] / stiffness
        return np.append(target, way.gripper)

    return act
