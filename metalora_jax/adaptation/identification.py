"""Adapting without a gradient step: a map from the base's commands to those of the demonstrations, in closed form.

A hidden shift of the actions leaves what the policy wants as it is, and changes what the robot must be told for it. The
frozen base says on the frames of a demonstration what it would command (c); the demonstration, recorded under the
shift, says what was commanded there (c'). The map c -> c' is fitted to such pairs and applied to whatever the base
commands afterwards. This is system identification, and no learning of the policy:

- `fit_yaw` knows what the shift is, a turn about the vertical axis, and finds its one angle (orthogonal Procrustes in
  the plane: Kabsch 1976, https://doi.org/10.1107/S0567739476001873);
- `fit_linear` knows nothing of it: a matrix and an offset by ridge regression (Hoerl and Kennard 1970), and a lag;
- `fit_calibration` knows that the robot's joints are calibrated otherwise than the base's, readings and commands alike,
  and finds an offset for each by Gauss-Newton: the base is asked again with readings that are moved back.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

YAW, LINEAR, CALIBRATION = "yaw", "linear", "calibration"
KINDS = (YAW, LINEAR, CALIBRATION)
LAGS = (0, 1, 2)  # control steps that `fit_linear` tries
_STEPS, _SHARES = 8, (1.0, 0.5, 0.25, 0.125)  # of Gauss-Newton, and of a step that overshoots
_APART = 0.05  # [standard deviations] between two readings that tell a derivative
_STILL = 1e-3  # [standard deviations] a smaller step is the last


class ActionMap(NamedTuple):
    """What to command in place of what a policy commands; all in the robot's own units, D numbers an action."""

    matrix: np.ndarray  # (D, D)
    offset: np.ndarray  # (D,)
    lag: int = 0  # control steps that a command is sent ahead of its time: the robot executes it so much later
    reading: np.ndarray | None = None  # (D,) what the state that the policy sees is raised by; None: nothing

    def __call__(self, chunks: np.ndarray) -> np.ndarray:
        """Chunks (..., chunk, D) -> the same shape and dtype; with a lag, the last command of a chunk is repeated."""
        steps = chunks.shape[-2]
        ahead = chunks[..., np.minimum(np.arange(steps) + self.lag, steps - 1), :]
        return (ahead @ self.matrix.T + self.offset).astype(chunks.dtype)


def fit_yaw(predicted: np.ndarray, demonstrated: np.ndarray, is_pad: np.ndarray) -> ActionMap:
    """The turn about the vertical axis that brings the base's displacements nearest to the demonstrated ones.

    Args:
      predicted: (N, chunk, D) the base's commands on N frames: x, y, z, perhaps an axis-angle turn (3), the gripper.
      demonstrated: (N, chunk, D) what was commanded there.
      is_pad: (N, chunk) bool; True on steps that do not count.

    Raises:
      ValueError: there are not as many numbers, or nothing moves sideways, so that every angle fits as well.
    """
    _check(predicted, demonstrated, is_pad)
    width = predicted.shape[-1]
    if width not in (4, 7):
        raise ValueError(f"a yaw turns displacements of a hand, in commands of 4 or 7 numbers; these have {width}")
    corners = (0, 3) if width == 7 else (0,)  # where a pair of x and y stands
    real = ~np.asarray(is_pad)
    wanted, told = np.asarray(predicted, np.float64)[real], np.asarray(demonstrated, np.float64)[real]
    pairs = [(wanted[:, i] + 1j * wanted[:, i + 1], told[:, i] + 1j * told[:, i + 1]) for i in corners]
    resultant = sum(np.vdot(c, said) for c, said in pairs)
    if not abs(resultant) > 1e-9:
        raise ValueError(
            "the demonstrations show no sideways motion where the base commands one, so that no yaw can be told from "
            "them: adapt to others"
        )
    matrix = np.eye(width)
    cosine, sine = resultant.real / abs(resultant), resultant.imag / abs(resultant)
    for i in corners:
        matrix[i : i + 2, i : i + 2] = [[cosine, -sine], [sine, cosine]]
    return ActionMap(matrix, np.zeros(width))


def fit_linear(
    predicted: np.ndarray,
    demonstrated: np.ndarray,
    is_pad: np.ndarray,
    *,
    ridge: float,
    mean: np.ndarray,
    std: np.ndarray,
    moved: Sequence[int],
    lags: Sequence[int] = LAGS,
) -> ActionMap:
    """The lag, matrix and offset that fit best; what the demonstrations do not show stays as the base commands it.

    Of the squared error of a pair, in standard deviations of the base's data, the mean is made small, with `ridge`
    times the squared distance of matrix and offset from those that change nothing. The lag is the one with the least
    error.

    Args:
      predicted: (N, chunk, D) the base's commands on N frames.
      demonstrated: (N, chunk, D) what was commanded there.
      is_pad: (N, chunk) bool; True on steps that do not count.
      ridge: above 0, or 0 where the demonstrations determine everything.
      mean: (D,) of the base's data.
      std: (D,) likewise, each above 0.
      moved: the dimensions to map; the others stay as they are, such as a gripper that is open or closed.
      lags: control steps, each below the chunk's length.

    Raises:
      ValueError: there are not as many numbers; no steps are left to fit to; or `ridge` is 0 and the demonstrations
        leave a direction open.
    """
    _check(predicted, demonstrated, is_pad)
    steps, width = predicted.shape[1:]
    most, at = max(lags), np.asarray(moved)
    if not 0 <= min(lags) <= most < steps:
        raise ValueError(f"lags {tuple(lags)} must lie in [0, {steps}), the length of a chunk")
    # Every lag is judged by the same demonstrated commands: those whose farthest partner counts, too.
    real = ~np.asarray(is_pad)[:, most:]
    if not real.any():
        raise ValueError(f"the demonstrations are too short to tell a lag of {most} steps: none has so many steps more")
    wanted, told = ((np.asarray(chunks, np.float64) - mean) / std for chunks in (predicted, demonstrated))
    target = told[:, : steps - most][real][:, at]
    found = []
    for lag in lags:
        inputs = wanted[:, lag : steps - most + lag][real][:, at]
        weights = _ridge(inputs, target, ridge)
        error = float(np.square(_affine(inputs) @ weights - target).mean())
        found.append((error, lag, weights))
    _, lag, weights = min(found, key=lambda each: each[:2])
    matrix, offset = np.eye(width), np.zeros(width)
    matrix[np.ix_(at, at)] = std[at, None] * weights[:-1].T / std[at]
    offset[at] = mean[at] + std[at] * weights[-1] - matrix[np.ix_(at, at)] @ mean[at]
    return ActionMap(matrix, offset, lag)


def fit_calibration(
    ask: Callable[[np.ndarray], np.ndarray],
    demonstrated: np.ndarray,
    is_pad: np.ndarray,
    *,
    ridge: float,
    std: np.ndarray,
    moved: Sequence[int],
) -> ActionMap:
    """The offset of each joint under which the base, which is told where the joints really are, does as demonstrated.

    With joints at `reading + offset` the base commands `ask(offset)`, of which the robot must be told `offset` less. Of
    the squared error, in standard deviations of the base's data, the mean is made small, with `ridge` times the squared
    offset in the same units.

    Args:
      ask: (D,) offsets in the robot's own units -> (N, chunk, D) the base's commands on N frames whose readings are
        raised by them.
      demonstrated: (N, chunk, D) what was commanded there.
      is_pad: (N, chunk) bool; True on steps that do not count.
      ridge: above 0.
      std: (D,) of the base's data, each above 0.
      moved: the joints whose calibration is unknown.

    Raises:
      ValueError: there are not as many numbers, no step counts, no joint is named, or the ridge is not positive.
    """
    real, at = ~np.asarray(is_pad), np.asarray(moved)
    if not ridge > 0:
        raise ValueError(f"the ridge is {ridge}; a joint that no demonstration shows needs one above 0")
    if not real.any():
        raise ValueError("no step of the demonstrations counts, so that nothing tells a calibration")
    if not at.size:
        raise ValueError("moved is empty: name the joints whose calibration is to be found, by their numbers")

    def offset_of(x: np.ndarray) -> np.ndarray:
        offset = np.zeros(len(std))
        offset[at] = x * std[at]
        return offset

    def off(x: np.ndarray) -> np.ndarray:
        offset = offset_of(x)
        predicted = ask(offset)
        _check(predicted, demonstrated, is_pad)
        return ((predicted - offset - demonstrated) / std)[real].ravel()

    def cost(error: np.ndarray, x: np.ndarray) -> float:
        return float(np.square(error).mean() + ridge * np.square(x).sum())

    x = np.zeros(len(at))
    error = off(x)
    for _ in range(_STEPS):
        slopes = np.stack([(off(x + _APART * axis) - error) / _APART for axis in np.eye(len(at))])
        gram = slopes @ slopes.T / error.size + ridge * np.eye(len(at))
        step = np.linalg.solve(gram, -(slopes @ error / error.size + ridge * x))
        for share in _SHARES:
            further = x + share * step
            if cost(left := off(further), further) < cost(error, x):
                break
        else:
            break
        x, error = further, left
        if np.abs(share * step).max() < _STILL:
            break
    found = offset_of(x)
    return ActionMap(np.eye(len(std)), -found, reading=found)


def residual(
    fitted: ActionMap, predicted: np.ndarray, demonstrated: np.ndarray, is_pad: np.ndarray, std: np.ndarray
) -> float:
    """Mean squared error of mapped chunks on the steps that count, in squares of the base's standard deviations.

    The last `lag` steps of a chunk, for which it has no command of their own, do not count.
    """
    known = predicted.shape[1] - fitted.lag
    off = (fitted(np.asarray(predicted, np.float64)) - demonstrated) / std
    return float(np.square(off[:, :known])[~np.asarray(is_pad)[:, :known]].mean())


def _ridge(inputs: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Weights (d + 1, d), the offset's last, of an affine map from inputs (n, d) to target (n, d)."""
    features, size = _affine(inputs), inputs.shape[1]
    unchanged = np.eye(size + 1, size)
    gram = features.T @ features / len(features) + ridge * np.eye(size + 1)
    if not ridge and np.linalg.matrix_rank(gram) <= size:
        raise ValueError("the demonstrations leave a direction of the map open: set a ridge above 0, or adapt to more")
    return unchanged + np.linalg.solve(gram, features.T @ (target - inputs) / len(features))


def _affine(inputs: np.ndarray) -> np.ndarray:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)


def _check(predicted: np.ndarray, demonstrated: np.ndarray, is_pad: np.ndarray) -> None:
    if predicted.shape != demonstrated.shape or predicted.shape[:2] != is_pad.shape or predicted.ndim != 3:
        raise ValueError(
            f"predicted {predicted.shape}, demonstrated {demonstrated.shape} and is_pad {is_pad.shape} must be "
            "(N, chunk, D) twice, and (N, chunk)"
        )
    if not (np.isfinite(predicted).all() and np.isfinite(demonstrated).all()):
        raise ValueError("commands that are not finite identify nothing: the base or the demonstrations are damaged")
