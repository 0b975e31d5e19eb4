"""Demonstrations of one instruction, compared with each other: do they show one motion, in one scene?"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from metalora_jax.data.normalize import Statistics
from metalora_jax.types import Demo
from metalora_jax.words import listed

MOMENTS = 32  # of each demonstration, spread over its duration
# Distance of two motions, as a share of their own size: 0 alike, 1.4 unrelated, 2 opposite. Two demonstrations of one
# scripted task lie up to 1.3 apart, where objects start at other places; of two tasks 1.2 in the middle.
APART = 1.35
APART_IN_GROUPS = 0.9  # enough where each group has two members or more, that lie far closer together
APART_IN_SIGHT = 0.6  # enough where the first pictures differ, too
SCENES = 8.0  # [of 255] mean difference of two first pictures; of one scripted task up to 4.9, of two 13 in the middle
TIMES = 1.5  # times the largest distance within a group that the smallest between two groups must have
TIGHT = 3.5  # the same, for `APART_IN_GROUPS`
ALIKE = 0.3  # distance below which two motions count as the same: copies must not make every other one look far
MOST = 12  # demonstrations that are compared, spread evenly


def unlike(demos: Sequence[Demo], statistics: Statistics) -> list[str]:
    """One sentence where demonstrations fall into two groups whose motions (and scenes) differ; else none.

    Args:
      demos: told the same.
      statistics: whose scales distances are measured in.
    """
    chosen = np.linspace(0, len(demos) - 1, min(len(demos), MOST)).astype(int)
    if len(chosen) < 2:
        return []
    paths = [_path(demos[i], statistics) for i in chosen]
    motion = _distances(paths, _apart)
    sight = _distances([_first(demos[i]) for i in chosen], _difference)
    for group in _groups(motion):
        others = [i for i in range(len(chosen)) if i not in group]
        near = _between(motion, group, others)
        seen = _between(sight, group, others) > SCENES and _separate(sight, group, others, SCENES / 2)
        tight = min(len(group), len(others)) > 1 and _separate(motion, group, others, ALIKE, TIGHT)
        enough = APART_IN_SIGHT if seen else APART_IN_GROUPS if tight else APART
        if _separate(motion, group, others, ALIKE) and near > enough:
            numbers = listed([str(chosen[i]) for i in group], 4), listed([str(chosen[i]) for i in others], 4)
            where = " in two scenes" if seen else ""
            return [
                f"the demonstrations of {demos[0].instruction!r} show two kinds of motion{where}: {numbers[0]} on "
                f"one side, {numbers[1]} on the other; is one instruction given to two tasks?"
            ]
    return []


def _path(demo: Demo, statistics: Statistics) -> np.ndarray:
    """How the state moves from its start, in scales: (MOMENTS, state_dim)."""
    moved = (demo.state - demo.state[0]) / statistics.state_std
    at = np.linspace(0, len(moved) - 1, MOMENTS)
    return np.stack([np.interp(at, np.arange(len(moved)), column) for column in moved.T], axis=1)


def _first(demo: Demo) -> np.ndarray:
    return demo.images[0].astype(np.float32)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    size = (np.linalg.norm(one) + np.linalg.norm(other)) / 2
    return float(np.linalg.norm(one - other) / size) if size else 0.0


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean()) if one.shape == other.shape and one.size else 0.0


def _distances(things: Sequence[np.ndarray], distance: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    found = np.zeros((len(things), len(things)))
    for i, j in itertools.combinations(range(len(things)), 2):
        found[i, j] = found[j, i] = distance(things[i], things[j])
    return found


def _groups(distances: np.ndarray) -> list[list[int]]:
    """Ways to split them in two that leave the nearest together: single linkage, the last step first."""
    parts = [[i] for i in range(len(distances))]
    while len(parts) > 2:
        one, other = min(itertools.combinations(parts, 2), key=lambda pair: _between(distances, *pair))
        parts = [part for part in parts if part not in (one, other)] + [sorted(one + other)]
    return [sorted(parts, key=lambda part: (-len(part), part))[0]]


def _between(distances: np.ndarray, group: Sequence[int], others: Sequence[int]) -> float:
    return float(distances[np.ix_(group, others)].min())


def _separate(
    distances: np.ndarray, group: Sequence[int], others: Sequence[int], least: float, times: float = TIMES
) -> bool:
    within = max(float(distances[np.ix_(part, part)].max()) for part in (group, others))
    return _between(distances, group, others) > times * max(within, least)
