"""How many steps, and how many demonstrations, a method needs to reach a success rate."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from metalora_jax.evaluation.reports import statistics
from metalora_jax.evaluation.reports.points import Point


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Gradient steps a method needs to reach a success rate; None: not within the steps measured."""

    method: str
    shots: int
    threshold: float
    steps: int | None  # first with an estimated success rate of at least `threshold`
    steps_by_lower_bound: int | None  # first whose Wilson interval lies above `threshold`, or touches it


@dataclasses.dataclass(frozen=True)
class SampleEfficiency:
    """Demonstrations a method needs to reach a success rate, after the same gradient steps; None: not with any."""

    method: str
    steps: int
    threshold: float
    shots: int | None  # fewest with an estimated success rate of at least `threshold`
    shots_by_lower_bound: int | None  # fewest whose Wilson interval lies above `threshold`, or touches it


def thresholds(curves: Mapping[tuple[str, int], Sequence[Point]], rates: Sequence[float]) -> Iterable[Threshold]:
    """The steps to each of the success `rates`, from curves by steps for (method, shots); none from an empty curve."""
    for (method, shots), curve in curves.items():
        steps = [p.steps for p in curve]
        for rate in rates if curve else ():
            first = statistics.steps_to_threshold(steps, [p.success for p in curve], rate)
            bound = statistics.steps_to_threshold(steps, [p.wilson.low for p in curve], rate)
            yield Threshold(method, shots, rate, first, bound)


def sample_efficiency(
    curves: Mapping[str, Sequence[Point]], steps: int | None, rates: Sequence[float]
) -> Iterable[SampleEfficiency]:
    """The demonstrations to each of the success `rates`, from each method's curve by shots after the same `steps`.

    None where the methods share no number of steps, or where a curve has a single point.
    """
    if steps is None:
        return
    for method, curve in curves.items():
        shots = [p.shots for p in curve]
        for rate in rates if len(curve) > 1 else ():
            first = statistics.steps_to_threshold(shots, [p.success for p in curve], rate)
            bound = statistics.steps_to_threshold(shots, [p.wilson.low for p in curve], rate)
            yield SampleEfficiency(method, steps, rate, first, bound)
