"""How far predicted actions are from demonstrated ones, by joint and by step ahead, in the robot's own units."""

from typing import NamedTuple

import numpy as np


class Errors(NamedTuple):
    """Of one policy on E demonstrations. Every demonstration counts the same, and within it every real step."""

    error: np.ndarray  # (E, D) mean absolute error of a sample: what a robot gets that draws one
    squared: np.ndarray  # (E, D) mean squared error of a sample
    of_mean: np.ndarray  # (E, D) mean absolute error of the mean over samples
    quiet: np.ndarray  # (E, D) mean absolute error of the chunk that starts from zero noise
    spread: np.ndarray  # (E, D) mean standard deviation over samples
    ahead: np.ndarray  # (chunk, D) mean absolute error at each step ahead, over all frames; NaN where none reaches it

    def scaled(self, scale: np.ndarray) -> np.ndarray:
        """(E,) mean over joints of the error in units of `scale` (D,), so that no joint's unit outweighs another's."""
        return (self.error / scale).mean(axis=1)


def errors(samples: np.ndarray, quiet: np.ndarray, actions: np.ndarray, is_pad: np.ndarray, demo: np.ndarray) -> Errors:
    """Compares S predicted chunks of each of N frames with what was demonstrated.

    Args:
      samples: (S, N, chunk, D) predicted, from S draws of noise.
      quiet: (N, chunk, D) predicted from zero noise.
      actions: (N, chunk, D) demonstrated.
      is_pad: (N, chunk) bool; True on steps that do not count, such as those after the end.
      demo: (N,) int in 0..E-1, the demonstration that each frame is of; each has a frame with a real step.
    """
    real = ~is_pad[..., None]
    each = np.abs(samples - actions)
    middle = samples.mean(axis=0)
    parts = (
        each.mean(axis=0),
        np.square(samples - actions).mean(axis=0),
        np.abs(middle - actions),
        np.abs(quiet - actions),
        samples.std(axis=0),
    )
    counts = np.bincount(demo, real.sum(axis=(1, 2)))[:, None]
    means = [_by_demo(np.where(real, part, 0.0).sum(axis=1), demo) / counts for part in parts]
    reached = real.sum(axis=0)
    ahead = np.full(parts[0].shape[1:], np.nan)
    np.divide(np.where(real, parts[0], 0.0).sum(axis=0), reached, out=ahead, where=reached > 0)
    error, squared, of_mean, without_noise, spread = means
    return Errors(error, squared, of_mean, without_noise, spread, ahead)


def _by_demo(values: np.ndarray, demo: np.ndarray) -> np.ndarray:
    """(N, D) -> (E, D), summed."""
    return np.stack([np.bincount(demo, column) for column in values.T], axis=1)
