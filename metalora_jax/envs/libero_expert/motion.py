"""Moves: small closed loops, each a generator of actions that ends when it has arrived; the caller steps in between."""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from metalora_jax.envs.libero_expert.hand import command
from metalora_jax.envs.libero_expert.scene import Scene

Actions = Iterator[np.ndarray]
OPEN, CLOSE = -1.0, 1.0

_AHEAD = 0.035  # [m] between the hand and the point of a course that it heads for
_SLIP = 0.04  # [m] that a thing may move in the hand and still be held
_PATIENCE = 60  # steps after which a move ends, wherever it has come to


class Stuck(RuntimeError):
    """No grasp, or no place, that the hand can reach."""


class Lost(Exception):
    """What the hand was carrying is no longer in it."""


def follow(scene: Scene, points: np.ndarray, rotation: np.ndarray, grip: float, near: float, held: str = "") -> Actions:
    """Moves along a course (P, 3), turning to `rotation` (3, 3) underway, until `near` [m] its end.

    Raises:
      Lost: `held` has slipped out of the hand.
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
        goal = points[np.searchsorted(legs, min(legs[done] + _AHEAD, legs[-1]))]
        share = min(1.0, (legs[done] + _AHEAD) / max(legs[-1], _AHEAD))
        yield command(position, now, goal, Rotation.from_rotvec(share * whole).as_matrix() @ first, grip)
        if hold is not None and np.linalg.norm(scene.hold(held) - hold) > _SLIP:
            raise Lost(held)


def descend(
    scene: Scene, goal: Callable[[], np.ndarray], rotation: np.ndarray, grip: float, arrived: Callable[[], bool]
) -> Actions:
    """Lowers the hand onto `goal()` (3,), going down only as far as it stands straight above, until `arrived()`."""
    for _ in range(_PATIENCE):
        position, now = scene.hand()
        target = goal()
        aside = np.linalg.norm((target - position)[:2])
        high = target + np.array([0.0, 0.0, np.clip(4.0 * (aside - 0.005), 0.0, 0.05)])
        yield command(position, now, high, rotation, grip, speed=0.7)
        if arrived():
            return


def squeeze(scene: Scene, name: str = "") -> Actions:
    """Closes the hand where it is, until the fingers stand still, and on both sides of `name` if they can."""
    position, rotation = scene.hand()
    before = scene.opening()
    still = 0
    for step in range(20):
        yield command(*scene.hand(), position, rotation, CLOSE)
        now = scene.opening()
        still = still + 1 if step > 2 and abs(now - before) < 0.0006 else 0
        before = now
        if still >= 2 and (not name or scene.grasped(name)):
            return


def release(scene: Scene, name: str) -> Actions:
    """Opens the hand where it is, until it holds no more."""
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
