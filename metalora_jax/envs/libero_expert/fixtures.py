"""Drawers, doors and knobs: pulled by their handle, pushed shut, or grasped and turned."""

import numpy as np
from scipy.spatial.transform import Rotation

from metalora_jax.envs.libero_expert import hand
from metalora_jax.envs.libero_expert.boxes import Boxes, joined
from metalora_jax.envs.libero_expert.grasps import grasps
from metalora_jax.envs.libero_expert.hand import UP, command
from metalora_jax.envs.libero_expert.motion import CLOSE, OPEN, Actions, descend, follow, squeeze, straight
from metalora_jax.envs.libero_expert.placing import course
from metalora_jax.envs.libero_expert.scene import Joint, Scene

_RANGES = {
    "open": "default_open_ranges",
    "close": "default_close_ranges",
    "turnon": "default_turnon_ranges",
    "turnoff": "default_turnoff_ranges",
}
_PULL_TILT = 0.15  # [rad] of a hand that reaches for a handle, down from the horizontal
_PUSH_TILT = 0.7  # [rad] of a hand that pushes: fingers first, palm behind
_BEFORE = 0.06  # [m] in front of a handle or a face
_LEAD = 0.06  # [m] that a goal lies ahead of what is moved
_AIR = 0.03  # [m]
_STEPS = 120  # after which a pull, a push or a twist ends


def operate(scene: Scene, goal: list[str]) -> Actions:
    """Achieves `goal` = [predicate, name], with predicate open, close, turnon or turnoff."""
    predicate, name = goal
    joint = scene.joint(name)
    low, high = sorted(scene.articulation(name)[_RANGES[predicate]])
    sign = 1.0 if joint.value() < (low + high) / 2 else -1.0
    if predicate in ("turnon", "turnoff"):
        yield from _twist(scene, joint, sign, goal)
    elif predicate == "open":
        yield from _pull(scene, joint, sign, goal)
    else:
        yield from _push(scene, joint, sign, goal)


def _twist(scene: Scene, joint: Joint, sign: float, goal: list[str]) -> Actions:
    knob = joint.boxes()
    middle = knob.centers.mean(axis=0)
    grasp = grasps(knob, middle, scene.others())[0]
    down = hand.pointing_down(grasp.yaw)
    yield from _go(scene, grasp.position + 0.05 * UP, down, OPEN)
    yield from descend(scene, lambda: grasp.position, down, OPEN)
    yield from squeeze(scene)
    for _ in range(_STEPS):
        if scene.holds(goal):
            break
        position, now = scene.hand()
        turned = Rotation.from_rotvec(sign * 0.4 * joint.axis()).as_matrix() @ now
        yield command(position, now, grasp.position, _upright(turned), CLOSE)
    yield from straight(scene, lambda: grasp.position, scene.hand()[1], OPEN, steps=4)
    yield from straight(scene, lambda: grasp.position + 0.1 * UP, scene.hand()[1], OPEN, near=0.03)


def _upright(rotation: np.ndarray) -> np.ndarray:
    """The nearest rotation of a hand that points straight down."""
    return hand.pointing_down(hand.yaw_of(rotation))


def _pull(scene: Scene, joint: Joint, sign: float, goal: list[str]) -> Actions:
    bar = _outermost(joint, sign)
    origin, frame = joint.pose()
    way = sign * joint.motion(bar.centers[0])
    inward = -np.cos(_PULL_TILT) * way - np.sin(_PULL_TILT) * UP
    length = bar.axes[0][:, np.argmax(bar.halves[0])]
    rotation = hand.facing(inward, np.cross(inward, length), scene.hand()[1])
    local = frame.T @ (bar.centers[0] - origin), frame.T @ rotation

    def grip() -> tuple[np.ndarray, np.ndarray]:
        origin, frame = joint.pose()
        return origin + frame @ local[0], frame @ local[1]

    yield from _go(scene, grip()[0] - _BEFORE * inward, rotation, OPEN)
    yield from straight(scene, lambda: grip()[0], rotation, OPEN, near=0.006)
    yield from squeeze(scene)
    for _ in range(_STEPS):
        if scene.holds(goal):
            break
        place, turned = grip()
        yield command(*scene.hand(), place + _LEAD * sign * joint.motion(place), turned, CLOSE)
    away = scene.hand()[0] - _BEFORE * inward
    yield from straight(scene, lambda: scene.hand()[0], scene.hand()[1], OPEN, steps=5)
    yield from straight(scene, lambda: away, scene.hand()[1], OPEN, near=0.02)


def _push(scene: Scene, joint: Joint, sign: float, goal: list[str]) -> Actions:
    face = _outermost(joint, -sign)
    origin, frame = joint.pose()
    way = sign * joint.motion(face.centers[0])
    front = face.centers[0] - way * (np.abs(face.axes[0].T @ way) @ face.halves[0])
    inward = np.cos(_PUSH_TILT) * way - np.sin(_PUSH_TILT) * UP
    rotation = hand.facing(inward, np.cross(UP, way), scene.hand()[1])
    local = frame.T @ (front - hand.TIP * inward - origin), frame.T @ rotation

    def touch() -> tuple[np.ndarray, np.ndarray]:
        origin, frame = joint.pose()
        return origin + frame @ local[0], frame @ local[1]

    # From above: behind the hand there may be little room.
    before = touch()[0] - _BEFORE / 2 * way
    yield from _go(scene, before + _BEFORE * UP, rotation, CLOSE)
    yield from straight(scene, lambda: before, rotation, CLOSE, near=0.015)
    for _ in range(_STEPS):
        if scene.holds(goal):
            break
        place, turned = touch()
        yield command(*scene.hand(), place + _LEAD * sign * joint.motion(place), turned, CLOSE)
    away = scene.hand()[0] - _BEFORE * way
    yield from straight(scene, lambda: away, scene.hand()[1], OPEN, near=0.02)


def _outermost(joint: Joint, sign: float) -> Boxes:
    """The box of the part that reaches furthest where it moves as the value grows (sign 1) or shrinks (-1)."""
    boxes = joint.boxes()
    reach = []
    for center, axes, half in zip(*boxes, strict=True):
        way = sign * joint.motion(center)
        way = np.array([*way[:2], 0.0])
        reach.append(way @ (center - joint.pose()[0]) + np.abs(axes.T @ way) @ half)
    best = int(np.argmax(reach))
    return Boxes(*(part[best : best + 1] for part in boxes))


def _go(scene: Scene, goal: np.ndarray, rotation: np.ndarray, grip: float) -> Actions:
    """Over everything to `goal`, turning underway."""
    position, now = scene.hand()
    both = joined(*(hand.shape(position, pose, 2 * hand.OPEN) for pose in (now, rotation)))
    way = course(both, scene.others(), position, goal, 0.0, _AIR)
    yield from follow(scene, way, rotation, grip, near=0.02)
