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


REPLAYS = 0.2  # a policy that looks keeps at most this share of its success on noise for pictures


@dataclasses.dataclass(frozen=True)
class Alteration:
    """What a policy does without one of its inputs: the same episodes with the input replaced and as it is."""

    altered: str  # see `evaluation.alterations`
    method: str
    distribution: str
    split: str
    shots: int
    steps: int
    n: int
    success: float
    interval: Interval
    own: float | None
    own_interval: Interval | None
    versus: Paired | None  # altered against own
    unpaired: str | None

    @property
    def replays(self) -> bool:
        """Whether the policy hardly looks: it keeps more than a fifth of its success on noise for pictures."""
        return self.altered == "noise" and self.own is not None and self.success > REPLAYS * self.own


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
    rows = []
    for key, group in _ranked(grouped(told, _point), order):
        wrong, own, versus, problem = _beside_own(key, group, untold, "the task's own instruction")
        rows.append(WrongInstruction(*key, len(group), *wrong, *own, versus, problem))
    return tuple(rows)


def alterations(altered: Sequence[Episode], plain: Sequence[Episode], order: Order) -> tuple[Alteration, ...]:
    """A row for each method, split, shots, steps and alteration of `altered`."""
    rows = []
    for key, groups in _ranked(grouped(altered, _point), order):
        for name, group in grouped(groups, lambda e: e.altered).items():
            rate, own, versus, problem = _beside_own(key, group, plain, "the inputs as they are")
            rows.append(Alteration(name, *key, len(group), *rate, *own, versus, problem))
    return tuple(rows)


_Point = tuple[str, str, str, int, int]  # method, distribution, split, shots, steps


def _point(e: Episode) -> _Point:
    return (method_name(e), e.distribution, e.split, e.shots, e.steps)


def _ranked(groups: dict[_Point, list[Episode]], order: Order) -> list[tuple[_Point, list[Episode]]]:
    return sorted(groups.items(), key=lambda item: (order(item[0][0]), *item[0][1:]))


def _beside_own(
    key: _Point, group: Sequence[Episode], plain: Sequence[Episode], what: str
) -> tuple[tuple[float, Interval], tuple[float | None, Interval | None], Paired | None, str | None]:
    """Success of changed episodes, of the same episodes unchanged, and their test; or why there is none."""
    own = {pair_key(e): e.success for e in plain if _point(e) == key}
    success = np.array([e.success for e in group])
    if absent := sum(pair_key(e) not in own for e in group):
        problem = f"{absent} of {len(group)} episodes have no counterpart with {what}"
        return _rate(success), (None, None), None, problem
    partners = np.array([own[pair_key(e)] for e in group])
    return _rate(success), _rate(partners), statistics.mcnemar(success, partners), None


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
