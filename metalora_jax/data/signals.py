"""Figures of one episode's state and actions, in frames and in shares of what is usual in its data set."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOVED = 0.04  # of a dimension's usual span: above tremble and sensor noise, below any motion that matters
NOISE, MOST_NOISE = 5.0, 0.12  # standard deviations of noise that are no motion, where a sensor has more; up to a share
KNOTS = 32  # points to which paths are brought, so that they can be compared
GAP = 1.4  # times both neighbours that a step is where a frame before it is missing: about 2 in even motion
STEP_NOISE = 4.0  # standard deviations of noise by which such a step is longer than its neighbours
ACTIVE = 8.0  # times its noise that a dimension must span to count as moving


class Scale(NamedTuple):
    """What is usual over all episodes of a data set, by dimension."""

    low: np.ndarray  # (d,)
    span: np.ndarray  # (d,) > 0
    active: np.ndarray  # (d,) bool: it moves

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Values (..., d) in usual spans; dimensions that do not move are left out."""
        return ((values - self.low) / self.span)[..., self.active]


def scale(episodes: Sequence[np.ndarray]) -> Scale:
    """From each episode's (T, d): medians over episodes, which one episode in other units does not move."""
    low, high = (np.stack([np.quantile(e, q, axis=0) for e in episodes]) for q in (0.02, 0.98))
    below, above, inner = np.median(low, axis=0), np.median(high, axis=0), np.median(high - low, axis=0)
    span = np.maximum(above - below, inner).astype(np.float64)
    noise = np.median([tremble(e) for e in episodes], axis=0)
    active = span > np.maximum(ACTIVE * noise, 1e-6 * np.maximum(np.abs(above), 1e-6))
    return Scale(below, np.where(span > 0, span, 1.0), active)


def tremble(values: np.ndarray) -> np.ndarray:
    """(d,) noise of each dimension: a quarter of its second differences are below 0.78 of it; motion's are small."""
    if len(values) < 4:
        return np.zeros(values.shape[1])
    return np.quantile(np.abs(np.diff(values, n=2, axis=0)), 0.25, axis=0) / 0.78


class Idle(NamedTuple):
    """Frames in which nothing moves."""

    start: int
    inside: int  # the longest stretch between the ends
    end: int


def idle(path: np.ndarray) -> Idle:
    """Of (T, d) in usual spans."""
    steps = len(path)
    if not path.shape[1]:
        return Idle(0, 0, 0)
    least = np.clip(NOISE * tremble(path), MOVED, MOST_NOISE)
    left = (np.abs(path - np.median(path[:3], axis=0)) > least).any(axis=1)
    right = (np.abs(path - np.median(path[-3:], axis=0)) > least).any(axis=1)
    if not left.any() or not right.any():
        return Idle(steps, 0, 0)
    start, end = int(left.argmax()), int(right[::-1].argmax())
    longest, since = 0, start
    for t in range(start, steps - end):
        if (np.abs(path[t] - path[since]) > least).any():
            longest, since = max(longest, t - since), t
    return Idle(start, longest, end)


def resampled(values: np.ndarray, knots: int = KNOTS) -> np.ndarray:
    """(T, d) -> (knots, d), evenly in time."""
    places = np.linspace(0, len(values) - 1, knots)
    return np.stack([np.interp(places, np.arange(len(values)), column) for column in values.T], axis=1)


def roughness(path: np.ndarray) -> np.ndarray:
    """(d,) how uneven the motion (T, d) is: a fifth of its second differences is larger. A jump does not count."""
    if len(path) < 5:
        return np.full(path.shape[1], np.nan)
    return np.quantile(np.abs(np.diff(path, n=2, axis=0)), 0.8, axis=0)


def largest_step(path: np.ndarray) -> np.ndarray:
    """(d,) the largest step from one frame to the next, of (T, d)."""
    return np.abs(np.diff(path, axis=0)).max(axis=0) if len(path) > 1 else np.zeros(path.shape[1])


def gaps(path: np.ndarray) -> float:
    """Share of the steps of a motion (T, d) that are clearly longer than both of their neighbours: missing frames.

    Only the faster half of the steps counts, and what is longer by more than noise: that makes slow ones uneven.
    """
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    if len(steps) < 9:
        return 0.0
    middle, beside = steps[1:-1], np.maximum(steps[:-2], steps[2:])
    fast, noise = middle > np.median(steps), STEP_NOISE * np.linalg.norm(tremble(path))
    return float((middle[fast] > np.maximum(GAP * beside[fast], beside[fast] + noise)).mean()) if fast.any() else 0.0


def suddenness(path: np.ndarray) -> np.ndarray:
    """(d,) the largest step of (T, d) over the larger of the steps beside it."""
    steps = np.pad(np.abs(np.diff(path, axis=0)), ((1, 1), (0, 0)))
    if len(steps) < 3:
        return np.zeros(path.shape[1])
    top, columns = steps.argmax(axis=0), np.arange(path.shape[1])
    beside = np.maximum(steps[top - 1, columns], steps[np.minimum(top + 1, len(steps) - 1), columns])
    return steps[top, columns] / np.maximum(beside, 1e-9)


def repeats(*values: np.ndarray) -> np.ndarray:
    """(T - 1,) bool: the row is exactly the one before, in all of the (T, d)."""
    return np.logical_and.reduce([(np.diff(v, axis=0) == 0).all(axis=1) for v in values])


def shared(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the rows of (T, d) that occur exactly in (T', d), of the shorter one."""
    rows = [{row.tobytes() for row in np.ascontiguousarray(values)} for values in (a, b)]
    return len(rows[0] & rows[1]) / max(min(map(len, rows)), 1)


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """(T, d) -> (T - window + 1, d): means over `window` frames."""
    if len(values) < window:
        return values[:0]
    total = np.cumsum(np.pad(values.astype(np.float64), ((1, 0), (0, 0))), axis=0)
    return (total[window:] - total[:-window]) / window


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(d, e) of the columns of (T, d) and (T, e); NaN where one is constant."""
    a, b = (v - v.mean(axis=0) for v in (a.astype(np.float64), b.astype(np.float64)))
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.sqrt(np.outer((a**2).sum(axis=0), (b**2).sum(axis=0)))
        return np.where(size > 1e-12, a.T @ b / size, np.nan)


def best_lag(command: np.ndarray, motion: np.ndarray, reach: int) -> tuple[float, float]:
    """By how many frames motion (T, d) comes after command (T, d), and how well they then agree.

    The signs of the dimensions do not matter: one that is reversed is another matter.

    Returns:
      The lag, between frames by a parabola, NaN if there is none; and the largest mean absolute correlation.
    """
    lags = np.arange(-reach, reach + 1)
    scores = np.array([_agreement(command, motion, int(lag)) for lag in lags])
    if not np.isfinite(scores).any() or np.nanmax(scores) <= 0:
        return float("nan"), 0.0
    best = int(np.nanargmax(scores))
    if not 0 < best < len(lags) - 1:
        return float("nan"), float(scores[best])  # no peak
    lag = float(lags[best])
    left, top, right = scores[best - 1 : best + 2]
    if (bend := left - 2 * top + right) < 0:
        lag += float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5))
    return lag, float(scores[best])


def shifted(command: np.ndarray, motion: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Both (n, ...), so that motion belongs to the command in the same row."""
    command, motion = command[max(-lag, 0) :], motion[max(lag, 0) :]
    steps = min(len(command), len(motion))
    return command[:steps], motion[:steps]


def _agreement(command: np.ndarray, motion: np.ndarray, lag: int) -> float:
    c, m = shifted(command, motion, lag)
    if len(c) < 5:
        return float("nan")
    size = np.sqrt((c**2).sum(axis=0) * (m**2).sum(axis=0))
    moving = size > 1e-12
    return float((np.abs((c * m).sum(axis=0))[moving] / size[moving]).mean()) if moving.any() else float("nan")
