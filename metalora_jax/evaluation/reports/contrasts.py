"""Controls on the same episodes: the adapter on and off (retention), and another task's instruction."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from metalora_jax.evaluation.reports import statistics
from metalora_jax.evaluation.reports.records import Episode, canonical
from metalora_jax.evaluation.reports.statistics import Interval, Paired

T = TypeVar("T")
Order = Callable[[str], Any]  # sorts methods


@dataclasses.dataclass(frozen=True)
class Retention:
    """What adapting to new tasks costs on the tasks of pretraining: the same episodes with the adapter on and off."""

    method: str
    distribution: str
    shots: int
    steps: int
    n: int
    on: float
    on_interval: Interval
    off: float | None
    off_interval: Interval | None
    versus: Paired | None  # on against off
    unpaired: str | None

    @property
    def kept(self) -> float | None:
        """Success with the adapter on, as a share of that with it off; None where nothing is solved without it."""
        return self.on / self.off if self.off else None


@dataclasses.dataclass(frozen=True)
class WrongInstruction:
    """Whether an adapted policy follows its instruction: the same episodes with the task's own and with another's.

    Success is that of the task adapted to in both. A policy that ignores the instruction solves as much either way.
    """

    method: str
    distribution: str
    split: str
    shots: int
    steps: int
    n: int
    wrong: float
    wrong_interval: Interval
    own: float | None
    own_interval: Interval | None
    versus: Paired | None  # wrong against own
    unpaired: str | None


def retention(episodes: Sequence[Episode], order: Order) -> tuple[Retention, ...]:
    """A row for each method, shots and steps of `episodes`, all on earlier tasks."""

    # With the adapter off nothing but task, condition and start decide: any method's episode serves them all.
    def start(e: Episode) -> tuple:
        return (e.distribution, e.task, canonical(e.condition), e.episode_seed)

    off: dict[Hashable, bool] = {}
    clash = None
    for e in (e for e in episodes if not e.adapter_on):
        if off.setdefault(start(e), e.success) != e.success:
            clash = (
                f"two episodes with the adapter off differ in success at {start(e)}; the policy's noise is not seeded"
            )
    groups = grouped((e for e in episodes if e.adapter_on), lambda e: (e.method, e.distribution, e.shots, e.steps))
    rows = []
    for key in sorted(groups, key=lambda k: (order(k[0]), *k[1:])):
        group = groups[key]
        success = np.array([e.success for e in group])
        absent = sum(start(e) not in off for e in group)
        problem = clash or (
            f"{absent} of {len(group)} episodes have no counterpart with the adapter off" if absent else None
        )
        on, on_interval = _rate(success)
        method, distribution, shots, steps = key
        row = Retention(method, distribution, shots, steps, len(group), on, on_interval, None, None, None, problem)
        if not problem:
            base = np.array([off[start(e)] for e in group])
            rate, interval = _rate(base)
            versus = statistics.mcnemar(success, base)
            row = dataclasses.replace(row, off=rate, off_interval=interval, versus=versus)
        rows.append(row)
    return tuple(rows)


def wrong_instruction(told: Sequence[Episode], untold: Sequence[Episode], order: Order) -> tuple[WrongInstruction, ...]:
    """A row for each method, split, shots and steps of `told`, the episodes under another task's instruction."""

    def point(e: Episode) -> tuple:
        return (method_name(e), e.distribution, e.split, e.shots, e.steps)

    own = {(point(e), pair_key(e)): e.success for e in untold}
    groups = grouped(told, point)
    rows = []
    for key in sorted(groups, key=lambda k: (order(k[0]), *k[1:])):
        group = groups[key]
        absent = sum((key, pair_key(e)) not in own for e in group)
        success = np.array([e.success for e in group])
        wrong, wrong_interval = _rate(success)
        problem = f"{absent} of {len(group)} episodes have no counterpart with the task's own instruction"
        method, distribution, split, shots, steps = key
        row_of = (method, distribution, split, shots, steps)
        row = WrongInstruction(*row_of, len(group), wrong, wrong_interval, None, None, None, problem)
        if not absent:
            partners = np.array([own[key, pair_key(e)] for e in group])
            rate, interval = _rate(partners)
            versus = statistics.mcnemar(success, partners)
            row = dataclasses.replace(row, own=rate, own_interval=interval, versus=versus, unpaired=None)
        rows.append(row)
    return tuple(rows)


def method_name(episode: Episode) -> str:
    """The method that an episode evaluates: with the adapter off, this is the frozen backbone."""
    return episode.method if episode.adapter_on else f"{episode.method} (adapter off)"


def pair_key(episode: Episode) -> tuple:
    """Episodes of two methods with equal keys saw the same task, start, demonstrations and meta-seed."""
    e = episode
    return (e.task, canonical(e.condition), e.draw, e.episode_seed, e.meta_seed)


def grouped(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """The items by key, in their order."""
    groups: defaultdict[Any, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _rate(values: np.ndarray) -> tuple[float, Interval]:
    return float(values.mean()), statistics.wilson(int(values.sum()), len(values))
