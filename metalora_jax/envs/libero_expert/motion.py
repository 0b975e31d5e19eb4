"""Moves: small closed loops, each a generator of actions that ends when it has arrived; the caller steps in between."""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from metalora_jax.envs.libero_expert.hand import FIRM, STIFF, command
from metalora_jax.envs.libero_expert.scene import Scene

Actions = Iterator[np.ndarray]
OPEN, CLOSE = -1.0, 1.0

_AHEAD = 0.042  # [m] between the hand and the point of a course that it heads for
_SLIP = 0.04  # [m] that a thing may move in the hand and still be held
_PATIENCE = 60  # steps after which a move ends, wherever it is
_STRAIGHT = 0.005  # [m] beside its goal that counts as straight above it
_AT = 0.006  # [m] of its goal that counts as being there
_PROMPT = 15  # steps within which a hand that nothing pushes is there; from then on, more counts as straight above
_LOOSER = 0.001  # [m] more with each step
_LOOSEST = 0.010  # [m] more, at most: open fingers still pass beside most things


class Stuck(RuntimeError):
    """No grasp, or no place, that the hand can reach."""


class Lost(Exception):
    """What the hand was carrying is no longer in it."""


def follow(scene: Scene, points: np.ndarray, rotation: np.ndarray, grip: float, near: float, held: str = "") -> Actions:
    """Moves along a course (P, 3), turning to `rotation` (3, 3) underway, until `near` [m] its end.

    Raises:
      Lost: if `held` has slipped out of the hand.
    """
    legs = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    _, first = scene.hand()
    whole = Rotation.from_matrix(rotation @ first.T).as_rotvec()
    hold = scene.hold(held) if held else None
    done = 0
    for _ in range(_PATIENCE + 4 * len(points)):
        position, now = scene.hand()
        ahead = np.linalg.norm(points[done:] - position, axis=1)
        done += int(np.argmin(ahead[:12]))
        if np.linalg.norm(points[-1] - position) < near:
            return
        # Progress is measured between the points, too: a goal that jumps from point to point makes it jerk.
        along = legs[done] + (position - points[done]) @ _direction(points, done) + _AHEAD
        goal = np.array([np.interp(along, legs, points[:, k]) for k in range(3)])
        share = np.clip(along / max(legs[-1], _AHEAD), 0.0, 1.0)
        yield command(position, now, goal, Rotation.from_rotvec(share * whole).as_matrix() @ first, grip)
        if hold is not None and np.linalg.norm(scene.hold(held) - hold) > _SLIP:
            raise Lost(held)


def _direction(points: np.ndarray, at: int) -> np.ndarray:
    """Unit vector (3,) along a course (P, 3) at its point number `at`."""
    way = points[min(at + 1, len(points) - 1)] - points[max(at - 1, 0)]
    return way / max(float(np.linalg.norm(way)), 1e-9)


def descend(
    scene: Scene,
    goal: Callable[[], np.ndarray],
    rotation: np.ndarray,
    grip: float,
    arrived: Callable[[], bool] | None = None,
) -> Actions:
    """Lowers the hand onto `goal()` (3,), going down only as far as it stands straight above, until `arrived()`.

    Without `arrived`, until it stands at the goal. What counts as straight above grows with the steps that it takes:
    otherwise, a hand that is pushed about would hover and never close.
    """
    for step in range(_PATIENCE):
        position, now = scene.hand()
        target = goal()
        slack = np.clip((step - _PROMPT) * _LOOSER, 0.0, _LOOSEST)
        high = target + np.array([0.0, 0.0, np.clip(4.0 * (_aside(position, target) - _STRAIGHT - slack), 0.0, 0.05)])
        yield command(position, now, high, rotation, grip, speed=0.7, stiff=STIFF if step < _PROMPT else FIRM)
        position, target = scene.hand()[0], goal()
        there = np.hypot(max(0.0, _aside(position, target) - slack), position[2] - target[2]) < _AT
        if there if arrived is None else arrived():
            return


def _aside(position: np.ndarray, target: np.ndarray) -> float:
    """Horizontal distance [m] of two points (3,)."""
    return float(np.linalg.norm((target - position)[:2]))


def squeeze(scene: Scene, name: str = "") -> Actions:
    """Closes the hand where it is, until the fingers stand still, and on both sides of `name` if they can."""
    position, rotation = scene.hand()
    before = scene.opening()
    still = 0
    for step in range(20):
        yield command(*scene.hand(), position, rotation, CLOSE, stiff=FIRM)
        now = scene.opening()
        still = still + 1 if step > 2 and abs(now - before) < 0.0006 else 0
        before = now
        if still >= 2 and (not name or scene.grasped(name)):
            return


def release(scene: Scene, name: str) -> Actions:
    """Opens the hand where it is, until it holds nothing."""
    position, rotation = scene.hand()
    width = scene.opening()
    for _ in range(12):
        yield command(*scene.hand(), position, rotation, OPEN)
        if not scene.grasped(name) and scene.opening() > min(width + 0.015, 0.075):
            return


def rise(scene: Scene, height: float, grip: float) -> Actions:
    """Moves straight up by `height` [m]."""
    start, rotation = scene.hand()
    goal = start + np.array([0.0, 0.0, height])
    for _ in range(_PATIENCE):
        position, now = scene.hand()
        if position[2] > goal[2] - 0.02:
            return
        yield command(position, now, goal, rotation, grip)


def straight(
    scene: Scene,
    goal: Callable[[], np.ndarray],
    rotation: np.ndarray,
    grip: float,
    near: float = 0.0,
    steps: int = _PATIENCE,
) -> Actions:
    """Moves straight to `goal()` (3,) until `near` [m] to it, or for so many steps."""
    for _ in range(steps):
        position, now = scene.hand()
        if np.linalg.norm(goal() - position) < near:
            return
        yield command(position, now, goal(), rotation, grip)
