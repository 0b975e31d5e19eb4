"""Arms that take no gradient step: a map of the base's commands, or a calibration, is fitted to the demonstrations.

Everything else is as for the other arms: the same demonstrations, all of their frames, and the same starts. The base
is not adapted, and acts through the map (see `adaptation.identification`). Such an arm has no random start: it runs
with one meta-seed, and its one result is a level that curves over gradient steps are held against.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from metalora_jax.adaptation import calibration, identification
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.identification import CALIBRATION, LINEAR, YAW, ActionMap, Calibration
from metalora_jax.adaptation.learner import Learner, learner
from metalora_jax.adaptation.prediction import BATCH, Prediction, predict
from metalora_jax.adapters import Placement
from metalora_jax.data.frames import rows_and_labels
from metalora_jax.envs.world import World
from metalora_jax.evaluation.protocol.arms import Choice
from metalora_jax.evaluation.protocol.few_shot import Cell, DataSet
from metalora_jax.trees import index
from metalora_jax.types import ActionChunk, Demo

RIDGE = "ridge"  # what `search` calls the strengths of regularisation to choose from
NO_STEPS = "no_steps"  # the budget of such an arm, where others have one for few steps and one for many
FEW_VALUES = 3  # open, closed, and neither
SAMPLES = 4  # draws of noise; their mean is what the base would command


class Identifier(NamedTuple):
    """One such arm."""

    name: str
    kind: str  # one of `identification.KINDS`
    meta_seed: int  # the comparison's first
    base: Base
    learner: Learner  # the base as it is
    moved: tuple[int, ...]  # dimensions of a command that `linear` maps
    predicted: dict[Any, tuple[np.ndarray, float]]  # chunks and seconds by demonstrations: no condition changes them
    placement: Placement = ()
    data: str | None = ""  # nothing is learned before the demonstrations are seen

    @property
    def fingerprint(self) -> str:
        """What stands for a start in the run's provenance."""
        return f"identified {self.kind}"


class Fitted(NamedTuple):
    """What comes of a cell's demonstrations."""

    action_map: ActionMap
    seconds: float  # wall clock, without compilation [s]
    loss: float  # squared error on the demonstrations, in squares of the base's standard deviations


def make(name: str, kind: str, base: Base, meta_seed: int, moved: Sequence[int]) -> Identifier:
    """The arm `name`; see `moved_dimensions`, and `check_base` for the ValueError."""
    check_base(kind, name, base)
    plain = learner(base, (), jax.random.key(0))
    if kind == CALIBRATION:  # its context depends on the readings, which are moved
        plain = plain.replace(stage="features")
    return Identifier(name, kind, meta_seed, base, plain, tuple(moved), {})


def moved_dimensions(where: World) -> tuple[int, ...]:
    """What of a command is continuous: all joints; of displacements, all but the gripper, the last."""
    return tuple(range(where.action_dim if where.joints else where.action_dim - 1))


def continuous(demos: Sequence[Demo]) -> tuple[int, ...]:
    """The same where only demonstrations are known: all but a gripper, the last, that is told few values."""
    width = demos[0].actions.shape[1]
    told = np.unique(np.concatenate([demo.actions[:, -1] for demo in demos]))
    return tuple(range(width if len(told) > FEW_VALUES else width - 1))


def check_kind(kind: str, name: str, where: World) -> None:
    """Refuses to look for a turn of the hand's axes where commands have none, or for joints where there are none.

    Raises:
      ValueError: the message names the arm.
    """
    if kind == YAW and where.joints:
        raise ValueError(
            f"arms.{name}: joint targets are not turned by a yaw; leave the arm out, or identify {LINEAR!r}"
        )
    if kind == CALIBRATION and not where.joints:
        raise ValueError(
            f"arms.{name}: commands are not joint positions, which alone have a calibration; leave the arm out, or "
            f"identify {LINEAR!r}"
        )


def check_base(kind: str, name: str, base: Base) -> None:
    """Refuses a calibration where readings are not as many as commands.

    Raises:
      ValueError: the message names the arm.
    """
    read, commanded = len(base.statistics.state_mean), len(base.statistics.action_mean)
    if kind == CALIBRATION and read != commanded:
        raise ValueError(
            f"arms.{name}: the base reads {read} numbers and commands {commanded}: without a reading for each "
            f"commanded joint there is no calibration; leave the arm out, or identify {LINEAR!r}"
        )


def fit(arm: Identifier, choices: Mapping[str, Choice], cell: Cell, data: DataSet) -> Fitted:
    """Fits the arm's map to the support demonstrations of a cell.

    Args:
      arm: which.
      choices: for `linear`, the one strength of regularisation, see `identification.fit_linear`.
      cell: whose demonstrations, under whose condition.
      data: the cell's split.

    Raises:
      ValueError: they do not determine the map; the message names the task and the demonstrations.
    """
    rows, target = rows_and_labels(data.frames, cell.task, cell.demos, cell.relabel)
    seconds, statistics = 0.0, arm.base.statistics.of_commands()

    def ask(reading: Calibration) -> np.ndarray:
        return commanded(arm, rows, target, data, reading, samples=0)

    if arm.kind == CALIBRATION:
        width = len(statistics.state_mean)
        for samples in (0, SAMPLES):
            unchanged = Calibration(np.ones(width), np.zeros(width))
            commanded(arm, *_first(rows, target), data, unchanged, samples)  # compiles
    else:
        predicted, seconds = _predicted(arm, cell, rows, target, data)
    began = time.perf_counter()
    states = data.frames.states(rows)
    told = arm.base.preprocessor.commands(np.asarray(target.actions), states), np.asarray(target.is_pad)
    mean, std = np.asarray(statistics.action_mean), np.asarray(statistics.action_std)
    try:
        if arm.kind == YAW:
            found = identification.fit_yaw(predicted, *told)
        elif arm.kind == CALIBRATION:
            [ridge] = [choice.learning_rate for choice in choices.values()]
            found = calibration.fit_calibration(ask, *told, ridge=ridge, mean=mean, std=std, moved=arm.moved)
            predicted = commanded(arm, rows, target, data, found.reading)
        else:
            [ridge] = [choice.learning_rate for choice in choices.values()]
            found = identification.fit_linear(predicted, *told, ridge=ridge, mean=mean, std=std, moved=arm.moved)
    except ValueError as error:
        raise ValueError(f"{arm.name} on demonstrations {cell.demos} of {cell.task}: {error}") from None
    seconds += time.perf_counter() - began
    return Fitted(found, seconds, identification.residual(found, predicted, *told, std))


def error(arm: Identifier, fitted: ActionMap, cell: Cell, data: DataSet) -> float:
    """As `Fitted.loss`, on the demonstrations of the cell that the map was not fitted to."""
    rows, target = rows_and_labels(data.frames, cell.task, cell.query, cell.relabel)
    if fitted.reading is not None:
        predicted = commanded(arm, rows, target, data, fitted.reading)
    else:
        predicted, _ = _predicted(arm, cell._replace(demos=cell.query), rows, target, data)
    demonstrated = arm.base.preprocessor.commands(np.asarray(target.actions), data.frames.states(rows))
    std = np.asarray(arm.base.statistics.of_commands().action_std)
    return identification.residual(fitted, predicted, demonstrated, np.asarray(target.is_pad), std)


def commanded(
    arm: Identifier,
    rows: np.ndarray,
    target: ActionChunk,
    data: DataSet,
    reading: Calibration | None = None,
    samples: int = SAMPLES,
) -> np.ndarray:
    """What the base commands on average on N frames of a split, (N, chunk, D), readings going through `reading`."""
    return shifted(arm, rows, target, data, reading, samples).samples.mean(axis=0)


def shifted(
    arm: Identifier,
    rows: np.ndarray,
    target: ActionChunk,
    data: DataSet,
    reading: Calibration | None,
    samples: int,
    seed: int = 0,
) -> Prediction:
    """As `commanded`, every sample."""
    frozen, states = data.frozen_outputs[arm.learner.stage], data.frames.states(rows)
    if reading is not None:
        states = reading(states)
        frozen = jax.tree.map(lambda leaf: leaf[rows], frozen)
        frozen, rows = frozen._replace(state=_read(arm.base, reading, frozen.state)), np.arange(len(rows))
    return predict(arm.base, arm.learner, frozen, target, states, rows=rows, samples=samples, seed=seed, loss=False)


def _read(base: Base, reading: Calibration, state: ArrayLike) -> np.ndarray:
    """Normalised states (N, state) as they would be of readings that go through `reading`."""
    width = len(reading.gain)
    # Normalising is affine in each number, so that three points of it are enough.
    zero, offset = (
        base.preprocessor.normalize_state(np.asarray(point, np.float32)[None])
        for point in (np.zeros(width), reading.offset)
    )
    gain = np.pad(reading.gain, (0, zero.shape[-1] - width), constant_values=1.0)
    return (gain * (np.asarray(state) - zero) + offset).astype(np.float32)


def _predicted(
    arm: Identifier, cell: Cell, rows: np.ndarray, target: ActionChunk, data: DataSet
) -> tuple[np.ndarray, float]:
    """What the base would command (N, chunk, D) on all frames of `cell.demos`, and how long it took to ask."""
    key = data.digest, cell.task, cell.demos
    if key not in arm.predicted:
        if not arm.predicted:
            commanded(arm, *_first(rows, target), data)  # compiles
        began = time.perf_counter()
        made = commanded(arm, rows, target, data)
        arm.predicted[key] = made, time.perf_counter() - began
    return arm.predicted[key]


def _first(rows: np.ndarray, target: ActionChunk) -> tuple[np.ndarray, ActionChunk]:
    """As many of the frames as go through the policy together."""
    return rows[:BATCH], index(target, np.arange(min(BATCH, len(rows))))
