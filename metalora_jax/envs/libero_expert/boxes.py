"""Solids as oriented boxes, and what one sees of them from straight above: the heights of their tops and bottoms."""

from typing import NamedTuple

import numpy as np

CELL = 0.004  # [m] side of a cell of a height map


class Boxes(NamedTuple):
    """N oriented boxes."""

    centers: np.ndarray  # (N, 3) [m]
    axes: np.ndarray  # (N, 3, 3); columns are a box's own axes
    halves: np.ndarray  # (N, 3) half sizes along them [m]

    def moved(self, rotation: np.ndarray, about: np.ndarray, to: np.ndarray) -> "Boxes":
        """Turned by `rotation` (3, 3) and shifted, so that the point `about` (3,) comes to lie at `to` (3,)."""
        return Boxes((self.centers - about) @ rotation.T + to, rotation @ self.axes, self.halves)

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates of each box, (N, 3) and (N, 3) [m]."""
        reach = (np.abs(self.axes) @ self.halves[..., None])[..., 0]
        return self.centers - reach, self.centers + reach


def joined(*several: Boxes) -> Boxes:
    """All of them as one."""
    return Boxes(*(np.concatenate(parts) for parts in zip(*several, strict=True)))


def turn(yaw: float) -> np.ndarray:
    """Rotation (3, 3) by `yaw` [rad] about the vertical axis."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


class Heights(NamedTuple):
    """A map of cells of side CELL; cell (i, j) has its centre at `corner + CELL * (i, j)`."""

    corner: np.ndarray  # (2,) [m]
    top: np.ndarray  # (I, J) highest point of what stands over a cell [m]; -inf where there is nothing
    bottom: np.ndarray  # (I, J) lowest point of it [m]; inf where there is nothing


def heights(boxes: Boxes, lower: np.ndarray, upper: np.ndarray) -> Heights:
    """The map of `boxes` between the corners `lower` (2,) and `upper` (2,) [m].

    Boxes thinner than a cell count as one cell wide, so that no wall is lost between cells.
    """
    shape = tuple(np.ceil((np.asarray(upper) - lower) / CELL).astype(int) + 1)
    top, bottom = np.full(shape, -np.inf), np.full(shape, np.inf)
    wide = boxes._replace(halves=np.maximum(boxes.halves, CELL / 2))
    lows, highs = (edge[:, :2] for edge in wide.extent())
    first = np.clip(np.ceil((lows - lower) / CELL), 0, shape).astype(int)
    last = np.clip(np.floor((highs - lower) / CELL) + 1, 0, shape).astype(int)
    for n in np.flatnonzero((first < last).all(axis=1)):
        (i0, j0), (i1, j1) = first[n], last[n]
        x = lower[0] + CELL * np.arange(i0, i1)[:, None]
        y = lower[1] + CELL * np.arange(j0, j1)[None, :]
        low, high = _chord(x, y, wide.centers[n], wide.axes[n], wide.halves[n])
        here = (slice(i0, i1), slice(j0, j1))
        top[here] = np.maximum(top[here], np.where(low <= high, high, -np.inf))
        bottom[here] = np.minimum(bottom[here], np.where(low <= high, low, np.inf))
    return Heights(np.asarray(lower, float), top, bottom)


def _chord(x: np.ndarray, y: np.ndarray, center: np.ndarray, axes: np.ndarray, half: np.ndarray):
    """Heights where vertical lines at (x, y) enter and leave a box; one that misses enters above where it leaves."""
    low, high = np.full(np.broadcast(x, y).shape, -np.inf), np.full(np.broadcast(x, y).shape, np.inf)
    for k in range(3):
        across = axes[0, k] * (x - center[0]) + axes[1, k] * (y - center[1])
        slope = axes[2, k]
        if abs(slope) < 1e-6:
            high = np.where(np.abs(across) <= half[k], high, -np.inf)
            continue
        ends = (np.array([-half[k], half[k]])[:, None, None] - across) / slope
        low, high = np.maximum(low, ends.min(axis=0)), np.minimum(high, ends.max(axis=0))
    return low + center[2], high + center[2]
