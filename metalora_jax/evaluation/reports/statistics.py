"""Interval estimates, paired tests and power for success rates: what a handful of episodes can and cannot say.

Everything here takes plain numbers and arrays. Rates and probabilities lie in [0, 1]; intervals are two-sided and 95 %
unless asked otherwise.

References:
    Wilson (1927), the score interval. McNemar (1947), here in its exact binomial form. Holm (1979). Owen (2007), "The
    pigeonhole bootstrap". Fleiss, Levin and Paik (2003) ch. 4 (two arms) and Miettinen (1968) (pairs) for sample sizes.
"""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A two-sided interval, in the unit of the estimate."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Paired:
    """An exact McNemar comparison of two methods over the same episodes."""

    pairs: int
    wins: int  # episodes that only the method solved
    losses: int  # episodes that only the reference solved
    p: float  # two-sided


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two methods' errors over the same episodes; below zero is better than the reference."""

    pairs: int
    mean: float
    interval: Interval | None  # 95 % bootstrap over clusters; None with a single one
    better: int  # episodes with less error
    worse: int
    p: float  # two-sided, exact sign test


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a success rate: `wilson(5, 5)` is (0.57, 1.00).

    It takes episodes as independent; `cluster_bootstrap` does not.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(
            f"wilson: {successes} successes of {n} episodes is not a rate; give 0 <= successes <= n, n > 0"
        )
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def pair(a: Mapping[Hashable, object], b: Mapping[Hashable, object]) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of two methods over the same episodes, aligned by key, in the order of `a`.

    Raises ValueError when a key of one side is missing on the other: comparing what happens to overlap would compare
    different episodes without saying so.
    """
    alone_a, alone_b = [k for k in a if k not in b], [k for k in b if k not in a]
    if alone_a or alone_b:
        example = (alone_a or alone_b)[0]
        raise ValueError(
            f"unpaired episodes: {len(alone_a)} of the first method only, {len(alone_b)} of the second only, such as "
            f"{example}; run both methods on the same episodes"
        )
    return np.array(list(a.values())), np.array([b[k] for k in a])


def mcnemar(method: np.ndarray, reference: np.ndarray) -> Paired:
    """Exact two-sided McNemar test of paired outcomes, both (n,) bool."""
    if method.shape != reference.shape or method.ndim != 1 or method.size == 0:
        raise ValueError(
            f"mcnemar: outcomes of shapes {method.shape} and {reference.shape}; give two equal (n,), n > 0"
        )
    method, reference = method.astype(bool), reference.astype(bool)
    wins, losses = int(np.sum(method & ~reference)), int(np.sum(~method & reference))
    p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return Paired(method.size, wins, losses, p)


def paired_difference(method: np.ndarray, reference: np.ndarray, clusters: Sequence[Sequence[Hashable]]) -> Difference:
    """Compares errors (n,) of two methods over the same n episodes.

    Args:
      method, reference: errors, aligned.
      clusters: for each crossed factor, the n labels of the episodes, see `cluster_bootstrap`.
    """
    signs = mcnemar(method < reference, method > reference)  # a sign test is McNemar's of which one is better
    difference = np.asarray(method, np.float64) - reference
    several = any(len(set(labels)) > 1 for labels in clusters)
    interval = cluster_bootstrap(difference, clusters) if several else None
    return Difference(signs.pairs, float(difference.mean()), interval, signs.wins, signs.losses, signs.p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: they bound the chance of any false finding among them all."""
    m, adjusted, floor = len(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def cluster_bootstrap(
    values: np.ndarray,
    factors: Sequence[Sequence[Hashable]],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a mean whose observations share clusters, such as meta-seeds and tasks.

    Every factor is resampled on its own and an observation counts as often as the product of its clusters' draws
    (Owen's pigeonhole bootstrap), so that an interval over (meta_seeds, tasks) speaks of new seeds *and* new tasks. A
    factor with one level adds no spread: it cannot be seen. With two or three levels the interval is a rough one.

    Args:
        values: (n,) outcomes, bool or float.
        factors: for each crossed factor, the n labels of the observations.
        confidence: coverage aimed at.
        resamples: number of bootstrap draws.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: when no factor has two levels, or lengths differ.
    """
    values = np.asarray(values, np.float64)
    if any(len(labels) != values.size for labels in factors) or values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"cluster_bootstrap: values {values.shape}, labels {[len(f) for f in factors]}; give n of each"
        )
    levels = [{label: i for i, label in enumerate(dict.fromkeys(labels))} for labels in factors]
    if all(len(level) < 2 for level in levels):
        raise ValueError("cluster_bootstrap: every factor has a single cluster; give at least two seeds or two tasks")

    # Observations of one cell always count alike, so the draws only need every cell's sum and size.
    codes = np.array(
        [[level[x] for x in labels] for level, labels in zip(levels, factors, strict=True)]
    )  # (factors, n)
    cells, cell_of = np.unique(codes, axis=1, return_inverse=True)
    cell_of = cell_of.reshape(-1)
    sums, sizes = np.bincount(cell_of, values), np.bincount(cell_of)

    rng = np.random.default_rng(seed)
    weights = np.ones((resamples, cells.shape[1]))
    for level, cell_codes in zip(levels, cells, strict=True):
        draws = rng.multinomial(len(level), np.full(len(level), 1 / len(level)), size=resamples)
        weights *= draws[:, cell_codes]
    total = weights @ sizes
    seen = total > 0  # crossed factors with absent cells can draw nothing at all
    means = (weights[seen] @ sums) / total[seen]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(low), float(high))


def episodes_needed(p: float, q: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Episodes in *each* of two unpaired arms to tell success rates `p` and `q` apart: 90 against 80 % needs 199."""
    if not (0 <= p <= 1 and 0 <= q <= 1) or p == q:
        raise ValueError(f"episodes_needed: rates {p} and {q}; give two different rates in [0, 1]")
    mean = (p + q) / 2
    spread = _z(1 - alpha / 2) * math.sqrt(2 * mean * (1 - mean)) + _z(power) * math.sqrt(p * (1 - p) + q * (1 - q))
    return math.ceil((spread / (p - q)) ** 2)


def pairs_needed(gain: float, discordant: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Paired episodes for McNemar's test to see a `gain` in success rate when a share `discordant` of pairs differs.

    Pairing pays when the two methods mostly agree: a gain of 0.1 needs 155 pairs at 20 % discordant, 312 at 40 %.
    """
    if not 0 < abs(gain) <= discordant <= 1:
        raise ValueError(f"pairs_needed: gain {gain}, discordant {discordant}; give 0 < |gain| <= discordant <= 1")
    spread = _z(1 - alpha / 2) * math.sqrt(discordant) + _z(power) * math.sqrt(discordant - gain**2)
    return math.ceil((spread / gain) ** 2)


def smallest_gain(pairs: int, discordant: float, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Smallest gain, in steps of a hundredth, that McNemar's test sees in `pairs` episodes; None: not even 1.

    Where a gain is larger than the share of pairs that were seen to differ, as many more must differ: all for it.
    """
    gains = (g / 100 for g in range(1, 101))
    return next((g for g in gains if pairs_needed(g, max(g, discordant), alpha=alpha, power=power) <= pairs), None)


def power_note(n: int, rate: float = 0.5, *, alpha: float = 0.05, power: float = 0.8) -> str:
    """The smallest gain over `rate` that `n` episodes per arm detect, in one sentence."""
    gain = next((g for g in range(1, 101) if rate + g / 100 <= 1 and _enough(n, rate, g / 100, alpha, power)), None)
    test = f"an unpaired test with {n} {'episode' if n == 1 else 'episodes'} per arm"
    if gain is None:
        return (
            f"{test} cannot detect any gain over a success rate of {100 * rate:.0f} % with {100 * power:.0f} % power."
        )
    return (
        f"{test} detects a gain of {gain} points or more over a success rate of {100 * rate:.0f} % with "
        f"{100 * power:.0f} % power; smaller gains need more episodes."
    )


def steps_to_threshold(steps: Sequence[int], success: Sequence[float], threshold: float) -> int | None:
    """First measured number of gradient steps whose success reaches `threshold`, or None when none does."""
    reached = [k for k, rate in zip(steps, success, strict=True) if rate >= threshold]
    return min(reached, default=None)


def _enough(n: int, rate: float, gain: float, alpha: float, power: float) -> bool:
    return episodes_needed(rate, rate + gain, alpha=alpha, power=power) <= n


def _z(probability: float) -> float:
    return float(stats.norm.ppf(probability))
