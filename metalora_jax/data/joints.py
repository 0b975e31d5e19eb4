"""A wrong calibration of a robot that is told joint positions, the commonest difference between two of one kind.

Each joint by itself, in its own unit: the arm goes to `gain * said + offset` when it is told `said`. Where the reading
is shifted alike, as it is where one calibration serves both, the arm stands where it is told to by its own account.
"""

import numpy as np


def executed(said: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Where the joints go (..., D) when they are told `said` (..., D); gain [1] and offset (D,)."""
    return said * gain + offset


def observed(physical: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """What the joints say of positions (..., D), read by the same calibration; also what must be said to reach them."""
    return (physical - offset) / gain


def said_ahead(executed_actions: np.ndarray, latency: int) -> np.ndarray:
    """What to say at each step (T, D) so that the actions happen `latency` steps later; the last one is repeated."""
    return executed_actions[np.minimum(np.arange(len(executed_actions)) + latency, len(executed_actions) - 1)]
