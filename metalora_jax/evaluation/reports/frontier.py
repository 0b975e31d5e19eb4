"""What an adapted policy gains on new tasks against what it keeps of earlier ones, as its change is scaled or gated."""

import dataclasses
from collections.abc import Sequence

from metalora_jax.evaluation.reports import statistics
from metalora_jax.evaluation.reports.contrasts import Order, grouped, retention
from metalora_jax.evaluation.reports.records import Episode, canonical
from metalora_jax.evaluation.reports.statistics import Interval


@dataclasses.dataclass(frozen=True)
class Rate:
    """A success rate of `n` episodes, with its 95 % Wilson interval."""

    n: int
    success: float
    interval: Interval


@dataclasses.dataclass(frozen=True)
class Tradeoff:
    """One method with what adapting changed multiplied by `scale`: its success on new tasks and on earlier ones."""

    method: str
    distribution: str
    shots: int
    steps: int
    scale: float  # 1: the adapted policy; 0: the frozen base
    new: Rate
    earlier: Rate
    base: float | None  # success of the frozen base in the same earlier episodes; None where it did not run them all

    @property
    def kept(self) -> float | None:
        """Success on earlier tasks as a share of the base's; None where the base solves nothing, or is unknown."""
        return self.earlier.success / self.base if self.base else None


@dataclasses.dataclass(frozen=True)
class Gate:
    """Earlier tasks with the adapter for its own instruction alone: the base must act there, to the last bit."""

    method: str
    distribution: str
    shots: int
    steps: int
    n: int
    equal: int  # episodes in which the commands, and all that came of them, are those of the base from the same start
    absent: int  # episodes from a start where the base alone did not run

    @property
    def exact(self) -> bool:
        """Whether every episode is the base's."""
        return self.equal == self.n


@dataclasses.dataclass(frozen=True)
class Frontier:
    """Empty where nothing was scaled or gated."""

    rows: tuple[Tradeoff, ...] = ()  # the frozen base's first, of each distribution
    gates: tuple[Gate, ...] = ()


def frontier(new: Sequence[Episode], earlier: Sequence[Episode], gated: Sequence[Episode], order: Order) -> Frontier:
    """A row for each method, shots, steps and scale that has episodes of both kinds.

    Args:
      new: episodes on the tasks that were adapted to, scaled ones included.
      earlier: episodes on earlier tasks, of policies whose change may be scaled, and of the base (adapter off).
      gated: episodes on earlier tasks with the adapter for its own instruction alone.
      order: sorts methods.
    """
    if not gated and all(e.scale is None for e in (*new, *earlier)):
        return Frontier()
    off = [e for e in earlier if not e.adapter_on]
    rows = []
    for scale in sorted({e.scale for e in earlier}, key=lambda s: 1.0 if s is None else s):
        here = [e for e in earlier if e.scale == scale and e.adapter_on]
        solved = grouped((e for e in new if e.scale == scale), lambda e: (e.method, e.distribution, e.shots, e.steps))
        for row in retention([*here, *off], order):
            key = (row.method, row.distribution, row.shots, row.steps)
            if key in solved:
                found = _rate(solved[key]), Rate(row.n, row.on, row.on_interval)
                rows.append(Tradeoff(*key, 1.0 if scale is None else scale, *found, row.off))
    rows.sort(key=lambda r: (r.distribution, r.shots, r.steps, order(r.method), r.scale))
    return Frontier((*_base(new, off), *rows), _gates(gated, off, order))


def _base(new: Sequence[Episode], off: Sequence[Episode]) -> list[Tradeoff]:
    """The frozen base itself."""
    rows = []
    alone = grouped((e for e in new if e.shots == 0), lambda e: (e.method, e.distribution))
    for (method, distribution), own in alone.items():
        if old := list({_start(e): e for e in off if (e.method, e.distribution) == (method, distribution)}.values()):
            found = _rate(old)
            rows.append(Tradeoff(method, distribution, 0, 0, 0.0, _rate(own), found, found.success))
    return rows


def _gates(gated: Sequence[Episode], off: Sequence[Episode], order: Order) -> tuple[Gate, ...]:
    base = {_start(e): _outcome(e) for e in off}
    gates = []
    groups = grouped(gated, lambda e: (e.method, e.distribution, e.shots, e.steps))
    for (method, distribution, shots, steps), group in groups.items():
        told = [e for e in group if e.error is None and e.commands is not None]  # else nothing is known of what it did
        equal = sum(base.get(_start(e)) == _outcome(e) for e in told)
        absent = sum(_start(e) not in base for e in group)
        gates.append(Gate(method, distribution, shots, steps, len(group), equal, absent))
    return tuple(sorted(gates, key=lambda g: (g.distribution, g.shots, g.steps, order(g.method))))


def _start(e: Episode) -> tuple:
    """With the base in control nothing but this decides."""
    return (e.distribution, e.task, canonical(e.condition), e.episode_seed)


def _outcome(e: Episode) -> tuple:
    return (e.commands, e.success, e.length, e.episode_return)


def _rate(episodes: Sequence[Episode]) -> Rate:
    solved = sum(e.success for e in episodes)
    return Rate(len(episodes), solved / len(episodes), statistics.wilson(solved, len(episodes)))
