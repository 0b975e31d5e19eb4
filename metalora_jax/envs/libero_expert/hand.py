"""The Panda hand: its shape, as boxes, and the commands that move it."""

import numpy as np
from scipy.spatial.transform import Rotation

from metalora_jax.envs.libero_expert.boxes import Boxes, turn

# In the frame of the grip site: x is the axis along which the fingers close, z points out of the hand.
OPEN = 0.04  # [m] from the middle to a finger's inner side, fully open
FINGER = np.array([0.0075, 0.0105])  # [m] half thickness and half width of a finger
TIP = 0.0095  # [m] that the fingers reach beyond the grip site
PALM_GAP = 0.031  # [m] from the grip site back to the palm
PALM = np.array([0.104, 0.032])  # [m] half length and half width of the palm
_DEEP = 0.10  # [m] that the hand is tall above the palm

UP = np.array([0.0, 0.0, 1.0])
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # pointing down, closing along y

WRIST = (-1.9, 3.2)  # [rad] of yaw that the last joint allows

_MOVE = 0.05  # [m] of a full command
_TURN = 0.5  # [rad]
STIFF = 1.1  # commands aim this much further than the error; with 1.6 the arm overshoots
FIRM = 2.0  # the same for a hand that stays where it is: pushes move it half as far
_FASTEST_TURN = 0.35  # of a full command; a hand that turns faster sways


def pointing_down(yaw: float) -> np.ndarray:
    """Rotation (3, 3) of a hand that points down, its closing axis turned by `yaw` [rad] from the y axis."""
    return turn(yaw) @ DOWN


def yaw_of(rotation: np.ndarray) -> float:
    """The yaw [rad] in (-pi, pi] of a hand that points down."""
    along = rotation[:, 0]
    return float(np.arctan2(-along[0], along[1]))


def facing(inward: np.ndarray, closing: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Rotation of a hand that points along `inward` and closes along `closing`; of two, the nearer to `now`."""
    closing = closing / np.linalg.norm(closing)
    both = [np.column_stack([x, np.cross(inward, x), inward]) for x in (closing, -closing)]
    return max(both, key=lambda rotation: np.trace(rotation @ now.T))


def shape(position: np.ndarray, rotation: np.ndarray, opening: float) -> Boxes:
    """Palm and two fingers of a hand at a grip site pose, `opening` [m] between the fingers."""
    tall = (TIP + PALM_GAP) / 2
    side = opening / 2 + FINGER[0]
    centers = np.array([[0, 0, -PALM_GAP - _DEEP / 2], [side, 0, TIP - tall], [-side, 0, TIP - tall]])
    halves = np.array([[*PALM, _DEEP / 2], [*FINGER, tall], [*FINGER, tall]])
    own = Boxes(centers, np.tile(np.eye(3), (3, 1, 1)), halves)
    return own.moved(rotation, np.zeros(3), position)


def command(
    position: np.ndarray,
    rotation: np.ndarray,
    goal: np.ndarray,
    goal_rotation: np.ndarray,
    grip: float,
    speed: float = 1.0,
    stiff: float = STIFF,
) -> np.ndarray:
    """The action (7,) that moves the grip site toward another pose, straight, and no faster than `speed` in (0, 1].

    It aims `stiff` times as far as the pose is away.
    """
    move = stiff * (goal - position) / _MOVE
    spin = STIFF * Rotation.from_matrix(goal_rotation @ rotation.T).as_rotvec() / _TURN
    return np.concatenate([_shortened(move, speed), _shortened(spin, _FASTEST_TURN), [grip]])


def _shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    return vector * min(1.0, longest / max(np.abs(vector).max(), 1e-9))
