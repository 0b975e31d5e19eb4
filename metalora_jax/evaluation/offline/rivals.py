"""Rivals that need no policy: whoever does not beat them has learned nothing about the task."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.adaptation.prediction import Recorded
from metalora_jax.data import convention
from metalora_jax.data.chunks import chunk_actions
from metalora_jax.data.preprocessor import Preprocessor
from metalora_jax.data.units import gripper_dimensions
from metalora_jax.types import Demo

HOLD, MEAN, NEAREST = "hold", "mean", "nearest"
NAMES = {HOLD: "Hold pose", MEAN: "Mean action", NEAREST: "Nearest frame"}
ACTIONS = ("auto", "absolute", "relative")

_AT_ONCE = 64  # frames whose distances to all others are in memory together


class Meaning(NamedTuple):
    """What standing still means, for each dimension of the action."""

    relative: np.ndarray  # (D,) bool: it commands a difference, and zero stands still; else its last value does
    said: str  # a sentence


def meaning(demos: Sequence[Demo], choice: str = "auto", names: Sequence[str] = ()) -> Meaning:
    """What the actions of demonstrations command, from how the state follows them (see `data.convention`).

    A gripper stands still at its last command, whatever the arm's actions mean.

    Args:
      demos: of one robot.
      choice: "absolute" or "relative" where it is known; "auto" looks.
      names: of the action's dimensions, which tell grippers; without them the last is taken for one.
    """
    width = demos[0].actions.shape[1]
    grippers = list(gripper_dimensions(names, width))
    relative = np.full(width, choice == "relative")
    said = f"actions are {choice}, as told"
    if choice == "auto":
        states, actions = [demo.state for demo in demos], [demo.actions for demo in demos]
        found = convention.find(states, actions, None, grippers)
        relative[:] = found.relative
        for pair in found.pairs:
            relative[pair.action] = pair.relative
        kind = "differences" if found.relative else "absolute positions"
        said = f"actions are taken for {kind}: that is how the state follows them"
        if not found.pairs:
            said = "the state does not show what the actions command; they are taken for absolute positions"
    relative[grippers] = False
    return Meaning(relative, said)


def predicted(
    rival: str, seen: Recorded, held_out: Sequence[Demo], training: Mapping[str, Sequence[Demo]], known: Meaning
) -> np.ndarray:
    """What a rival does on N frames: (N, chunk, D) in the robot's own units.

    Args:
      rival: HOLD repeats the last command, or zero where actions are differences; MEAN is the mean action of the
        training demonstrations; NEAREST replays what followed the training frame with the nearest state, in standard
        deviations, of the same instruction where there is one.
      seen: the frames.
      held_out: the E demonstrations that they are of.
      training: demonstrations by task.
      known: what actions mean.
    """
    preprocessor = seen.frames.preprocessor
    chunk = preprocessor.sizes.chunk
    if rival == HOLD:
        last = np.stack([held_out[e].actions[t - 1] for e, t in zip(seen.demo, seen.moment, strict=True)])
        return np.repeat(np.where(known.relative, 0.0, last)[:, None], chunk, axis=1)
    every = [demo for demos in training.values() for demo in demos]
    if rival == MEAN:
        middle = np.concatenate([demo.actions for demo in every]).mean(axis=0)
        return np.broadcast_to(middle, (len(seen.demo), chunk, len(middle)))
    if rival != NEAREST:
        raise ValueError(f"no rival named {rival!r}; there are {', '.join(NAMES)}")
    out = np.empty((len(seen.demo), chunk, every[0].actions.shape[1]), np.float32)
    for e, demo in enumerate(held_out):
        same = [other for other in every if other.instruction == demo.instruction] or every
        states = np.concatenate([_normalised(preprocessor, other.state) for other in same])
        followed = np.concatenate([chunk_actions(other.actions, chunk)[0] for other in same])
        rows = np.flatnonzero(seen.demo == e)
        for first in range(0, len(rows), _AT_ONCE):
            at = rows[first : first + _AT_ONCE]
            here = _normalised(preprocessor, demo.state[seen.moment[at]])
            squares = np.square(here[:, None] - states[None]).sum(axis=2)
            out[at] = followed[squares.argmin(axis=1)]
    return out


def _normalised(preprocessor: Preprocessor, state: np.ndarray) -> np.ndarray:
    """(n, state_dim), without the zeros that a policy's wider input has."""
    return preprocessor.normalize_state(state)[:, : preprocessor.state_dim]
