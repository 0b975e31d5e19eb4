"""The search for inner rates: what each arm adapts with, chosen on validation cells alone.

With `protocol.search_episodes` a choice is judged by closed-loop success, in episodes that no test cell starts, and by
its loss where two succeed alike; else by the loss alone. A grid whose best point is its smallest or largest is widened
by one step beyond it, until the best lies inside or `protocol.search_widenings` points were added. Nothing done is no
success: a rate that does not move the adapters is neither driven nor chosen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from metalora_jax.adaptation.identification import YAW
from metalora_jax.adaptation.learner import Learner, loss_fn
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import World
from metalora_jax.evaluation.protocol import few_shot, identified
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice, candidates
from metalora_jax.evaluation.protocol.few_shot import Cell, DataSet, Protocol, side_by_side
from metalora_jax.evaluation.protocol.identified import RIDGE, Identifier
from metalora_jax.evaluation.rollout import Job, Outcome, Rollout
from metalora_jax.machine import files
from metalora_jax.machine.progress import progress
from metalora_jax.training.adapt import moved
from metalora_jax.types import Batch, PyTree
from metalora_jax.words import listed

FIRST_DRAW = 50  # draws of starts from here on are those of validation
LONE = 10**0.5  # how far the neighbours of a grid's only point lie
_MEMORY = 2e9  # [bytes] of adapted parameters kept in memory for their episodes

AnyArm = Arm | Identifier
RunJobs = Callable[[Sequence[Job]], Iterator[Outcome]]


class Tried(NamedTuple):
    """One choice, judged on all validation cells after every number of steps that shares it."""

    optimizer: str
    learning_rate: float
    loss: float | None  # mean on held-out demonstrations; None: it diverged
    success: float | None = None  # in closed loop; None where it was not run
    episodes: int = 0
    moves: bool = True  # False: the adapters stay where they are

    @property
    def choice(self) -> Choice:
        """What was judged."""
        return Choice(self.optimizer, self.learning_rate)

    @property
    def still(self) -> bool:
        """It neither moves the adapters nor diverges."""
        return self.loss is not None and not self.moves


Record = dict[str, dict[str, list[Tried]]]  # arm -> budget -> what was tried, as it was


class Search(NamedTuple):
    """What choices are judged with."""

    adapt: Adaptation
    options: Mapping[str, Sequence[float]]  # the section `search` of a config
    validation: DataSet
    protocol: Protocol
    where: World | None = None  # where episodes start, and what runs them; None: the loss alone decides
    run: RunJobs | None = None


class _Todo(NamedTuple):
    arm: AnyArm
    budget: str
    steps: tuple[int, ...]
    choice: Choice


class _OnCell(NamedTuple):
    """One choice on one validation cell."""

    loss: float
    moves: bool
    jobs: list[Job]


def search(arms: Sequence[AnyArm], how: Search, known: Record, keep: Callable[[Record], None]) -> Record:
    """What was tried for every arm; nothing in `known` is tried again, and `keep` gets the record whenever it grows.

    Raises:
      ValueError: every choice of an arm diverges, or none moves its adapters.
    """
    record: Record = {name: {budget: list(tried) for budget, tried in of.items()} for name, of in known.items()}
    while todo := [each for arm in arms for each in _wanted(arm, how, record.get(arm.name, {}))]:
        for batch in _batches(todo, how):
            for each, tried in zip(batch, _judged(batch, how), strict=True):
                record.setdefault(each.arm.name, {}).setdefault(each.budget, []).append(tried)
                if tried.still:
                    logging.warning("%s: the adapters do not move at %s: not chosen", each.arm.name, _named(tried))
            keep(record)
    return record


def best(tried: Sequence[Tried], name: str) -> Tried:
    """The one with the most success, and of those the one with the least loss.

    Raises:
      ValueError: all diverge, or none moves the adapters; `name` is the arm's.
    """
    finite = [each for each in tried if each.loss is not None]
    if not finite:
        raise ValueError(f"every inner rate diverges for {name}: {[each.choice for each in tried]}; search lower rates")
    moving = [each for each in finite if each.moves]
    if not moving:
        rates = listed([_named(each) for each in finite])
        raise ValueError(
            f"no inner rate moves the adapters of {name} ({rates}), so that nothing would be compared; search higher "
            "rates, or adapt maps that the loss depends on"
        )
    return min(moving, key=lambda each: (-(each.success or 0.0), each.loss))


def _named(tried: Tried) -> str:
    return f"{tried.optimizer} {tried.learning_rate:g}"


def chosen(record: Record, name: str) -> dict[str, Choice]:
    """The choice of an arm for each budget."""
    return {budget: best(tried, name).choice for budget, tried in record.get(name, {}).items()}


def read(file: Path) -> Record:
    """What an earlier search has written; empty where there is none."""
    known = files.read_json(file) if file.exists() else {}
    return {name: {b: [Tried(**each) for each in tried] for b, tried in of.items()} for name, of in known.items()}


def write(file: Path, record: Record) -> None:
    """The inverse of `read`."""
    files.write_json(
        file, {name: {b: [each._asdict() for each in tried] for b, tried in of.items()} for name, of in record.items()}
    )


def check_starts(validation: Sequence[Cell], test: Sequence[Cell], protocol: Protocol, where: World) -> None:
    """Checks that no episode that rates are chosen by starts as one of the test does.

    Raises:
      ValueError: if one does, where a world has few starts.
    """
    tested = {
        (cell.plays, start) for cell in test for start in _starts(cell, cell.draw, protocol.episodes, protocol, where)
    }
    for cell in validation:
        for start in _starts(cell, FIRST_DRAW + cell.draw, protocol.search_episodes, protocol, where):
            if (cell.plays, start) in tested:
                raise ValueError(
                    f"validation and test would both start episode {start} of {cell.task}: choose other validation "
                    "tasks, or set protocol.search_episodes to 0"
                )


def _starts(cell: Cell, draw: int, count: int, protocol: Protocol, where: World) -> list[int]:
    return few_shot.starts(cell, cell.plays, draw, count, protocol, where)


def _wanted(arm: AnyArm, how: Search, known: Mapping[str, Sequence[Tried]]) -> Iterator[_Todo]:
    """What is to be judged next: the grid, then one step beyond its edge at a time."""
    budgets: dict[str, tuple[int, ...]]
    if isinstance(arm, Identifier):
        budgets = {} if arm.kind == YAW else {identified.NO_STEPS: (0,)}
        grid = [Choice(RIDGE, float(ridge)) for ridge in how.options.get(RIDGE, ())]
    else:
        budgets, grid = few_shot.budgets(how.protocol), candidates(arm, how.options)
    for budget, steps in budgets.items():
        tried = list(known.get(budget, ()))
        there = {each.choice for each in tried}
        left = [choice for choice in grid if choice not in there]
        if not left and (more := how.protocol.search_widenings - (len(there) - len(grid))) > 0:
            left = beyond(best(tried, arm.name), tried)[:more]
        yield from (_Todo(arm, budget, steps, choice) for choice in left)


def beyond(top: Tried, tried: Sequence[Tried]) -> list[Choice]:
    """Where to look next if the best lies at an edge: as far from it as its neighbour; [] if it lies inside."""
    rates = sorted(each.learning_rate for each in tried if each.optimizer == top.optimizer)
    made = []
    if top.learning_rate == rates[0]:
        made.append(rates[0] / (rates[1] / rates[0] if len(rates) > 1 else LONE))
    if top.learning_rate == rates[-1]:
        made.append(rates[-1] * (rates[-1] / rates[-2] if len(rates) > 1 else LONE))
    return [Choice(top.optimizer, float(f"{rate:.3g}")) for rate in made]


def _batches(todo: Sequence[_Todo], how: Search) -> Iterator[list[_Todo]]:
    """As many at a time as fit the memory."""
    batch: list[_Todo] = []
    size = 0
    for each in todo:
        theta = each.arm.learner.theta
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(theta)) * len(each.steps) * len(_cells(how))
        if batch and size + needed > _MEMORY:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += needed
    if batch:
        yield batch


def _cells(how: Search) -> Sequence[Cell]:
    return how.validation.cells[how.protocol.shots[0]]


def _judged(batch: Sequence[_Todo], how: Search) -> list[Tried]:
    """Each of `batch`, on all validation cells: adapted side by side, then driven together."""
    pairs = [(i, each, number, cell) for i, each in enumerate(batch) for number, cell in enumerate(_cells(how))]

    def adapted(pair: tuple[int, _Todo, int, Cell]) -> _OnCell:
        i, each, number, cell = pair
        if isinstance(each.arm, Identifier):
            return _mapped(i, each, each.arm, cell, how)
        return _stepped(i, each, each.arm, number, cell, how)

    found: list[list[_OnCell]] = [[] for _ in batch]
    results = side_by_side(adapted, pairs)
    for (i, *_), result in zip(
        pairs, progress(results, description="search of inner rates, cells", total=len(pairs)), strict=True
    ):
        found[i].append(result)
    means = [float(np.mean([on.loss for on in each])) for each in found]
    moves = [any(on.moves for on in each) for each in found]
    sane = [i for i, loss in enumerate(means) if np.isfinite(loss)]
    outcomes = _driven([job for i in sane if moves[i] for on in found[i] for job in on.jobs], how)
    return [
        Tried(
            *each.choice,
            loss=means[i] if i in sane else None,
            success=None if how.run is None else float(np.mean(outcomes.get(i, [False]))),
            episodes=len(outcomes.get(i, ())),
            moves=moves[i] or i not in sane,
        )
        for i, each in enumerate(batch)
    ]


def _driven(jobs: Sequence[Job], how: Search) -> dict[Any, list[bool]]:
    """Success of the episodes, by the key of their rollouts; none where the loss alone decides."""
    results: dict[Any, list[bool]] = {}
    if how.run is None or not jobs:
        return results
    total = sum(len(job.rollouts) for job in jobs)
    for outcome in progress(how.run(jobs), description="search of inner rates, episodes", total=total):
        results.setdefault(outcome.key, []).append(outcome.success)
    return results


def _rollouts(i: int, cell: Cell, how: Search) -> tuple[Rollout, ...]:
    if how.where is None:
        return ()
    starts = _starts(cell, FIRST_DRAW + cell.draw, how.protocol.search_episodes, how.protocol, how.where)
    return tuple(Rollout(i, cell.condition or Condition(), start) for start in starts)


def _mapped(i: int, each: _Todo, arm: Identifier, cell: Cell, how: Search) -> _OnCell:
    found = identified.fit(arm, {each.budget: each.choice}, cell, how.validation)
    loss = identified.error(arm, found.action_map, cell, how.validation)
    rollouts = _rollouts(i, cell, how)
    jobs = [Job(cell.plays, arm.placement, None, rollouts, action_map=found.action_map)] if rollouts else []
    return _OnCell(loss, True, jobs)


def _stepped(i: int, each: _Todo, arm: Arm, number: int, cell: Cell, how: Search) -> _OnCell:
    """If earlier tasks are replayed, their loss counts as much as that of the new one."""
    data, steps = how.validation, each.steps
    batch = few_shot.support(cell, data, arm.learner.stage, max(steps), how.protocol)
    thetas = how.adapt(arm, each.choice, batch, number, steps).thetas
    query = few_shot.query(cell, number, data, arm.learner.stage)
    loss = float(np.mean([_judged_loss(arm.learner, thetas[step], query) for step in steps]))
    rollouts = _rollouts(i, cell, how)
    jobs = [Job(cell.plays, arm.placement, thetas[step], rollouts) for step in steps] if rollouts else []
    return _OnCell(loss, moved(arm.meta_params["theta"], thetas[max(steps)]), jobs)


@jax.jit
def _judged_loss(start: Learner, theta: PyTree, batch: Batch) -> jax.Array:
    return loss_fn(start, draws=8)(theta, batch, jax.random.key(1))
