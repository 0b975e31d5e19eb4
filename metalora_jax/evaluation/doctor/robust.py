"""One value against the others: medians and spreads that one bad episode cannot move."""

import numpy as np

NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_MANY = 100  # values of which one more or less does not matter


def apart(values: np.ndarray, floor: float | np.ndarray) -> np.ndarray:
    """How far each value lies from the median of the others, in their spreads, signed; 0 where it is not known.

    Args:
      values: (n, ...); NaN where there is none.
      floor: the least spread, in units of `values`: differences that no sound set lacks.
    """
    out = np.zeros(values.shape)
    with np.errstate(invalid="ignore"):
        for i, others in enumerate(_without(values)):
            centre = median(others)
            spread = np.maximum(NORMAL * median(np.abs(others - centre)), floor)
            out[i] = (values[i] - centre) / spread
    return np.nan_to_num(out, nan=0.0, posinf=0.0, neginf=0.0)


def usual(values: np.ndarray) -> np.ndarray:
    """The median of the others, for each of (n, ...); NaN where there is none."""
    return np.stack([median(others) for others in _without(values)])


def alone(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each is from its nearest neighbour, and how far the others are from theirs.

    Neighbours, not a centre: sound sets have several starts and goals.

    Args:
      distances: (n, n), symmetric.

    Returns:
      (n,) to the nearest neighbour, and (n,) what is usual among the others: the distance that nine tenths of them keep
      to theirs, or half of that between any two.
    """
    n = len(distances)
    far = distances + np.diag(np.full(n, np.inf))
    near = far.min(axis=1)
    if n > _MANY:
        return near, np.full(n, _kept(far))
    return near, np.array([_kept(np.delete(np.delete(far, i, 0), i, 1)) for i in range(n)])


def _kept(far: np.ndarray) -> float:
    """Of few episodes two may happen to be very near; half the distance of any two is usual all the same."""
    apart = far[np.triu_indices(len(far), 1)]
    return max(float(np.quantile(far.min(axis=1), 0.9)), 0.5 * float(np.median(apart)) if len(apart) else 0.0)


def between(paths: np.ndarray) -> np.ndarray:
    """(n, n) root mean square difference of each pair of (n, k)."""
    flat = paths.reshape(len(paths), -1).astype(np.float64)
    squares = (flat**2).mean(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T / flat.shape[1], 0.0))


def _without(values: np.ndarray):
    """The others of each; all of them, where there are many."""
    for i in range(len(values)):
        yield values if len(values) > _MANY else np.delete(values, i, axis=0)


def median(values: np.ndarray) -> np.ndarray:
    """Over the first axis, without NaN, and without a warning where all are."""
    known = np.isfinite(values)
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    count = known.sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    middle = (np.take_along_axis(ordered, low[None], 0)[0] + np.take_along_axis(ordered, high[None], 0)[0]) / 2
    return np.where(count > 0, middle, np.nan)
