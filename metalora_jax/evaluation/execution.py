"""From overlapping action chunks to the command of one control step.

A policy observes every `execute` steps and predicts a whole chunk each time, so that several chunks may contain
the same step. Without an ensemble the newest one is followed; with one they are averaged, with the exponential
weights of temporal ensembling (Zhao et al. 2023, arXiv:2304.13705, section IV.A). Everything here is pure.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Chunk(NamedTuple):
    """What the policy planned when it looked."""

    start: int  # control step of the first action
    actions: np.ndarray  # (chunk, action_dim), in the robot's own units


def check(execute: int, ensemble: float | None, chunk: int) -> None:
    """Checks that a policy with chunks of `chunk` actions can follow the settings, and that none is without effect.

    Raises:
      ValueError: if not; the message names the field of `control`.
    """
    if not 1 <= execute <= chunk:
        raise ValueError(f"control.execute = {execute} must lie in [1, {chunk}], the length of the policy's chunks")
    if ensemble is not None and not np.isfinite(ensemble):
        raise ValueError(f"control.ensemble = {ensemble} must be finite, or None for no averaging")
    if ensemble is not None and execute == chunk:
        raise ValueError(
            f"control.ensemble averages chunks that overlap; none do where control.execute = {execute} is all of a "
            "chunk: lower control.execute, or set control.ensemble to None"
        )


def covering(chunks: Sequence[Chunk], now: int) -> list[Chunk]:
    """Those of `chunks` that have an action for control step `now`, in the same order."""
    return [chunk for chunk in chunks if chunk.start <= now < chunk.start + len(chunk.actions)]


def command(chunks: Sequence[Chunk], now: int, ensemble: float | None) -> np.ndarray:
    """The command (action_dim,) for control step `now`, in the dtype of the chunks.

    Every entry is treated alike, the gripper's too. Where a simulator takes the sign of that one (LIBERO), its average
    is a weighted vote between opening and closing; where it is an effort (Meta-World), the gripper changes over
    gradually, as long as the chunks disagree. A small turn is averaged as the vector that it is.

    Args:
      chunks: oldest first; at least one covers `now`.
      now: control step, from the episode's start.
      ensemble: None follows the newest chunk. A number m weighs a chunk that is s steps younger than the oldest one by
        exp(-m s): at 0 all count alike, above 0 the older ones more, below 0 the younger.
    """
    known = covering(chunks, now)
    if not known:
        raise ValueError(f"no chunk has an action for step {now}: the policy must observe at least once per chunk")
    actions = np.stack([chunk.actions[now - chunk.start] for chunk in known])
    if ensemble is None:
        return actions[-1]
    starts = np.array([chunk.start for chunk in known])
    exponents = -ensemble * (starts - starts[0])
    weights = np.exp(exponents - exponents.max())  # the largest is 1: none overflows
    return (weights @ actions / weights.sum()).astype(actions.dtype)
