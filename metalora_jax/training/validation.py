"""Held-out demonstrations, looked at while adapting or meta-training: action error and loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.adaptation.learner import Learner
from metalora_jax.adaptation.prediction import predict, recorded
from metalora_jax.data import sources
from metalora_jax.data.action_errors import errors
from metalora_jax.data.config import DataConfig, read_demos
from metalora_jax.data.frames import Relabel, gather, rows_and_labels
from metalora_jax.data.sources.held_out import held_out
from metalora_jax.fields import check_positive, from_fields
from metalora_jax.meta import MetaMethod
from metalora_jax.policies.policy import Stage
from metalora_jax.training.task_batches import fill, support_rows
from metalora_jax.types import ActionChunk, Batch, Demo, PyTree

FEW, MANY = 8, 32  # frames of each held-out demonstration that are looked at; few if a frame takes the base seconds
FEW_SAMPLES, SAMPLES = 0, 2  # draws of noise, likewise; none: zero noise alone


class Validated(NamedTuple):
    """How a policy does on held-out demonstrations, from a few frames of each."""

    step: int  # gradient steps before it
    error: float  # mean over joints of the action error in standard deviations of the base's data, which decides
    error_in_units: float  # mean over joints of the action error, in the robot's own units
    loss: float  # flow matching

    def metrics(self) -> dict[str, float]:
        """For `metrics.jsonl` and dashboards."""
        return {f"validation_{name}": value for name, value in self._asdict().items() if name != "step"}


class Validation(NamedTuple):
    """The section `validation` of a recipe: what is kept out of meta-training, and looked at as it goes on."""

    every: int  # outer steps between two looks
    tasks: Sequence[str] = ()  # held-out tasks of data.directory, by name or instruction
    episodes: Sequence[int | str] = ()  # held-out episodes of data.tasks, see `held_out.held_out`: ("last:2",)
    demos: int = 2  # demonstrations of each held-out task that are looked at, besides batch.shots to adapt to

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Validation":
        """Reads the section; see `fields.from_fields`. Raises ValueError if it holds nothing out."""
        self = from_fields(cls, fields, "validation")
        check_positive(self, "validation", ("every", "demos"))
        if not self.tasks and not self.episodes:
            raise ValueError("validation holds nothing out: name validation.tasks, or validation.episodes=('last:2',)")
        return self


class Cell(NamedTuple):
    """One task to adapt to, and what is looked at afterwards."""

    support: Sequence[Demo]
    query: Sequence[Demo]  # never learned from


def learned(data: DataConfig, validation: Validation | None) -> DataConfig:
    """What is left of `data` to learn from.

    Raises:
      DemoError: see `held_out.held_out`.
    """
    names = _names(data, validation)
    return data.holding_out(names) if names else data


def cells(data: DataConfig, validation: Validation, shots: int) -> dict[str, Cell]:
    """Task -> its demonstrations: those of held-out tasks, and the held-out ones of the tasks that are learned.

    Raises:
      DemoError: there are too few, or see `held_out.held_out`.
    """
    made = {}
    if validation.tasks:
        read = sources.read(data.open(), validation.tasks, shots + validation.demos)
        made = {task: Cell(demos[:shots], demos[shots:]) for task, demos in read.items()}
    if names := _names(data, validation):
        unseen = data._replace(episodes=names, drop=()).open()
        there = [task for task in data.tasks if unseen.listing(unseen.find(task))]
        query = sources.read(unseen, there)
        support = read_demos(learned(data, validation)._replace(tasks=there, demos=shots, digest="", others={}))
        made |= {task: Cell(support[task], query[task]) for task in there}
    return made


def _names(data: DataConfig, validation: Validation | None) -> tuple[int | str, ...]:
    if validation is None or not validation.episodes:
        return ()
    return held_out(data._replace(cameras=(), keys=_without_cameras(data)).open(), data.tasks, validation.episodes)


def _without_cameras(data: DataConfig) -> dict[str, str]:
    return {name: feature for name, feature in (data.keys or {}).items() if name not in data.cameras}


class Task(NamedTuple):
    """A cell behind the frozen front, whose rows are those of `Look`."""

    support: Batch  # leaves (inner steps, frames, ...)
    rows: np.ndarray  # (n,) of the query's frames
    target: ActionChunk  # (n, chunk, ...)
    states: np.ndarray  # (n, state_dim) in the robot's own units


class Look:
    """Looks at cells: adapts to each, and measures the adapted policy on what it has not seen."""

    def __init__(
        self,
        base: Base,
        made: Mapping[str, Cell],
        stage: Stage,
        *,
        steps: int,
        frames: int,
        seed: int,
        each: int | None = None,
        relabel: Callable[[np.random.Generator], Relabel | None] = lambda _: None,
    ):
        """Computes the frozen front of all frames.

        Args:
          base: the frozen policy.
          made: the cells.
          stage: where its frozen front ends.
          steps, frames: inner steps, and frames in the minibatch of each.
          seed: of minibatches and conditions.
          each: frames of each demonstration that is adapted to, spread evenly; None: all.
          relabel: draws the hidden condition of a cell.
        """
        support = gather({task: cell.support for task, cell in made.items()}, base.preprocessor, each=each)
        most = FEW if base.large else MANY
        query = recorded({task: cell.query for task, cell in made.items()}, base.preprocessor, most=most)
        known, self._unseen = frozen_outputs(base, [support, query.frames], stage)
        self._base, self._tasks = base, list[Task]()
        self._adapt: Callable[..., PyTree] | None = None
        for number, (task, cell) in enumerate(made.items()):
            rng = np.random.default_rng([seed, number])
            labels = relabel(rng)
            rows, target = rows_and_labels(query.frames, task, range(len(cell.query)), labels)
            drawn = support_rows(support, task, range(len(cell.support)), labels, steps, frames, rng)
            self._tasks.append(Task(fill(drawn, known), rows, target, query.frames.states(rows)))

    def __call__(self, step: int, start: Learner, method: Callable[[Learner], MetaMethod], params: PyTree) -> Validated:
        """Means over the cells, after adapting from the meta-parameters `params` of step `step`."""
        if self._adapt is None:
            self._adapt = jax.jit(lambda start, params, support, key: method(start).adapt(params, support, key).theta)
        each = []
        for number, task in enumerate(self._tasks):
            adapted = start.replace(theta=self._adapt(start, params, task.support, jax.random.key(number)))
            seen = self._unseen, task.target, task.states
            each.append(validated(self._base, adapted, *seen, step, task.rows))
        return Validated(step, *(float(np.mean(values)) for values in list(zip(*each, strict=True))[1:]))


def validated(
    base: Base,
    adapted: Learner,
    frozen: PyTree,
    target: ActionChunk,
    states: np.ndarray,
    step: int,
    rows: np.ndarray | None = None,
) -> Validated:
    """How `adapted` does on held-out frames, after `step` gradient steps; every call draws the same noise.

    Frames count alike, whichever demonstration they are of. See `prediction.predict` for the arguments.
    """
    samples = FEW_SAMPLES if base.large else SAMPLES
    prediction = predict(base, adapted, frozen, target, states, rows=rows, samples=samples)
    one = np.zeros(len(target.actions), int)
    actions = base.preprocessor.commands(np.asarray(target.actions), states)
    found = errors(prediction.samples, prediction.quiet, actions, np.asarray(target.is_pad), one)
    assert prediction.loss is not None
    scaled = found.scaled(base.statistics.of_commands().action_std)
    return Validated(step, float(scaled.mean()), float(found.error.mean()), float(prediction.loss.mean()))
