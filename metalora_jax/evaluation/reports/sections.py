"""All results on one split of one task distribution."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from metalora_jax.evaluation.reports.contrasts import Order, grouped, method_name
from metalora_jax.evaluation.reports.copies import Cell
from metalora_jax.evaluation.reports.points import Point, measured
from metalora_jax.evaluation.reports.power import Power, power
from metalora_jax.evaluation.reports.records import Episode, canonical
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.thresholds import SampleEfficiency, Threshold, sample_efficiency, thresholds


@dataclasses.dataclass(frozen=True)
class WallClock:
    """Seconds of one adaptation, over `n` adaptations."""

    method: str
    shots: int
    steps: int
    n: int
    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Section:
    """All results on one split of one task distribution."""

    distribution: str
    split: str
    meta_seeds: int
    tasks: int
    conditions: int
    points: tuple[Point, ...]
    shots_steps: int | None  # steps of the success-vs-shots figure; None when the methods share none
    thresholds: tuple[Threshold, ...]
    sample_efficiency: tuple[SampleEfficiency, ...]
    power: tuple[Power, ...]
    wall_clock: tuple[WallClock, ...]

    @property
    def methods(self) -> list[str]:
        """Method names, in the order of the report."""
        return list(dict.fromkeys(point.method for point in self.points))

    @property
    def shots(self) -> list[int]:
        """Numbers of demonstrations that have a curve: those above zero, or [0] when nothing was adapted."""
        return sorted({point.shots for point in self.points} - {0}) or [0]

    def curve(self, method: str, shots: int) -> list[Point]:
        """The points of one method by steps; a level is the same after all of them.

        Where a curve has no step 0 of its own, it starts at zero shots.
        """
        points = {point.steps: point for point in self.points if point.method == method and point.shots == 0}
        own = {point.steps: point for point in self.points if point.method == method and point.shots == shots}
        return [point for _, point in sorted((points | own).items())] if own else []

    def shots_curve(self, method: str) -> list[Point]:
        """The points of one method by shots: `shots_steps` gradient steps each, none at zero shots.

        An adapter that has taken no step yet has seen no demonstration: where it was run, it stands for zero shots.
        """
        adapted = [p for p in self.points if p.method == method and p.shots > 0 and p.steps == self.shots_steps]
        still = [p for p in self.points if p.method == method and p.steps == 0 and not p.level][:1]
        return [dataclasses.replace(p, shots=0) for p in still] + adapted


def section(
    name: tuple[str, str],
    episodes: Sequence[Episode],
    settings: Settings,
    order: Order,
    copies: Mapping[Cell, int],
) -> Section:
    """The section of one (distribution, split), with its methods in `order`; `copies` as `counted_once` returns it."""
    groups: dict[tuple, list[Episode]] = grouped(episodes, lambda e: (method_name(e), e.shots, e.steps))
    keys = sorted(groups, key=lambda k: (order(k[0]), k[1], k[2]))
    lost = {key: copies.get(Cell(key[0], *name, key[1], key[2], misled=False, altered=None), 0) for key in keys}
    points = measured({key: groups[key] for key in keys}, lost, settings.reference)
    found = Section(
        distribution=name[0],
        split=name[1],
        meta_seeds=len({e.meta_seed for e in episodes}),
        tasks=len({e.task for e in episodes}),
        conditions=len({canonical(e.condition) for e in episodes}),
        points=tuple(points),
        shots_steps=_shared_steps(points, settings.steps),
        thresholds=(),
        sample_efficiency=(),
        power=tuple(power(points)),
        wall_clock=tuple(_wall_clock(k, groups[k]) for k in keys if k[2] > 0 or groups[k][0].identified),
    )
    by_steps = {(method, shots): found.curve(method, shots) for method in found.methods for shots in found.shots}
    by_shots = {method: found.shots_curve(method) for method in found.methods}
    return dataclasses.replace(
        found,
        thresholds=tuple(thresholds(by_steps, settings.thresholds)),
        sample_efficiency=tuple(sample_efficiency(by_shots, found.shots_steps, settings.thresholds)),
    )


def _shared_steps(points: Sequence[Point], wanted: int | None) -> int | None:
    adapted = grouped((p for p in points if p.shots > 0 and p.steps > 0), lambda p: (p.method, p.shots))
    measured = [{p.steps for p in group} for group in adapted.values()]
    shared: set[int] = set.intersection(*measured) if measured else set()
    if wanted is not None and wanted not in {p.steps for p in points}:
        raise ValueError(
            f"config.json: report.steps is {wanted}, not measured; choose from {sorted(shared)} or leave it out"
        )
    return wanted if wanted is not None else max(shared, default=None)


def _wall_clock(key: tuple[str, int, int], episodes: Sequence[Episode]) -> WallClock:
    # Every episode of an adaptation repeats its time: each adaptation counts once.
    adaptations = grouped(episodes, lambda e: (e.meta_seed, e.task, canonical(e.condition), e.draw))
    seconds = [float(np.median([e.adapt_seconds for e in group])) for group in adaptations.values()]
    return WallClock(*key, len(seconds), float(np.median(seconds)), min(seconds), max(seconds))
