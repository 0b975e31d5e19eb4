"""LIBERO-plus's move of a camera (Fei et al. 2025, arXiv:2510.13626), exact to its code: orbit, distance, gaze."""

from collections.abc import Sequence

import numpy as np

CAMERA = "agentview"  # the one that moves; that on the hand, and fields of view, stay as they are
PLAIN = (0.0, 0.0, 1.0, 0.0, 0.0)  # the camera as built
PIVOT = (0.0, 0.0, 0.8)  # [m], in every scene, whatever the height of its table
_Y, _Z = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def moved(position: Sequence[float], attitude: Sequence[float], view: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """A camera's position and attitude from another point of view.

    LIBERO-plus rounds to four decimals after every step, and so does this. It takes the orbit's step even where that
    turns by nothing: `PLAIN` only rounds.

    Args:
      position: (3,) [m] in the world's frame.
      attitude: (4,) quaternion (w, x, y, z).
      view: (5,), as a variant's name has it, `_view_<h>_<v>_<100 s>_<endrot>_<endvert>`: h and v carry the camera round
        the pivot, about the vertical and up [degrees]; s is the factor on its distance [1]; endrot and endvert turn its
        gaze, about the vertical and up [degrees], where it stands.

    Returns:
      The same two; the quaternion is rounded, and so a unit only to four decimals.
    """
    place, quaternion = np.asarray(position, np.float64), np.asarray(attitude, np.float64)
    around, up, distance, aside, raised = view
    if up:
        turn = _quaternion(_Y, -up)
        place, quaternion = _rounded(PIVOT + _rotated(turn, place - PIVOT)), _rounded(_product(turn, quaternion))
    turn = _quaternion(_Z, around)
    place, quaternion = _rounded(_rotated(turn, place)), _rounded(_product(turn, quaternion))
    if distance != 1:
        place = _rounded(PIVOT + distance * (place - PIVOT))
    if aside:
        quaternion = _rounded(_product(_quaternion(_Z, aside), quaternion))
    if raised:
        quaternion = _rounded(_product(_quaternion(_Y, -raised), quaternion))
    return place, quaternion


def _quaternion(axis: Sequence[float], degrees: float) -> np.ndarray:
    half = np.radians(degrees) / 2
    return np.concatenate([[np.cos(half)], np.sin(half) * np.asarray(axis)])


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rotation `right`, then `left`: a unit, though `right` was rounded."""
    (a, u), (b, v) = (left[0], left[1:]), (right[0], right[1:])
    product = np.concatenate([[a * b - u @ v], a * v + b * u + np.cross(u, v)])
    return product / np.linalg.norm(product)


def _rotated(turn: np.ndarray, vector: np.ndarray) -> np.ndarray:
    across = 2 * np.cross(turn[1:], vector)
    return vector + turn[0] * across + np.cross(turn[1:], across)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.array([round(float(value), 4) for value in values])  # np.round scales first, and differs at ties
