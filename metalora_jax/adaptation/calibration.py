"""Finding how a robot's joints are calibrated from what a frozen base would do, see `identification`."""

from collections.abc import Callable, Sequence

import numpy as np

from metalora_jax.adaptation.identification import ActionMap, Calibration, check_pairs

_STEPS, _SHARES = 8, (1.0, 0.5, 0.25, 0.125)  # of Gauss-Newton, and of a step that overshoots
_APART = 0.05  # [standard deviations] between two readings that tell a derivative
_STILL = 1e-3  # [standard deviations] a smaller step is the last
_LEAST_GAIN = 0.1  # far below any robot's; a step towards it overshoots


def fit_calibration(
    ask: Callable[[Calibration], np.ndarray],
    demonstrated: np.ndarray,
    is_pad: np.ndarray,
    *,
    ridge: float,
    mean: np.ndarray,
    std: np.ndarray,
    moved: Sequence[int],
) -> ActionMap:
    """Gain and offset of each joint under which the base, told where the joints really are, does as demonstrated.

    With joints at `position = gain reading + offset` the base commands `ask(calibration)`, of which the robot must be
    told `(command - offset) / gain`. Of the squared error, in standard deviations of the base's data, the mean is made
    small, with `ridge` times the squared distance from a calibration that changes nothing: `position - reading` at
    `mean`, in the same units, and `gain - 1`.

    Args:
      ask: a calibration -> (N, chunk, D) the base's commands on N frames whose readings go through it.
      demonstrated: (N, chunk, D) what was commanded there.
      is_pad: (N, chunk) bool; True on steps that do not count.
      ridge: above 0.
      mean: (D,) of the base's data, about which gains turn; offset and gain are then told apart best.
      std: (D,) of the base's data, each above 0.
      moved: the joints whose calibration is unknown, one or more.

    Raises:
      ValueError: there are not as many numbers, no joint is moved, no step counts, or the ridge is not positive.
    """
    real, at = ~np.asarray(is_pad), np.asarray(moved, int)
    if not ridge > 0:
        raise ValueError(f"the ridge is {ridge}; a joint that no demonstration shows needs one above 0")
    if not len(at):
        raise ValueError("no joint is named whose calibration could be found; name one or more in `moved`")
    if not real.any():
        raise ValueError("no step of the demonstrations counts, so that nothing tells a calibration")

    def calibration(x: np.ndarray) -> Calibration:
        gain, shift = np.ones(len(std)), np.zeros(len(std))
        gain[at], shift[at] = 1 + x[len(at) :], x[: len(at)] * std[at]
        return Calibration(gain, shift + (1 - gain) * mean)

    def off(x: np.ndarray) -> np.ndarray:
        found = calibration(x)
        predicted = ask(found)
        check_pairs(predicted, demonstrated, is_pad)
        return ((_told(found)(predicted) - demonstrated) / std)[real].ravel()

    def cost(error: np.ndarray, x: np.ndarray) -> float:
        return float(np.square(error).mean() + ridge * np.square(x).sum())

    x = np.zeros(2 * len(at))
    error = off(x)
    for _ in range(_STEPS):
        slopes = np.stack([(off(x + _APART * axis) - error) / _APART for axis in np.eye(len(x))])
        gram = slopes @ slopes.T / error.size + ridge * np.eye(len(x))
        step = np.linalg.solve(gram, -(slopes @ error / error.size + ridge * x))
        for share in _SHARES:
            further = x + share * step
            if 1 + further[len(at) :].min() > _LEAST_GAIN and cost(left := off(further), further) < cost(error, x):
                break
        else:
            break
        x, error = further, left
        if np.abs(share * step).max() < _STILL:
            break
    return _told(calibration(x))


def _told(found: Calibration) -> ActionMap:
    """What the robot must be told for the base's commands, and what the base is told of its readings."""
    return ActionMap(np.diag(1 / found.gain), -found.offset / found.gain, reading=found)
