"""Commands of grippers, and other numbers that jump: switches of another convention, values beyond all others."""

from collections.abc import Sequence

import numpy as np

from metalora_jax.data.normalize import FLOOR, Statistics
from metalora_jax.types import Demo
from metalora_jax.words import listed

LEVELS = 4  # values at most that a gripper's command takes, where it is a switch
SEEN = 0.01  # share of frames that is no accident
RANGES = (1.0, 100.0)  # where the usual ranges of a gripper that opens and closes by degrees end
USED, BEYOND = 0.4, 1.5  # of that end: the others go at least so far, and a value lies so far out
_MAP = "a -> 2 a - 1, or 1 - 2 a where 1 opens"


def doubts(demos: Sequence[Demo], statistics: Statistics | None = None) -> list[str]:
    """One sentence for each command that looks wrong, or state that no gripper reads.

    Args:
      demos: of one task.
      statistics: of the base that they are for; None compares them with each other alone.
    """
    found = [*_switches(demos, statistics)]
    for kind, verb in (("state", "state"), ("action", "action")):
        values = np.concatenate([demo.state if kind == "state" else demo.actions for demo in demos])
        found += [f"{verb} dimension {i} {what}" for i, what in beyond(values).items()]
    return found


def beyond(values: np.ndarray) -> dict[int, str]:
    """Dimensions that move by degrees up to 1 or 100, but for one value far outside, which comes again and again.

    Args:
      values: (T, D) of all demonstrations.

    Returns:
      Dimension -> what is said of it, such as "is 2 in 30% of the frames, at most 0.993 in the others".
    """
    found = {}
    for i, column in enumerate(values.T.astype(np.float64)):
        for sign, word in ((1, "at most"), (-1, "at least")):
            top = column[(sign * column).argmax()]
            at = np.abs(column - top) < 1e-3 * max(abs(top), 1)
            rest = column[~at]
            if not SEEN < at.mean() < 1 - SEEN or len(np.unique(np.round(rest, 3))) <= LEVELS:
                continue
            end = sign * rest[(sign * rest).argmax()]
            if any(USED * full < end <= full * (1 + FLOOR) and sign * top > BEYOND * full for full in RANGES):
                found[i] = f"is {top:.3g} in {at.mean():.0%} of the frames, {word} {sign * end:.3g} in the others"
    return found


def _switches(demos: Sequence[Demo], statistics: Statistics | None) -> list[str]:
    """Commands that take few values."""
    found = []
    for i in range(demos[0].actions.shape[1]):
        levels = [_levels(demo.actions[:, i]) for demo in demos]
        if any(not each for each in levels) or max(len(each) for each in levels) < 2:
            continue
        every = np.concatenate([demo.actions[:, i] for demo in demos])
        beyond = np.abs(every) > 1 + FLOOR
        signed = any(min(each) < -0.5 for each in levels)
        usual = "-1 or 1" if signed else "0 or 1"
        if SEEN < beyond.mean() < 1 and set(np.unique(every[~beyond].round(3))) == (
            {-1.0, 1.0} if signed else {0.0, 1.0}
        ):
            what = f"{every[beyond][0]:.3g} in {beyond.mean():.0%} of the frames"
            found.append(f"action dimension {i} is {what}, {usual} in the others")
            continue
        from_zero = [j for j, each in enumerate(levels) if len(each) == 2 and each[0] == 0.0]
        both = [j for j, each in enumerate(levels) if min(each) <= -1 + FLOOR]
        if from_zero and both:
            found.append(
                f"action dimension {i} is 0 or {levels[from_zero[0]][1]:.3g} in demonstration "
                f"{listed(list(map(str, from_zero)))}, but -1 or 1 in "
                f"{listed(list(map(str, both)))}: bring them to one convention"
            )
            continue
        if statistics is None:
            continue
        mean, std = float(statistics.action_mean[i]), float(statistics.action_std[i])
        square = mean**2 + std**2
        if 0.9 < square < 1.01 and abs(square - mean) > 0.1:
            if from_zero and not both and max(map(max, levels)) == 1.0:
                found.append(f"action dimension {i} is 0 or 1, the base's -1 or 1: map it, {_MAP}")
            elif beyond.mean() > SEEN:
                found.append(
                    f"action dimension {i} is {every[beyond][0]:.3g} in {beyond.mean():.0%} of the frames, the base's "
                    "stay in [-1, 1]"
                )
        elif abs(square - mean) < 0.02 and 0.02 < mean < 0.98 and both:
            found.append(f"action dimension {i} is -1 or 1, the base's 0 or 1: map it when converting")
    return found


def _levels(values: np.ndarray) -> list[float]:
    """The few values (T,) of a switch, ascending; none where they are not few, or too few frames to tell."""
    found = np.unique(np.round(values.astype(np.float64), 3))
    return found.tolist() if len(found) <= LEVELS and len(values) >= 2 * LEVELS else []
