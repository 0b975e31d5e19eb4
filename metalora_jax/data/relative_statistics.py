"""Statistics of relative actions that do not say so: told by the recorded actions, see `data.relative`."""

from collections.abc import Mapping, Sequence

import numpy as np

from metalora_jax.data.normalize import CHUNK, TINY

AS_WIDE = 3.0  # factor by which statistics of the same kind of differences may be wider, or narrower
_MOMENTS = 2000  # from which differences are taken, about


def are(
    stats: Mapping[str, np.ndarray], states: Sequence[np.ndarray], actions: Sequence[np.ndarray], chunk: int = CHUNK
) -> bool:
    """Whether statistics of actions are those of actions minus the state, while the recorded actions are absolute.

    lerobot's `recompute_stats(relative_action=True)` puts such ones in the place of a data set's own, without a mark:
    of every action of a chunk minus the state at its start. Statistics into which those differences merely fit are of
    other data; here they must also be about as wide.

    Args:
      stats: of the action: "min" and "max" or "mean" and "std" -> (width,).
      states, actions: (T, width) of each recorded episode.
      chunk: actions in a chunk of the policy; statistics of shorter chunks are known, too.
    """
    widths = {values.shape[1] for values in (*states, *actions)}
    if len(widths) != 1 or widths != {len(values) for values in stats.values()}:
        return False
    if {"min", "max"} <= stats.keys():
        low, high = stats["min"], stats["max"]
    elif {"mean", "std"} <= stats.keys():
        low, high = stats["mean"] - 4 * stats["std"], stats["mean"] + 4 * stats["std"]
    else:
        return False
    whole = np.concatenate(actions)
    absolute = _beyond(whole, low, high)
    for reach in sorted({1, 4, 16, chunk}):
        apart = _differences(states, actions, reach)
        differences = _beyond(apart, low, high)
        fits = (absolute < 0.02) | (differences < 0.02)  # lerobot keeps the gripper's absolute; around 0 both fit
        only_apart = (absolute > 0.25) & (differences < 0.02)
        if not fits.all() or only_apart.sum() < min(2, len(fits)):
            continue
        if "std" in stats:
            factor = stats["std"] / np.maximum(apart.std(axis=0), TINY)
        else:
            factor = (high - low) / np.maximum(np.ptp(apart, axis=0), TINY)
        if np.median(np.abs(np.log(np.maximum(factor[only_apart], TINY)))) < np.log(AS_WIDE):
            return True
    return False


def _beyond(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(T, width) -> (width,) share of the numbers outside."""
    return ((values < low - TINY) | (values > high + TINY)).mean(axis=0)


def _differences(states: Sequence[np.ndarray], actions: Sequence[np.ndarray], reach: int) -> np.ndarray:
    """(n, width): the next `reach` actions from moments that are spread over all episodes, minus the state there."""
    total = sum(len(action) for action in actions)
    stride = max(1, total // _MOMENTS)
    found = []
    for state, action in zip(states, actions, strict=True):
        at = np.arange(0, len(action), stride)[:, None] + np.zeros(reach, int)
        ahead = np.minimum(at + np.arange(reach), len(action) - 1)
        found.append((action[ahead] - state[at]).reshape(-1, action.shape[1]))
    return np.concatenate(found)
