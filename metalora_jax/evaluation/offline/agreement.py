"""Whether an offline measure says what closed loop will: rank correlations, and what they get who choose by it.

P policies lie in cells: those of one cell are for the same task and robot, and one of them is to be chosen. A measure
is an error, of which less should be better; agreement is the rank correlation of less of it with more success.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from metalora_jax.evaluation.reports.statistics import Interval, cluster_bootstrap


class Estimate(NamedTuple):
    """A number, and its 95 % bootstrap interval over conditions; None with a single one."""

    value: float
    interval: Interval | None


class Agreement(NamedTuple):
    """What one measure says about success."""

    pooled: Estimate | None  # rank correlation over all policies; None where one of both is constant
    within: Estimate | None  # mean over cells of that within each; None where no cell has one
    cells: int  # that have one: success and measure both differ there
    chosen: Estimate  # success of the policy with the least of the measure, mean over cells
    lost: Estimate  # how much that is below the best of the cell
    best: float  # share of cells where it is the best, or one of those; ties of the measure count in parts


def agreement(
    measure: np.ndarray, success: np.ndarray, cell: Sequence[Hashable], cluster: Sequence[Hashable]
) -> Agreement:
    """How a measure agrees with success.

    Args:
      measure: (P,) errors; among equals the choice is by lot.
      success: (P,) rates in [0, 1].
      cell: (P,) what the choice is within.
      cluster: (P,) what the bootstrap draws whole, such as conditions; policies of one cell share it.
    """
    rows = [np.flatnonzero([each == one for each in cell]) for one in dict.fromkeys(cell)]
    of = [cluster[own[0]] for own in rows]
    found = [rank_correlation(-measure[own], success[own]) for own in rows]
    ranked = [i for i, value in enumerate(found) if value is not None]
    within = None
    if ranked:
        within = _mean(np.array([found[i] for i in ranked], float), [of[i] for i in ranked])
    leasts = [own[measure[own] == measure[own].min()] for own in rows]
    chosen = np.array([success[least].mean() for least in leasts])
    most = np.array([success[own].max() for own in rows])
    best = np.mean([np.mean(success[least] == top) for least, top in zip(leasts, most, strict=True)])
    pooled = rank_correlation(-measure, success)
    spread = None if pooled is None else Estimate(pooled, _pooled_interval(-measure, success, cluster))
    return Agreement(spread, within, len(ranked), _mean(chosen, of), _mean(most - chosen, of), float(best))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's, with mean ranks for ties; None where `a` or `b` (n,) is constant."""
    ranks = np.stack([rankdata(a), rankdata(b)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.square(ranks).sum(axis=1))
    return float(ranks[0] @ ranks[1] / norms.prod()) if norms.all() else None


def halves(wins: np.ndarray, cell: Sequence[Hashable], cluster: Sequence[Hashable]) -> list[Agreement]:
    """How success in one half of the episodes agrees with that in the other: no measure can be expected to do better.

    Args:
      wins: (P, N) bool, the same N starts for all policies of a cell.
      cell, cluster: see `agreement`.

    Returns:
      For either half as the measure.
    """
    first, second = wins[:, ::2].mean(axis=1), wins[:, 1::2].mean(axis=1)
    return [agreement(-a, b, cell, cluster) for a, b in ((first, second), (second, first))]


def _mean(values: np.ndarray, cluster: Sequence[Hashable]) -> Estimate:
    several = len(set(cluster)) > 1
    return Estimate(float(values.mean()), cluster_bootstrap(values, [cluster]) if several else None)


def _pooled_interval(
    a: np.ndarray, b: np.ndarray, cluster: Sequence[Hashable], resamples: int = 1000
) -> Interval | None:
    groups = [np.flatnonzero([each == one for each in cluster]) for one in dict.fromkeys(cluster)]
    if len(groups) < 2:
        return None
    rng = np.random.default_rng(0)
    drawn = []
    for picks in rng.integers(len(groups), size=(resamples, len(groups))):
        rows = np.concatenate([groups[i] for i in picks])
        drawn.append(rank_correlation(a[rows], b[rows]))
    low, high = np.percentile([value for value in drawn if value is not None], [2.5, 97.5])
    return Interval(float(low), float(high))
