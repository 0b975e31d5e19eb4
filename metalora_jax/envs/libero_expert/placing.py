"""Where to put down what the hand holds, and along which course to bring it there."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import minimum_filter

from metalora_jax.envs.libero_expert.boxes import CELL, Boxes, Heights, heights, joined, turn

TURNS = np.pi / 24 * np.arange(-12, 13)  # [rad]
_STRIDE = 2  # cells between the places that are tried
_STEEP = 1.0  # rise over run of a course; the arm cuts the corners of a steeper one
_ASIDE = 0.008 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])  # [m] by which a place may be missed
_HEAD = 0.004  # [m] of air below a roof
_SPACING = 0.015  # [m] between the points of a course


class Place(NamedTuple):
    """Where a held thing comes to rest."""

    origin: np.ndarray  # (3,) of the thing [m]
    turn: float  # about the vertical axis, from how it is held now [rad]
    drop: float  # [m] that it falls, where the hand cannot go as low as the thing would rest
    cost: float
    roofed: bool = False  # whether it can only be reached from the side


class _Underside(NamedTuple):
    """What a body shows to the ground, seen from a point of it."""

    cells: np.ndarray  # (n, 2) int, of the map, from that point
    bottoms: np.ndarray  # (n,) lowest points over them [m]


def places(
    held: Boxes,
    hands: Sequence[Boxes],
    origin: np.ndarray,
    still: Boxes,
    center: np.ndarray,
    reach: float,
    allowed: Callable[[np.ndarray], bool],
    turns: np.ndarray = TURNS,
    roof: Boxes | None = None,
) -> list[list[Place]]:
    """For each of the `hands` that may hold `held`, the places for both of them, the cheapest first.

    Args:
      held, hands: as they are now.
      origin: (3,) of the held thing now [m]. It is what `allowed` judges once the thing has come to rest.
      still: everything that stays where it is.
      center, reach: the square of places that are tried, (2,) and half its side [m].
      turns: about the vertical axis that are tried [rad].
      roof: what may be above `held`, but not above a hand. Where it is given, nothing may drop, and what is put down
        may be pulled a little aside again.
    """
    far = CELL * _STRIDE * round(reach / CELL / _STRIDE)
    wide = far + _radius([held, *hands], origin)
    ground = heights(still, center - wide, center + wide)
    above = ground.top if roof is None else heights(joined(still, roof), center - wide, center + wide).top
    line = np.arange(-far, far + CELL / 2, _STRIDE * CELL)
    spots = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2) + center
    found: list[list[Place]] = [[] for _ in hands]
    for angle in turns:
        rises = _rises(_underside(held, origin, angle, air=1), ground.top, _cells(spots - ground.corner))
        rests = np.column_stack([spots, origin[2] + rises])
        fine = np.array([np.isfinite(rest[2]) and allowed(rest) for rest in rests])
        if roof is not None:
            fine &= [all(allowed(rest + aside) for aside in _ASIDE) for rest in rests]
            ceiling = heights(roof, center - wide, center + wide)
            fine &= rises + _HEAD < _headroom(held, origin, angle, ceiling, _cells(spots - ground.corner))
        for hand, places_of in zip(hands, found, strict=True):
            under = _underside(hand, origin, angle)
            drops = np.maximum(0.0, _rises(under, above, _cells(spots[fine] - ground.corner)) - rises[fine])
            for rest, rise, drop in zip(rests[fine], rises[fine], drops, strict=True):
                if roof is not None and drop > 0:
                    continue
                offset = np.linalg.norm(rest[:2] - center)
                cost = offset / 0.05 + 0.3 * abs(angle) + drop / 0.02 + rise / 0.01
                places_of.append(Place(rest, float(angle), float(drop), float(cost), roof is not None))
    return [sorted(places_of, key=lambda place: place.cost) for places_of in found]


def course(moving: Boxes, still: Boxes, start: np.ndarray, end: np.ndarray, angle: float, air: float) -> np.ndarray:
    """Points (P, 3) [m] from `start` to `end` at which `moving` clears what is `still` by `air` [m].

    Args:
      moving: as it is at `start`; it turns by `angle` [rad] about the vertical axis underway.
      start, end: (3,) of a point that moves with it, the grip site.

    The way leads straight across, and straight from one height to the other unless obstacles make it rise.
    """
    distance = np.linalg.norm((end - start)[:2])
    count = max(2, int(np.ceil(distance / _SPACING)) + 1)
    share = np.linspace(0.0, 1.0, count)
    flat = start[:2] + share[:, None] * (end - start)[:2]
    wide = _radius([moving], start)
    ground = heights(still, flat.min(axis=0) - wide, flat.max(axis=0) + wide)
    need = np.empty(count)
    for k, cell in enumerate(_cells(flat - ground.corner)):
        under = _underside(moving, start, share[k] * angle)
        need[k] = start[2] + _rises(under, ground.top, cell[None])[0] + air
    line = np.concatenate([[start[2]], need[1:-1], [end[2]]])  # at its present and final position, it may be
    apart = _STEEP * distance * np.abs(share[:, None] - share[None, :])
    height = np.maximum((line[None, :] - apart).max(axis=1), start[2] + share * (end - start)[2])
    points = np.column_stack([flat, height])
    return np.concatenate([_upright(start, points[0]), points, _upright(points[-1], end), end[None]])


def way_out(moving: Boxes, still: Boxes, at: np.ndarray, length: float) -> np.ndarray | None:
    """The horizontal direction (3,), along x or y, in which `moving` can leave: `length` [m] straight without touching.

    Args:
      moving: as it is at the point `at` (3,).
      still: everything else, without what is above.
    """
    for way in np.array([[-1.0, 0, 0], [0, -1.0, 0], [0, 1.0, 0], [1.0, 0, 0]]):
        if (sunk(moving, still, at, way, length) < 0).all():
            return way
    return None


def sunk(moving: Boxes, still: Boxes, at: np.ndarray, way: np.ndarray, length: float) -> np.ndarray:
    """How deep (n,) [m] `moving` stands in what is `still`, or below its top, on a `way` (3,) of so many metres."""
    wide = _radius([moving], at) + length
    ground = heights(still, at[:2] - wide, at[:2] + wide)
    under = _underside(moving, at, 0.0)
    spots = at[:2] + np.arange(0.0, length, 2 * CELL)[:, None] * way[:2]
    return _rises(under, ground.top, _cells(spots - ground.corner))


def _radius(bodies: Sequence[Boxes], about: np.ndarray) -> float:
    """Half side of a square around `about` (3,) that holds the bodies however they turn [m]."""
    edges = np.concatenate([edge for boxes in bodies for edge in boxes.extent()])
    return CELL * np.ceil(np.linalg.norm((edges - about)[:, :2], axis=1).max() / CELL) * 1.5 + 2 * CELL


def _underside(boxes: Boxes, about: np.ndarray, angle: float, air: int = 0) -> _Underside:
    """Of `boxes` turned by `angle` about the point `about` (3,), with so many cells of air around them."""
    turned = boxes.moved(turn(angle), about, np.array([0.0, 0.0, about[2]]))
    low, high = (edge[:, :2] for edge in turned.extent())
    first = np.floor(low.min(axis=0) / CELL).astype(int) - air - 1
    last = np.ceil(high.max(axis=0) / CELL).astype(int) + air + 1
    bottom = heights(turned, CELL * first, CELL * last).bottom
    bottom = minimum_filter(bottom, 2 * air + 1)
    there = np.argwhere(np.isfinite(bottom))
    return _Underside(there + first, bottom[tuple(there.T)])


def _headroom(boxes: Boxes, about: np.ndarray, angle: float, ceiling: Heights, spots: np.ndarray) -> np.ndarray:
    """How far (n,) [m] a body may rise until it touches the ceiling, at cells (n, 2) of the ceiling's map."""
    upside_down = np.diag([1.0, 1.0, -1.0])
    under = _underside(boxes.moved(upside_down, about, about * [1, 1, -1]), about * [1, 1, -1], angle)
    return -_rises(under, -ceiling.bottom, spots)


def _rises(under: _Underside, ground: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """How far (n,) [m] a body must rise so that it just touches the ground, at cells (n, 2) of the ground's map."""
    at = spots[:, None] + under.cells
    return (ground[at[..., 0], at[..., 1]] - under.bottoms).max(axis=1)


def _cells(points: np.ndarray) -> np.ndarray:
    return np.round(points / CELL).astype(int)


def _upright(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Points on the vertical line from `a` to `b`, without `b`."""
    count = int(np.ceil(abs(b[2] - a[2]) / _SPACING))
    return a + np.linspace(0.0, 1.0, count, endpoint=False)[:, None] * (b - a)
