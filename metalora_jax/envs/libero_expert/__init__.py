"""A scripted expert for LIBERO: reads the goal and the geometry from the simulator, and moves in closed loop.

No task is named here: the behaviour follows from the goal's predicates and from the collision geometry.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from metalora_jax.envs.libero_expert.fixtures import operate
from metalora_jax.envs.libero_expert.hand import command
from metalora_jax.envs.libero_expert.motion import OPEN, Actions, Lost, Stuck, rise
from metalora_jax.envs.libero_expert.picking import pick_and_place
from metalora_jax.envs.libero_expert.scene import Scene

_ORDER = {"open": 0, "turnon": 1, "turnoff": 1, "in": 2, "on": 2, "close": 3}


def expert(env: Any) -> Callable[[], np.ndarray]:
    """The expert for the current episode of `env`, a `libero.Libero`; returns the next action (7,), in [-1, 1]."""
    actions = _solve(Scene(env.simulator))
    return lambda: next(actions)


def _solve(scene: Scene) -> Actions:
    for goal in sorted(scene.goals(), key=lambda goal: _ORDER[goal[0]]):
        while not scene.holds(goal):
            try:
                yield from _achieve(scene, goal)
            except (Lost, Stuck):
                yield from rise(scene, 0.1, OPEN)
    position, rotation = scene.hand()
    while True:
        yield command(*scene.hand(), position, rotation, OPEN)


def _achieve(scene: Scene, goal: list[str]) -> Actions:
    if goal[0] in ("in", "on"):
        if scene.shut(goal[2]):
            yield from operate(scene, ["open", goal[2]])
        yield from pick_and_place(scene, goal)
    else:
        yield from operate(scene, goal)
