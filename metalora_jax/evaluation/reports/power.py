"""What the comparisons of a report could have shown."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from metalora_jax.evaluation.reports import statistics
from metalora_jax.evaluation.reports.points import Point


@dataclasses.dataclass(frozen=True)
class Power:
    """What a comparison with the reference could have shown, at the level that Holm's method asks of its smallest p."""

    method: str
    shots: int
    steps: int
    pairs: int
    discordant: float  # share of pairs that differ
    alpha: float  # 0.05 over the methods compared
    gain: float | None  # smallest that is detected with 80 % power; None: no gain at all
    observed: float  # difference in success
    needed: int | None  # pairs for the observed difference; None where there is none


def power(points: Sequence[Point]) -> Iterable[Power]:
    """One line for each point that took a step and was compared; those at the same shots and steps make a family."""
    tested = [(point, point.versus) for point in points if point.versus is not None and point.steps > 0]
    family = Counter((point.shots, point.steps) for point, _ in tested)
    for point, versus in tested:
        alpha = 0.05 / family[point.shots, point.steps]
        discordant = (versus.wins + versus.losses) / versus.pairs
        gain = statistics.smallest_gain(versus.pairs, discordant, alpha=alpha)
        observed = (versus.wins - versus.losses) / versus.pairs
        needed = statistics.pairs_needed(observed, discordant, alpha=alpha) if observed else None
        yield Power(point.method, point.shots, point.steps, versus.pairs, discordant, alpha, gain, observed, needed)
