"""Checks that need the simulator: pictures of the same moment, and whether recorded actions succeed again.

It runs in a process of its own, so that a crash in a C library becomes a finding.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.envs.libero import Libero
from metalora_jax.envs.libero_restore import restore
from metalora_jax.envs.world import Simulator, world
from metalora_jax.evaluation.doctor.recordings import Start
from metalora_jax.machine.processes import in_processes

EVERY = 10  # steps between two checks of the hand
PATIENCE = 300.0  # [s] for a simulator to open, and for each replay, before it counts as hanging
OFF = 0.02  # [m] distance of the hand from where it was recorded
LINGER = 10  # steps with the last action, for what still has to fall or close


class Take(NamedTuple):
    """A demonstration to play again."""

    start: Start
    state: np.ndarray  # (T, state_dim)
    actions: np.ndarray  # (T, action_dim)


class Played(NamedTuple):
    """The result of a replay."""

    first: np.ndarray  # (C, H, W, 3) uint8 at its start
    success: bool
    state: np.ndarray  # (state_dim,) at its start
    off: np.ndarray  # (n,) [m] distance of the hand from where it was recorded, every EVERY steps; (0,) for joints
    remedy: str  # what would make it succeed, if known
    trouble: str  # why it could not be played


class Visit(NamedTuple):
    """What the simulator shows of a task."""

    scene: np.ndarray  # (C, H, W, 3) uint8 at some start of the task
    state_dim: int
    played: tuple[Played, ...]


def visit(world_name: str, task: str, cameras: Sequence[str], image_size: int, takes: Sequence[Take]) -> Visit:
    """Opens the task in a fresh process, and replays every take.

    Raises:
      RuntimeError: if the process died or hangs.
      Exception: whatever building the simulator raises.
    """
    job = (world_name, task, tuple(cameras), image_size, tuple(takes))
    [seen] = in_processes(_visit, [job], workers=1, timeout=PATIENCE * (1 + len(takes)))
    return seen


def _visit(world_name: str, task: str, cameras: tuple[str, ...], image_size: int, takes: tuple[Take, ...]) -> Visit:
    known = world(world_name)
    simulator = takes[0].start.simulator if takes else {}  # of one file, all alike
    with known.open(task, cameras, image_size, **simulator) as env:
        env.reset(0)
        frame = env.observe()
        return Visit(frame.images, len(frame.state), tuple(_play(env, take, not known.joints) for take in takes))


def _play(env: Simulator, take: Take, hand: bool) -> Played:
    """Plays a take; `hand`: whether the state begins with the hand's position."""
    nothing = Played(np.zeros((0, 0, 0, 3), np.uint8), False, np.zeros(0), np.zeros(0), "", "")
    try:
        played = nothing._replace(trouble=f"{env.task}: no recorded start that this world can be set to")
        for begin in _ways(env, take.start):
            played = _run(env, begin, take, take.actions, hand)
            if played.success:
                return played
        reverse = take.actions * np.append(np.ones(take.actions.shape[1] - 1), -1.0)
        if hand and any(_run(env, begin, take, reverse, hand).success for begin in _ways(env, take.start)):
            return played._replace(remedy="the sign of the gripper reversed")
        return played
    except ValueError as error:
        return nothing._replace(trouble=str(error))


def _ways(env: Simulator, start: Start) -> list[Callable[[], None]]:
    """How to set the simulator to a recorded start: a seed restores it exactly, a state all but the contact forces."""
    ways: list[Callable[[], None]] = []
    if start.seed is not None:
        ways.append(functools.partial(env.reset, start.seed, start.condition))
    if start.state is not None and isinstance(env, Libero):
        ways.append(functools.partial(restore, env, start.state, start.model, start.condition))
    return ways


def _run(env: Simulator, begin: Callable[[], None], take: Take, actions: np.ndarray, hand: bool) -> Played:
    begin()
    first, off, success = env.observe(), [], False
    for t, action in enumerate([*actions, *[actions[-1]] * (LINGER + take.start.condition.latency)]):
        if hand and t % EVERY == 0 and t < len(take.state):
            place = (env.observe() if t else first).state[:3]
            off.append(float(np.linalg.norm(place - take.state[t, :3])))
        success |= env.step(action).success
    return Played(first.images, success, first.state, np.array(off), "", "")
