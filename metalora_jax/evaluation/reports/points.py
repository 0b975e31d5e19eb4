"""One method after so many steps on so many demonstrations, and its comparison with the reference."""

import dataclasses
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np

from metalora_jax.evaluation.reports import statistics
from metalora_jax.evaluation.reports.contrasts import grouped, pair_key
from metalora_jax.evaluation.reports.records import Episode, canonical
from metalora_jax.evaluation.reports.statistics import Interval, Paired


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


def measured(
    groups: Mapping[tuple[str, int, int], list[Episode]],
    copies: Mapping[tuple[str, int, int], int],
    reference: str | None,
) -> list[Point]:
    """A point for each (method, shots, steps) of `groups`, in their order, compared with the reference method's.

    A method that takes no steps has one beside every number of steps that others take on as many demonstrations.
    `copies` counts, for each of them, the meta-seeds that were left out because they repeat another.
    """
    points = [_point(key, episodes, copies[key]) for key, episodes in groups.items()]
    points = _levels(points, {key for key, episodes in groups.items() if episodes[0].identified})
    return _adjust([_compare(point, points, groups, reference) for point in points])


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
    point: Point, points: Sequence[Point], groups: Mapping[tuple[str, int, int], list[Episode]], reference: str | None
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
