"""The frame and the dead zone that displacements of a hand are commanded through, and back."""

from collections.abc import Sequence

import numpy as np

_NOTHING = 1e-6  # [command units] what rounding leaves of a command that was none


def rotation(tilt: Sequence[float], yaw: float) -> np.ndarray:
    """(3, 3): the turn by `yaw` [rad] about the vertical axis, followed by `tilt` (3,), an axis-angle [rad]."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    turned = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    angle = float(np.linalg.norm(tilt))
    if angle == 0.0:
        return turned
    x, y, z = np.asarray(tilt) / angle
    across = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return (np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across) @ turned


def axes(tilt: Sequence[float], yaw: float, mirror: str) -> tuple[np.ndarray, np.ndarray]:
    """The frame's axes in the world, as columns (3, 3): of displacements, and of turns.

    `mirror` names axes that point the other way, as in "xz". A turn is an axial vector: mirrored once more.
    """
    signs = np.array([-1.0 if axis in mirror else 1.0 for axis in "xyz"])
    frame = rotation(tilt, yaw) * signs
    return frame, frame * signs.prod()


def through(command: np.ndarray, zone: Sequence[float]) -> np.ndarray:
    """What a dead zone lets through of commands (..., 3): each axis answers only beyond `zone` (3,), by what is beyond.

    So it is continuous, and whatever is wanted can be commanded; one that swallows small commands and passes large ones
    whole would leave small motions out of reach.
    """
    return np.sign(command) * np.maximum(np.abs(command) - zone, 0.0)


def out_of(wanted: np.ndarray, zone: Sequence[float]) -> np.ndarray:
    """The commands (..., 3) for what should come through: the inverse; nothing is commanded for nothing."""
    return np.where(np.abs(wanted) > _NOTHING, wanted + np.sign(wanted) * zone, wanted)
