"""What remains of an episode's pictures: few numbers and few small pictures, so that any number of episodes fits."""

from typing import NamedTuple

import numpy as np

EVEN = 8  # [1/255] between the darkest and the brightest value of a picture that shows nothing
STILL = 0.05  # [1/255] mean difference of two pictures that are the same
LARGE = 256  # [px] above which first pictures are thinned out
SMALL = 96  # [px] of the pictures on a page
_GRID = 48  # [px] to which pictures are thinned out before they are compared with the next
_AT_ONCE = 64  # pictures


class Digest(NamedTuple):
    """Of T pictures of C cameras."""

    size: tuple[int, int]  # (H, W) [px]
    first: np.ndarray  # (C, h, w, 3) uint8, thinned out where it is larger than LARGE
    strip: np.ndarray  # (C, 3, h, w, 3) uint8: first, middle and last, at most SMALL high
    even: np.ndarray  # (T, C) bool: shows one even colour
    change: np.ndarray  # (T - 1, C) float32 [1/255], mean difference to the next picture


def of(images: np.ndarray) -> Digest:
    """Of pictures (T, C, H, W, 3) uint8."""
    steps, cameras, high, wide = images.shape[:4]
    thinned = thin(images).reshape(steps, cameras, -1)
    change = np.zeros((max(steps - 1, 0), cameras), np.float32)
    for t in range(0, steps - 1, _AT_ONCE):
        some = thinned[t : t + _AT_ONCE + 1].astype(np.int16)
        change[t : t + _AT_ONCE] = np.abs(np.diff(some, axis=0)).mean(axis=-1, dtype=np.float32)
    even = (np.ptp(thinned, axis=-1) < EVEN) if thinned.shape[-1] else np.zeros((steps, cameras), bool)
    picks = images[[0, steps // 2, steps - 1]]
    strip = np.ascontiguousarray(np.moveaxis(_thinned(picks, SMALL), 0, 1))
    return Digest((high, wide), _thinned(images[0], LARGE).copy(), strip, even, change)


def thin(images: np.ndarray) -> np.ndarray:
    """Every so many rows and columns of pictures (..., H, W, 3), for comparisons."""
    by = max(1, -(-min(images.shape[-3:-1]) // _GRID))
    return images[..., by // 2 :: by, by // 2 :: by, :]


def _thinned(images: np.ndarray, most: int) -> np.ndarray:
    by = max(1, -(-max(images.shape[-3:-1]) // most))
    return images[..., by // 2 :: by, by // 2 :: by, :]
