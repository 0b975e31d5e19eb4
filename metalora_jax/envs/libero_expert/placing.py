"""Where to put down what the hand holds, and over which course to bring it there."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.ndimage import minimum_filter

from metalora_jax.envs.libero_expert.boxes import CELL, Boxes, Heights, heights, turn

TURNS = np.pi / 24 * np.arange(-12, 13)  # [rad]
_STRIDE = 2  # cells between the places that are tried
_STEEP = 1.5  # rise over run of a course
_SPACING = 0.015  # [m] between the points of a course


class Place(NamedTuple):
    """Where a held thing comes to rest."""

    origin: np.ndarray  # (3,) of the thing [m]
    turn: float  # about the vertical axis, from how it is held now [rad]
    drop: float  # [m] that it falls, where the hand cannot go as low as the thing would rest
    cost: float


def places(
    held: Boxes,
    hand: Boxes,
    origin: np.ndarray,
    still: Boxes,
    center: np.ndarray,
    reach: float,
    allowed: Callable[[np.ndarray], bool],
    turns: np.ndarray = TURNS,
) -> list[Place]:
    """Places for `held` and the `hand` around it, both given as they are now, the cheapest first.

    Args:
      origin: (3,) of the held thing now [m]. It is what `allowed` judges once the thing has come to rest.
      still: everything that stays where it is.
      center, reach: the square of places that are tried, (2,) and half its side [m].
      turns: about the vertical axis that are tried [rad].
    """
    radius = 0.02 + max(np.abs(np.stack(boxes.extent())[..., :2] - origin[:2]).max() for boxes in (held, hand))
    wide = CELL * np.ceil(radius / CELL)
    far = CELL * _STRIDE * round(reach / CELL / _STRIDE)
    ground = heights(still, center - wide - far, center + wide + far).top
    found = []
    for angle in turns:
        own, fingers = (
            heights(
                boxes.moved(turn(angle), origin, np.array([0.0, 0.0, origin[2]])), np.full(2, -wide), np.full(2, wide)
            )
            for boxes in (held, hand)
        )
        padded = own._replace(bottom=minimum_filter(own.bottom, 3))  # a cell of air around it
        for i in range(0, 2 * round(far / CELL) + 1, _STRIDE):
            for j in range(0, 2 * round(far / CELL) + 1, _STRIDE):
                rise = _clear(padded, ground, i, j)
                offset = CELL * np.array([i, j]) - far
                rest = np.array([*(center + offset), origin[2] + rise])
                if not np.isfinite(rise) or not allowed(rest):
                    continue
                drop = max(0.0, _clear(fingers, ground, i, j) - rise)
                cost = np.linalg.norm(offset) / 0.05 + 0.3 * abs(angle) + drop / 0.02 + rise / 0.05
                found.append(Place(rest, float(angle), drop, float(cost)))
    return sorted(found, key=lambda place: place.cost)


def _clear(moving: Heights, ground: np.ndarray, i: int, j: int) -> float:
    """How far `moving` must rise [m] so that it just touches the ground, its map laid over it at cell (i, j)."""
    rows, columns = moving.bottom.shape
    return float((ground[i : i + rows, j : j + columns] - moving.bottom).max())


def course(moving: Boxes, still: Boxes, start: np.ndarray, end: np.ndarray, angle: float, air: float) -> np.ndarray:
    """Points (P, 3) [m] from `start` to `end` at which `moving` clears what is `still` by `air` [m].

    Args:
      moving: as it is at `start`; it turns by `angle` [rad] about the vertical axis underway.
      start, end: (3,) of a point that moves with it, the grip site.

    The way leads straight across, and as low as obstacles allow with slopes of bounded steepness.
    """
    distance = np.linalg.norm((end - start)[:2])
    count = max(2, int(np.ceil(distance / _SPACING)) + 1)
    share = np.linspace(0.0, 1.0, count)
    flat = start[:2] + share[:, None] * (end - start)[:2]
    low, high = moving.extent()
    radius = CELL * np.ceil((0.02 + np.linalg.norm(np.maximum(high - start, start - low)[:, :2], axis=1).max()) / CELL)
    ground = heights(still, flat.min(axis=0) - radius - CELL, flat.max(axis=0) + radius + CELL)
    need = np.full(count, -np.inf)
    for k, place in enumerate(flat):
        to = np.array([0.0, 0.0, start[2]])
        here = heights(moving.moved(turn(share[k] * angle), start, to), np.full(2, -radius), np.full(2, radius))
        i, j = np.round((place - radius - ground.corner) / CELL).astype(int)
        need[k] = start[2] + _clear(here, ground.top, i, j) + air
    line = np.concatenate([[start[2]], need[1:-1], [end[2]]])  # where it is now and where it shall end, it may be
    apart = _STEEP * distance * np.abs(share[:, None] - share[None, :])
    height = (line[None, :] - apart).max(axis=1)
    points = np.column_stack([flat, height])
    return np.concatenate([_upright(start, points[0]), points, _upright(points[-1], end)])


def _upright(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Points on the vertical line from `a` to `b`, without `b`."""
    count = int(np.ceil(abs(b[2] - a[2]) / _SPACING))
    return a + np.linspace(0.0, 1.0, count, endpoint=False)[:, None] * (b - a)
