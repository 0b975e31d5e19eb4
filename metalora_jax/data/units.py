"""In which units is each dimension? A guess from names and ranges, with how sure it is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GRIPPERS = ("grip", "finger", "jaw", "claw")  # in the names of such dimensions
TICKS = 400.0  # beyond any joint's degrees; servos count 4096 to a turn
DEGREES = 7.0  # beyond any joint's radians
NORMALISED = 100.5  # lerobot's other convention for joints: -100 to 100
ONE = 1.05  # normalised to 1, metres, or a small angle
_PLACES = ("x", "y", "z", "pos_x", "pos_y", "pos_z", "ee_x", "ee_y", "ee_z", "eef_x", "eef_y", "eef_z")
_TURNS = ("roll", "pitch", "yaw", "rx", "ry", "rz", "wx", "wy", "wz", "axis_angle")


class Guess(NamedTuple):
    """Of one dimension."""

    unit: str
    sure: float  # in [0, 1]


def gripper_dimensions(names: Sequence[str], width: int) -> tuple[int, ...]:
    """Those that are named so; the last where nothing is named."""
    named = tuple(i for i, name in enumerate(names) if any(word in name.lower() for word in GRIPPERS))
    return named if names else (width - 1,)


def guess(names: Sequence[str], low: np.ndarray, high: np.ndarray, grippers: Sequence[int]) -> list[Guess]:
    """Of every dimension; joints are judged together, since one that hardly moves says nothing.

    Args:
      names: of the dimensions, or none.
      low: (d,) smallest usual values.
      high: (d,) largest usual values.
      grippers: which dimensions are grippers.
    """
    largest = np.maximum(np.abs(low), np.abs(high))
    told = [_told(name, size) for name, size in zip(names, largest, strict=True)] if names else [None] * len(low)
    joints = [i for i in range(len(low)) if told[i] is None and i not in grippers]
    together = _angle(float(largest[joints].max())) if joints else Guess("unknown", 0.0)
    return [said or (_opening(low[i], high[i]) if i in grippers else together) for i, said in enumerate(told)]


def _told(name: str, largest: float) -> Guess | None:
    """What a name says, where the values do not contradict it."""
    last = name.lower().replace(".pos", "").rpartition(".")[2]
    if any(word in last for word in GRIPPERS):
        return None
    if last in _PLACES:
        return Guess("metres", 0.9) if largest < 3 else Guess("millimetres", 0.6)
    if last in _TURNS:
        return Guess("radians", 0.8) if largest < DEGREES else Guess("degrees", 0.8)
    for word, unit in (("rad", "radians"), ("deg", "degrees")):
        if last.endswith(word):
            return Guess(unit, 0.9)
    return None


def _angle(largest: float) -> Guess:
    if largest > TICKS:
        return Guess("ticks", 0.9)
    if largest > NORMALISED:
        return Guess("degrees", 0.9)
    if largest > DEGREES:
        return Guess("degrees or -100 to 100", 0.6)
    return Guess("radians", 0.8) if largest > ONE else Guess("radians, metres or shares of 1", 0.3)


def _opening(low: float, high: float) -> Guess:
    if high <= 0.12 and low >= -0.12:
        return Guess("metres", 0.6)
    if low < -0.5 and high <= ONE:
        return Guess("-1 to 1", 0.7)
    if high <= ONE:
        return Guess("0 to 1", 0.7)
    return Guess("0 to 100", 0.7) if high > DEGREES and low > -15 and high < 115 else Guess("an angle", 0.4)
