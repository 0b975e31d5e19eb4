"""The few-shot protocol: cells, their support sets, and adaptation to them.

Everything that is compared is paired: all arms see the same support minibatches and flow noise, start their episodes
from the same simulator seeds, and get their optimiser and rate by the same `search` on validation cells.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from metalora_jax.data.frames import Frames, Relabel
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import World, played, robot
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice, Snapshots
from metalora_jax.fields import from_fields
from metalora_jax.policies.policy import Stage
from metalora_jax.training.meta_train import relabel_of
from metalora_jax.training.task_batches import Replay, behind, fill, query_rows, support_rows
from metalora_jax.types import Batch, PyTree

Item = TypeVar("Item")
Result = TypeVar("Result")

_JUDGED = 48  # at most this many frames of held-out demonstrations to judge a rate by


class Protocol(NamedTuple):
    """Settings shared by all arms."""

    distribution: str  # "conditions" or "tasks"
    steps: tuple[int, ...]  # step counts on the curves, ascending, 0 included
    shots: tuple[int, ...]  # support demonstrations; the first is the headline, with all of `steps`
    shots_steps: tuple[int, ...]  # step counts at which the other `shots` are evaluated
    demonstration_draws: int  # cells for each task: each has its own condition and support demonstrations
    episodes: int  # closed-loop episodes for each cell and step count
    retention_steps: int  # step count at which retention is measured; 0 disables it
    frames: int  # frames in a support minibatch
    noise_draws: int  # samples of (t, noise) per frame
    max_norm: float | None  # clip of inner gradients, for arms not meta-trained with their own
    short: int  # rates are searched separately for up to this many steps, and for more
    search_episodes: int = 0  # of each validation cell and step count, by whose success rates are chosen; 0: by loss
    search_widenings: int = 0  # points at most that are added to a grid of rates whose best point lies at its edge
    retention_tasks: tuple[str, ...] = ()  # earlier tasks to test new adapters on, each cell's policy on the next ones
    retention_per_cell: int = 1  # how many of them each policy is tested on; cells share them out evenly
    # What adapting changes is multiplied by each of these, in (0, 1), and the policies are tested on their own task and
    # on earlier ones: see `adapters.scaled`. The whole change is tested in any case.
    retention_scales: tuple[float, ...] = ()
    retention_gated: bool = False  # each policy runs an earlier task with its adapter for its own instruction alone
    instruction_steps: int = 0  # step count at which policies get another task's instruction; 0 disables it
    altered: tuple[str, ...] = ()  # inputs that are replaced to see what the policy uses, see `evaluation.alterations`
    altered_steps: int = 0  # step count at which they are, for report.reference with its first seed; 0 disables it
    first_episode: int = 0  # number of a cell's first episode (`World.episode_start`): LIBERO's initial-state index
    replay_frames: int = 0  # frames of the section `replay`, earlier tasks, in a support minibatch besides `frames`
    held_out: tuple[str, ...] = ()  # facts that tasks of two splits may not share (see `World.facts`), besides the text

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Protocol":
        """Reads the section `protocol`; see `fields.from_fields`."""
        return from_fields(cls, fields, "protocol")


class Cell(NamedTuple):
    """One adaptation problem."""

    split: str
    task: str  # of its demonstrations; the robot that they were recorded on may follow an `@`
    condition: Condition | None  # that its episodes run under
    shots: int
    draw: int
    demos: tuple[int, ...]  # support
    query: tuple[int, ...]  # other demonstrations, for the search's loss
    recorded: bool = False  # under the condition; else what was recorded without one is relabelled

    @property
    def plays(self) -> str:
        """The world's task."""
        return played(self.task)

    @property
    def relabel(self) -> Relabel | None:
        """How recorded actions become the condition's commands; None: they are."""
        return None if self.recorded else relabel_of(self.condition)


class Replayed(NamedTuple):
    """Earlier tasks that must not be forgotten: every arm adapts on their frames, too."""

    draw: Mapping[Stage, Replay]
    digest: str  # of the demonstrations, see `data.content`


class DataSet(NamedTuple):
    """Demonstrations of one split, with the frozen front computed: for every arm up to its first adapted stage."""

    frames: Frames
    frozen_outputs: Mapping[Stage, PyTree]
    cells: dict[int, list[Cell]]  # shots -> cells
    digest: str  # of the demonstrations, see `data.content`
    replay: Replayed | None = None


def cells(
    protocol: Protocol,
    split: str,
    demos: Mapping[str, int],
    conditions: ConditionRange | None,
    shots: int,
    seed: int,
    recorded: Mapping[str, Condition] | None = None,
) -> list[Cell]:
    """The cells of a split: pure in seed, and the same condition for every number of shots.

    Args:
      protocol: of the comparison.
      split: "validation" or "test".
      demos: of each task.
      conditions: to draw each cell's from.
      shots: demonstrations to adapt to.
      seed: of conditions and demonstrations.
      recorded: in place of `conditions`, the one that each task's demonstrations were recorded under.

    Raises:
      ValueError: if there are more shots than demonstrations.
    """
    made = []
    for number, (task, count) in enumerate(sorted(demos.items())):
        if shots >= count:
            raise ValueError(f"{task} has {count} demonstrations: {shots} shots leave none for validation; record more")
        for draw in range(protocol.demonstration_draws):
            rng = np.random.default_rng([seed, number, draw])
            order = rng.permutation(count).tolist()
            condition = None if conditions is None else conditions.sample(rng, split)
            cell = Cell(split, task, condition, shots, draw, tuple(order[:shots]), tuple(order[shots:]))
            made.append(cell if recorded is None else cell._replace(condition=recorded[task], recorded=True))
    return made


def starts(cell: Cell, task: str, draw: int, count: int, protocol: Protocol, where: World) -> list[int]:
    """Where `count` episodes of a cell begin: each robot's elsewhere, so that robots do not share a task's few scenes.

    Args:
      cell: whose they are.
      task: that is played.
      draw: of starts, see `World.episode_start`.
      count: episodes.
      protocol: of the comparison.
      where: the world.
    """
    first = protocol.first_episode + count * robot(cell.task)
    return [where.episode_start(task, draw, number) for number in range(first, first + count)]


def support(cell: Cell, data: DataSet, stage: Stage, steps: int, protocol: Protocol) -> Batch:
    """The minibatches that all arms adapt on, from `stage` on: leaves (steps, frames, ...); step j is the same for all.

    If earlier tasks are replayed, their frames follow those of the cell.
    """
    seed = [cell.draw, cell.shots, *cell.demos]
    rng = np.random.default_rng(seed)
    own = fill(
        support_rows(data.frames, cell.task, cell.demos, cell.relabel, steps, protocol.frames, rng),
        data.frozen_outputs[stage],
    )
    if data.replay is None:
        return own
    others = data.replay.draw[stage](np.random.default_rng([*seed, 1]), (steps, protocol.replay_frames))
    return behind(own, others, axis=1)


def query(cell: Cell, number: int, data: DataSet, stage: Stage) -> Batch:
    """The frames for a search: other demonstrations of the cell's task, and as many replayed frames."""
    rng = np.random.default_rng(number)
    size = min(_JUDGED, sum(len(data.frames.moments[cell.task][i]) for i in cell.query))
    own = fill(query_rows(data.frames, cell.task, cell.query, cell.relabel, size, rng), data.frozen_outputs[stage])
    return own if data.replay is None else behind(own, data.replay.draw[stage](rng, (size,)), axis=0)


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item, in order, as many at a time as there are cores: XLA hardly splits small programs."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(function, items)


def budgets(protocol: Protocol) -> dict[str, tuple[int, ...]]:
    """Step counts (above 0) that share one choice of optimiser and rate."""
    short = tuple(s for s in protocol.steps if 0 < s <= protocol.short)
    long = tuple(s for s in protocol.steps if s > protocol.short)
    return {name: steps for name, steps in (("short", short), ("long", long)) if steps}


def adapted_at(
    arm: Arm,
    adapt: Adaptation,
    choices: Mapping[str, Choice],
    cell: Cell,
    data: DataSet,
    protocol: Protocol,
    wanted: Sequence[int],
) -> Iterator[tuple[int, PyTree, float, float | None]]:
    """(steps, theta, seconds, support loss) for each requested step count."""
    if 0 in wanted:
        yield 0, jax.tree.map(np.asarray, arm.meta_params["theta"]), 0.0, None
    for budget, steps in budgets(protocol).items():
        if not set(steps) & set(wanted):
            continue
        batch = support(cell, data, arm.learner.stage, max(steps), protocol)
        result: Snapshots = adapt(arm, choices[budget], batch, cell.draw, steps)
        for step in steps:
            if step in wanted:
                yield step, result.thetas[step], result.seconds[step], float(result.losses[step - 1])
