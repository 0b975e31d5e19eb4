"""What only the simulator can tell: pictures of the same moment, and whether recorded actions lead to success again.

It runs in a process of its own, so that a crash in a C library is a finding, and not the end.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.envs.libero import Libero
from metalora_jax.envs.libero_restore import restore
from metalora_jax.envs.world import Simulator, world
from metalora_jax.evaluation.doctor.recordings import Start
from metalora_jax.processes import in_processes

EVERY = 10  # steps between two looks at the hand
PATIENCE = 300.0  # [s] for a simulator to open, and for each take to be played, before it counts as hanging
OFF = 0.02  # [m] of the hand's distance from where it was recorded
LINGER = 10  # steps with the last action, for what has still to fall or to close


class Take(NamedTuple):
    """A demonstration to play again."""

    start: Start
    state: np.ndarray  # (T, state_dim)
    actions: np.ndarray  # (T, action_dim)


class Played(NamedTuple):
    """What came of a take."""

    first: np.ndarray  # (C, H, W, 3) uint8 at its start
    success: bool
    state: np.ndarray  # (state_dim,) at its start
    off: np.ndarray  # (n,) [m] distance of the hand from where it was recorded, every EVERY steps
    mended: str  # what would make it succeed, where that is known
    trouble: str  # why it could not be played


class Visit(NamedTuple):
    """What the simulator shows of a task."""

    scene: np.ndarray  # (C, H, W, 3) uint8 at some start of the task
    state_dim: int
    played: tuple[Played, ...]


def visit(world_name: str, task: str, cameras: Sequence[str], image_size: int, takes: Sequence[Take]) -> Visit:
    """Opens the task in a fresh process, and plays every take.

    Raises:
      RuntimeError: the process died, or hangs.
      Exception: whatever building the simulator raises.
    """
    job = (world_name, task, tuple(cameras), image_size, tuple(takes))
    [seen] = in_processes(_visit, [job], workers=1, timeout=PATIENCE * (1 + len(takes)))
    return seen


def _visit(world_name: str, task: str, cameras: tuple[str, ...], image_size: int, takes: tuple[Take, ...]) -> Visit:
    with world(world_name).open(task, cameras, image_size) as env:
        env.reset(0)
        frame = env.observe()
        return Visit(frame.images, len(frame.state), tuple(_play(env, take) for take in takes))


def _play(env: Simulator, take: Take) -> Played:
    nothing = Played(np.zeros((0, 0, 0, 3), np.uint8), False, np.zeros(0), np.zeros(0), "", "")
    try:
        played = nothing._replace(trouble=f"{env.task}: no start that this world could be brought to")
        for begin in _ways(env, take.start):
            played = _run(env, begin, take, take.actions)
            if played.success:
                return played
        reverse = take.actions * np.append(np.ones(take.actions.shape[1] - 1), -1.0)
        if any(_run(env, begin, take, reverse).success for begin in _ways(env, take.start)):
            return played._replace(mended="the gripper reversed in sign")
        return played
    except ValueError as error:
        return nothing._replace(trouble=str(error))


def _ways(env: Simulator, start: Start) -> list[Callable[[], None]]:
    """How to bring the simulator to a recorded start: the seed gives it exactly, a state all but what contact feels."""
    ways: list[Callable[[], None]] = []
    if start.seed is not None:
        ways.append(functools.partial(env.reset, start.seed, start.condition))
    if start.state is not None and isinstance(env, Libero):
        ways.append(functools.partial(restore, env, start.state, start.model, start.condition))
    return ways


def _run(env: Simulator, begin: Callable[[], None], take: Take, actions: np.ndarray) -> Played:
    begin()
    first, off, success = env.observe(), [], False
    for t, action in enumerate([*actions, *[actions[-1]] * (LINGER + take.start.condition.latency)]):
        if t % EVERY == 0 and t < len(take.state):
            place = (env.observe() if t else first).state[:3]
            off.append(float(np.linalg.norm(place - take.state[t, :3])))
        success |= env.step(action).success
    return Played(first.images, success, first.state, np.array(off), "", "")
