"""From raw episodes to the numbers of a report: pure functions, no file and no figure in sight."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metalora_jax.evaluation.reports import statistics
from metalora_jax.evaluation.reports.contrasts import (
    REPLAYS,
    Alteration,
    Order,
    Retention,
    WrongInstruction,
    alterations,
    grouped,
    method_name,
    pair_key,
    retention,
    wrong_instruction,
)
from metalora_jax.evaluation.reports.copies import Cell, counted_once
from metalora_jax.evaluation.reports.records import Episode, canonical
from metalora_jax.evaluation.reports.statistics import Interval, Paired


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a report: the `report` entry of a run's config.json."""

    title: str = "Few-shot adaptation"
    reference: str | None = None  # method that the others are tested against
    thresholds: tuple[float, ...] = (0.5, 0.8)  # success rates for steps-to-threshold
    steps: int | None = None  # steps of the success-vs-shots figure; None: the most that all methods share
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # method -> name shown; also sets the order
    groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)  # title -> methods of one figure

    def __post_init__(self) -> None:
        if not all(0 < threshold <= 1 for threshold in self.thresholds):
            raise ValueError(f"report settings: thresholds {self.thresholds} are success rates; give values in (0, 1]")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Settings":
        """Settings from a JSON object; ValueError naming an unknown field."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"config.json: unknown report settings {unknown}; choose from {sorted(known)}")
        values: dict[str, Any] = {k: tuple(v) if k == "thresholds" else v for k, v in fields.items()}
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Point:
    """One method after `steps` gradient steps on `shots` demonstrations."""

    method: str
    shots: int
    steps: int
    n: int
    successes: int
    errors: int  # episodes that ended in an error; they count as failures
    success: float
    wilson: Interval  # episodes taken as independent
    clustered: Interval | None  # over meta-seeds and tasks; None with a single cluster
    support_loss: float | None
    versus: Paired | None = None  # against the reference, over the same episodes
    p_holm: float | None = None  # adjusted over the methods compared at these shots and steps
    unpaired: str | None = None  # why there is no comparison
    copies: int = 0  # meta-seeds that repeat another episode by episode, and are not counted
    level: bool = False  # of a method that takes no steps: its one result, held against the reference after `steps`


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


@dataclasses.dataclass(frozen=True)
class Summary:
    """Every number of a report."""

    settings: Settings
    episodes: int
    errors: int
    sections: tuple[Section, ...]
    retention: tuple[Retention, ...]
    wrong_instruction: tuple[WrongInstruction, ...]
    alterations: tuple[Alteration, ...]
    fingerprints: Mapping[str, int]  # method -> how many different ones its episodes carry
    cautions: tuple[str, ...]


def summarise(episodes: Sequence[Episode], settings: Settings = Settings()) -> Summary:
    """All numbers of a report.

    Episodes with split "base" make the retention table, those that were told another task's instruction a table of
    their own, and every other split a section.
    """
    if not episodes:
        raise ValueError("no episodes to summarise; run the evaluation first")
    methods = {method_name(e) for e in episodes}
    if settings.reference is not None and settings.reference not in methods:
        raise ValueError(f"reference method '{settings.reference}' has no episodes; choose from {sorted(methods)}")
    recorded = len(episodes)
    episodes, copies = counted_once(episodes)
    order = _ranker(settings)
    plain = [e for e in episodes if e.altered is None]
    told = [e for e in plain if e.told is not None]
    untold = [e for e in plain if e.told is None and e.split != "base"]
    groups = grouped(untold, lambda e: (e.distribution, e.split))
    sections = tuple(_section(name, group, settings, order, copies) for name, group in sorted(groups.items()))
    kept = retention([e for e in plain if e.split == "base"], order)
    misled = wrong_instruction(told, untold, order)
    inputs = alterations([e for e in episodes if e.altered is not None], [e for e in plain if e.told is None], order)
    marks = {name: len({e.fingerprint for e in group}) for name, group in grouped(episodes, method_name).items()}
    return Summary(
        settings=settings,
        episodes=recorded,
        errors=sum(e.error is not None for e in episodes),
        sections=sections,
        retention=kept,
        wrong_instruction=misled,
        alterations=inputs,
        fingerprints=dict(sorted(marks.items())),
        cautions=tuple(_cautions(episodes, sections, kept, misled, inputs, copies)),
    )


def _section(
    name: tuple[str, str],
    episodes: Sequence[Episode],
    settings: Settings,
    order: Order,
    copies: Mapping[Cell, int],
) -> Section:
    groups: dict[tuple, list[Episode]] = grouped(episodes, lambda e: (method_name(e), e.shots, e.steps))
    keys = sorted(groups, key=lambda k: (order(k[0]), k[1], k[2]))
    lost = {key: copies.get(Cell(key[0], *name, key[1], key[2], misled=False, altered=None), 0) for key in keys}
    points = [_point(key, groups[key], lost[key]) for key in keys]
    points = _levels(points, {key for key in keys if groups[key][0].identified})
    points = [_compare(point, points, groups, settings.reference) for point in points]
    points = _adjust(points)
    section = Section(
        distribution=name[0],
        split=name[1],
        meta_seeds=len({e.meta_seed for e in episodes}),
        tasks=len({e.task for e in episodes}),
        conditions=len({canonical(e.condition) for e in episodes}),
        points=tuple(points),
        shots_steps=_shared_steps(points, settings.steps),
        thresholds=(),
        sample_efficiency=(),
        power=tuple(_power(points)),
        wall_clock=tuple(_wall_clock(k, groups[k]) for k in keys if k[2] > 0 or groups[k][0].identified),
    )
    return dataclasses.replace(
        section,
        thresholds=tuple(_thresholds(section, settings.thresholds)),
        sample_efficiency=tuple(_sample_efficiency(section, settings.thresholds)),
    )


def _point(key: tuple[str, int, int], episodes: Sequence[Episode], copies: int) -> Point:
    method, shots, steps = key
    success = np.array([e.success for e in episodes])
    losses = [e.support_loss for e in episodes if e.support_loss is not None]
    return Point(
        method=method,
        shots=shots,
        steps=steps,
        n=len(episodes),
        successes=int(success.sum()),
        errors=sum(e.error is not None for e in episodes),
        success=float(success.mean()),
        wilson=statistics.wilson(int(success.sum()), len(episodes)),
        clustered=_clustered(success, episodes),
        support_loss=float(np.mean(losses)) if losses else None,
        copies=copies,
    )


def _levels(points: Sequence[Point], fitted: Collection[tuple[str, int, int]]) -> list[Point]:
    """The points with those in `fitted` (method, shots, steps), which take no steps, beside every number of steps."""
    at = grouped((p for p in points if (p.method, p.shots, p.steps) not in fitted), lambda p: p.shots)
    found = []
    for point in points:
        if (point.method, point.shots, point.steps) not in fitted:
            found.append(point)
            continue
        for steps in sorted({p.steps for p in at.get(point.shots, ())} or {0}):
            found.append(dataclasses.replace(point, steps=steps, level=True))
    return found


def _clustered(values: np.ndarray, episodes: Sequence[Episode]) -> Interval | None:
    factors: list[list[Hashable]] = [
        [e.meta_seed for e in episodes],
        [(e.task, canonical(e.condition)) for e in episodes],
    ]
    if all(len(set(labels)) < 2 for labels in factors):
        return None
    return statistics.cluster_bootstrap(values, factors)


def _compare(
    point: Point, points: Sequence[Point], groups: Mapping[tuple, list[Episode]], reference: str | None
) -> Point:
    if reference is None or point.method == reference:
        return point
    key = (reference, point.shots, point.steps)
    if key not in groups:
        return dataclasses.replace(
            point,
            unpaired=f"{reference} has no episodes with {point.shots} demonstrations and {point.steps} gradient steps",
        )
    sides = [groups[point.method, point.shots, 0 if point.level else point.steps], groups[key]]
    if point.level or point.copies or any(p.copies for p in points if (p.method, p.shots, p.steps) == key):
        # Copies of a seed, or what has no seed, make no further pairs: both sides keep the seeds that count for both.
        both = set.intersection(*({e.meta_seed for e in side} for side in sides))
        sides = [[e for e in side if e.meta_seed in both] for side in sides]
    try:
        outcomes = statistics.pair(_outcomes(sides[0], pair_key), _outcomes(sides[1], pair_key))
    except ValueError as error:
        return dataclasses.replace(point, unpaired=str(error))
    return dataclasses.replace(point, versus=statistics.mcnemar(*outcomes))


def _adjust(points: Sequence[Point]) -> list[Point]:
    """The points with Holm's p: methods compared at the same shots and steps make one family."""
    tested = [(i, point, point.versus.p) for i, point in enumerate(points) if point.versus is not None]
    adjusted: dict[int, float] = {}
    for family in grouped(tested, lambda test: (test[1].shots, test[1].steps)).values():
        p_values = statistics.holm([p for _, _, p in family])
        adjusted |= {i: p for (i, _, _), p in zip(family, p_values, strict=True)}
    return [dataclasses.replace(point, p_holm=adjusted.get(i)) for i, point in enumerate(points)]


def _outcomes(episodes: Iterable[Episode], key: Callable[[Episode], Hashable]) -> dict[Hashable, bool]:
    return {key(e): e.success for e in episodes}


def _shared_steps(points: Sequence[Point], wanted: int | None) -> int | None:
    adapted = grouped((p for p in points if p.shots > 0 and p.steps > 0), lambda p: (p.method, p.shots))
    measured = [{p.steps for p in group} for group in adapted.values()]
    shared: set[int] = set.intersection(*measured) if measured else set()
    if wanted is not None and wanted not in {p.steps for p in points}:
        raise ValueError(
            f"config.json: report.steps is {wanted}, not measured; choose from {sorted(shared)} or leave it out"
        )
    return wanted if wanted is not None else max(shared, default=None)


def _thresholds(section: Section, thresholds: Sequence[float]) -> Iterable[Threshold]:
    for method in section.methods:
        for shots in section.shots:
            curve = section.curve(method, shots)
            steps = [p.steps for p in curve]
            for threshold in thresholds if curve else ():
                first = statistics.steps_to_threshold(steps, [p.success for p in curve], threshold)
                bound = statistics.steps_to_threshold(steps, [p.wilson.low for p in curve], threshold)
                yield Threshold(method, shots, threshold, first, bound)


def _sample_efficiency(section: Section, thresholds: Sequence[float]) -> Iterable[SampleEfficiency]:
    if section.shots_steps is None:
        return
    for method in section.methods:
        curve = section.shots_curve(method)
        shots = [p.shots for p in curve]
        for threshold in thresholds if len(curve) > 1 else ():
            first = statistics.steps_to_threshold(shots, [p.success for p in curve], threshold)
            bound = statistics.steps_to_threshold(shots, [p.wilson.low for p in curve], threshold)
            yield SampleEfficiency(method, section.shots_steps, threshold, first, bound)


def _power(points: Sequence[Point]) -> Iterable[Power]:
    tested = [(point, point.versus) for point in points if point.versus is not None and point.steps > 0]
    family = Counter((point.shots, point.steps) for point, _ in tested)
    for point, versus in tested:
        alpha = 0.05 / family[point.shots, point.steps]
        discordant = (versus.wins + versus.losses) / versus.pairs
        gain = statistics.smallest_gain(versus.pairs, discordant, alpha=alpha)
        observed = (versus.wins - versus.losses) / versus.pairs
        needed = statistics.pairs_needed(observed, discordant, alpha=alpha) if observed else None
        yield Power(point.method, point.shots, point.steps, versus.pairs, discordant, alpha, gain, observed, needed)


def _wall_clock(key: tuple[str, int, int], episodes: Sequence[Episode]) -> WallClock:
    # Every episode of an adaptation repeats its time: each adaptation counts once.
    adaptations = grouped(episodes, lambda e: (e.meta_seed, e.task, canonical(e.condition), e.draw))
    seconds = [float(np.median([e.adapt_seconds for e in group])) for group in adaptations.values()]
    return WallClock(*key, len(seconds), float(np.median(seconds)), min(seconds), max(seconds))


def _cautions(
    episodes: Sequence[Episode],
    sections: Sequence[Section],
    kept: Sequence[Retention],
    misled: Sequence[WrongInstruction],
    inputs: Sequence[Alteration],
    copies: Mapping[Cell, int],
) -> Iterable[str]:
    for (method, split), cells in grouped(copies, lambda c: (c.method, f"{c.distribution} / {c.split}")).items():
        steps = ", ".join(map(str, sorted({c.steps for c in cells})))
        yield f"{split}: meta-seeds of {method} repeat each other, episode by episode, at steps {steps}: one counts."
    for section in sections:
        name = f"{section.distribution} / {section.split}"
        fewest = min(point.n for point in section.points)
        yield f"{name}: {statistics.power_note(fewest)}"
        if section.meta_seeds == 1:
            yield f"{name}: there is only one meta-seed; no interval covers the variation between meta-training runs."
        for reason in dict.fromkeys(p.unpaired for p in section.points if p.unpaired):
            yield f"{name}: not compared: {reason}."
    for reason in dict.fromkeys(row.unpaired for row in kept if row.unpaired):
        yield f"retention: not compared: {reason}."
    for reason in dict.fromkeys(row.unpaired for row in misled if row.unpaired):
        yield f"wrong instruction: not compared: {reason}."
    for reason in dict.fromkeys(row.unpaired for row in inputs if row.unpaired):
        yield f"replaced inputs: not compared: {reason}."
    for row in inputs:
        if row.replays and row.own is not None:
            yield (
                f"{row.method} hardly looks: after {row.steps} steps it solves {100 * row.success:.0f} % with noise "
                f"for pictures, {100 * row.own:.0f} % with true ones (a policy that looks keeps at most "
                f"{100 * REPLAYS:.0f} % of its success)."
            )
    new = {(e.distribution, e.task) for e in episodes if e.split != "base" and e.distribution == "tasks"}
    if any((e.distribution, e.task) in new for e in episodes if e.split == "base"):
        yield "retention: measured on some of the new tasks themselves, not on tasks of pretraining alone."
    if broken := [e.error for e in episodes if e.error is not None]:
        yield (
            f"{len(broken)} of {len(episodes)} episodes ended in an error and count as failures. The first error: "
            f"{broken[0]}."
        )


def _ranker(settings: Settings) -> Order:
    named = list(settings.labels)
    return lambda method: (named.index(method) if method in named else len(named), method)
