"""What only the simulator can tell: pictures of the same moment, and whether recorded actions lead to success again.

It runs in a process of its own, so that a crash in a C library is a finding, and not the end.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.envs.libero import Libero
from metalora_jax.envs.libero_restore import restore
from metalora_jax.envs.world import Simulator, world
from metalora_jax.evaluation.doctor.recordings import Start
from metalora_jax.processes import in_processes

EVERY = 10  # steps between two looks at the hand
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
      RuntimeError: the process died.
      Exception: whatever building the simulator raises.
    """
    job = (world_name, task, tuple(cameras), image_size, tuple(takes))
    [seen] = in_processes(_visit, [job], workers=1)
    return seen


def _visit(world_name: str, task: str, cameras: tuple[str, ...], image_size: int, takes: tuple[Take, ...]) -> Visit:
    with world(world_name).open(task, cameras, image_size) as env:
        env.reset(0)
        frame = env.observe()
        return Visit(frame.images, len(frame.state), tuple(_play(env, take) for take in takes))


def _play(env: Simulator, take: Take) -> Played:
    nothing = np.zeros((0, 0, 0, 3), np.uint8), False, np.zeros(0), np.zeros(0), ""
    try:
        first, state, off, success = _run(env, take, take.actions)
        mended = ""
        if not success:
            other = take.actions * np.append(np.ones(take.actions.shape[1] - 1), -1.0)
            mended = "the gripper reversed in sign" if _run(env, take, other)[-1] else ""
        return Played(first, success, state, off, mended, "")
    except ValueError as error:
        return Played(*nothing, str(error))


def _run(env: Simulator, take: Take, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    begin(env, take.start)
    frame = env.observe()
    first, off, success = frame, [], False
    for t, action in enumerate([*actions, *[actions[-1]] * (LINGER + take.start.condition.latency)]):
        if t % EVERY == 0 and t < len(take.state):
            frame = env.observe() if t else first
            off.append(float(np.linalg.norm(frame.state[:3] - take.state[t, :3])))
        success |= env.step(action).success
    return first.images, first.state, np.array(off), success


def begin(env: Simulator, start: Start) -> None:
    """Brings the simulator to a recorded start: by seed, where the file tells it, else by the recorded state.

    Raises:
      ValueError: the file tells neither, or what it tells does not fit the task.
    """
    if start.seed is not None:
        env.reset(start.seed, start.condition)
    elif start.state is not None and isinstance(env, Libero):
        restore(env, start.state, start.model, start.condition)
    else:
        raise ValueError(f"{env.task}: no start that this world could be brought to")
