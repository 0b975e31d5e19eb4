"""Where to grasp: all collision-free grasps from straight above, the best first."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter

from metalora_jax.envs.libero_expert.boxes import CELL, Boxes, heights, turn
from metalora_jax.envs.libero_expert.hand import FINGER, OPEN, PALM, PALM_GAP, TIP

_DEPTH = 0.024  # [m] that the grip site should go below the top of what is grasped
_LEAST_DEPTH = 0.003  # [m]
_AIR = 0.004  # [m] free beside an open finger
_FLOAT = 0.003  # [m] free under it
_SLANT = 0.010  # [m] by which a side may recede across the rubber: fingers slide off a corner
_PAD = 0.008  # [m] half width of the rubber
_SAME_SIDE = 4.0  # [1/m] decides between the two sides of a rim, so that demonstrations agree
_FIRST_YAW = -1.2  # [rad]; the range is cut where things rarely lie, so that grasps do not alternate
_STRIDE = 2  # cells between the places that are tried
_SMALL = 0.10  # [m] radius of a thing; the map of what lies around is never smaller than for such a one


class Grasp(NamedTuple):
    """A hand that points down, about to close."""

    position: np.ndarray  # (3,) of the grip site [m]
    yaw: float  # of the closing axis from the y axis [rad]
    cost: float


def grasps(target: Boxes, mass_center: np.ndarray, others: Boxes) -> list[Grasp]:
    """Grasps of `target` among `others`, the cheapest first; empty if fingers fit nowhere.

    Costs reflect what makes a grasp fail or look odd: a thing off the middle between the fingers, held far from its
    centre of mass (3,), shallowly, across slanted sides, or with a turned wrist.
    """
    low, high = target.extent()
    middle = np.array([*(low.min(axis=0) + high.max(axis=0))[:2] / 2, 0.0])
    corners = np.maximum(np.abs(low - middle), np.abs(high - middle))[:, :2]
    reach = np.linalg.norm(corners, axis=1).max()  # a pan's handle sticks out
    window = PALM[0] + max(_SMALL, reach)
    near = others.extent()
    close = ((near[0] < middle + 1.5 * window) & (near[1] > middle - 1.5 * window))[:, :2].all(axis=1)
    others = Boxes(*(part[close] for part in others))
    found = [grasp for yaw in _yaws(target) for grasp in _at_yaw(target, mass_center, others, middle, window, yaw)]
    return sorted(found, key=lambda grasp: grasp.cost)


def _yaws(target: Boxes) -> list[float]:
    """No turn at all, and turns that line up with the largest box of the target."""
    largest = target.axes[np.argmax(np.prod(target.halves, axis=1))]
    flat = largest[:2, np.argmax(np.linalg.norm(largest[:2], axis=0))]
    along = np.arctan2(flat[1], flat[0]) + np.pi / 12 * np.arange(12)
    return [0.0, *((along - _FIRST_YAW) % np.pi + _FIRST_YAW)]


def _at_yaw(
    target: Boxes, mass_center: np.ndarray, others: Boxes, middle: np.ndarray, window: float, yaw: float
) -> list[Grasp]:
    # In this frame the fingers close along the first axis.
    into = turn(-yaw - np.pi / 2)
    own, rest = (boxes.moved(into, middle, np.zeros(3)) for boxes in (target, others))
    lower = np.full(2, -CELL * round(window / CELL))
    mine = heights(own, lower, -lower).top
    everything = np.maximum(mine, heights(rest, lower, -lower).top)
    lowest = np.maximum(_finger_floor(everything), _palm_floor(everything))
    between = maximum_filter(mine, _cells(np.array([OPEN - _AIR, _PAD])), mode="constant", cval=-np.inf)
    z = np.maximum(lowest, between - _DEPTH)
    fits = np.isfinite(between) & (between - z >= _LEAST_DEPTH) & _lattice(len(mine))
    found = []
    weight = into @ (mass_center - middle)
    for i, j in np.argwhere(fits):
        cost = _cost(mine, i, j, z[i, j])
        if cost is None:
            continue
        u, v = lower + CELL * np.array([i, j])
        lever = np.hypot(u - weight[0], v - weight[1])
        shallow = (_DEPTH - (between[i, j] - z[i, j])) / _DEPTH
        cost += lever / 0.05 + shallow + 0.5 * abs(yaw) / (np.pi / 2) - _SAME_SIDE * u
        found.append(Grasp(into.T @ np.array([u, v, z[i, j]]) + middle, yaw, cost))
    return found


def _cost(mine: np.ndarray, i: int, j: int, z: float) -> float | None:
    """Of what lies between the fingers at (i, j), cut at the height of the rubber; None where it cannot be held."""
    a, b = round(OPEN / CELL), round(_PAD / CELL)
    solid = mine[i - a : i + a + 1, j - b : j + b + 1] > z - 0.002
    rows = np.atleast_1d(solid.any(axis=0))
    if not rows[b] or rows.sum() < 2:  # a bottle's neck is narrower than the rubber
        return None
    first = solid[:, rows].argmax(axis=0) - a
    last = a - solid[::-1, rows].argmax(axis=0)
    width = CELL * (last.max() - first.min() + 1)
    off = CELL * abs(last.max() + first.min()) / 2
    slant = CELL * max(np.ptp(first), np.ptp(last))
    if width / 2 + off > OPEN - _AIR or slant > _SLANT:
        return None
    return off / 0.01 + slant / _SLANT + 0.2 * (~rows).mean()


def _lattice(side: int) -> np.ndarray:
    """The cells that are tried, the middle one among them."""
    line = (np.arange(side) - side // 2) % _STRIDE == 0
    return line[:, None] & line[None, :]


def _cells(half: np.ndarray) -> tuple[int, int]:
    return tuple(2 * np.ceil(half / CELL).astype(int) + 1)


def _finger_floor(everything: np.ndarray) -> np.ndarray:
    """Lowest height of the grip site at which the open fingers are free, for each cell."""
    under = maximum_filter(everything, _cells(FINGER + _AIR), mode="nearest")
    aside = round((OPEN + FINGER[0]) / CELL)
    return np.maximum(np.roll(under, aside, axis=0), np.roll(under, -aside, axis=0)) + TIP + _FLOAT


def _palm_floor(everything: np.ndarray) -> np.ndarray:
    return maximum_filter(everything, _cells(PALM + _AIR), mode="nearest") - PALM_GAP + _AIR
