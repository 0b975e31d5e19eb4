"""LIBERO-plus's 500 starts of the arm (Fei et al. 2025, arXiv:2510.13626), drawn as it drew them."""

import functools

import numpy as np

NOMINAL = (0.0, -1.61037389e-01, 0.0, -2.44459747, 0.0, 2.22675220, np.pi / 4)  # [rad], LIBERO's own
COUNT = 500
PUBLISHED, POSE = "published", "pose"  # how a start is read, see `Condition.arm_start_reading`
_BANDS = (0.1, 0.2, 0.3, 0.4, 0.5)  # [rad], distances from NOMINAL over all joints; a hundred starts each
_SEED = 42


def pose(number: int) -> np.ndarray:
    """The joints (7,) [rad] of `_initstate_<number>`, 1 to COUNT, to the eight decimals that its files have.

    Raises:
      ValueError: if there is no such start.
    """
    if not 1 <= number <= COUNT:
        raise ValueError(f"arm_start {number}: LIBERO-plus has the starts 1 to {COUNT}")
    return _poses()[number - 1].copy()


@functools.cache
def _poses() -> np.ndarray:
    drawn = np.random.RandomState(_SEED).randn(COUNT, len(NOMINAL))
    away = np.repeat(_BANDS, COUNT // len(_BANDS))[:, None] * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.round(np.asarray(NOMINAL) + away, 8)
