"""A k-shot comparison without a simulator: adapted policies are judged on the other demonstrations of their task.

Arms, rates, support minibatches and draws are those of `protocol.few_shot`, and so are the seeds: everything that is
compared is paired. What takes the place of episodes in a simulator is the action error on `protocol.episodes`
demonstrations of a cell's task that it was not adapted to, see `measure`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.adaptation.identification import CALIBRATION, LINEAR
from metalora_jax.adaptation.learner import Learner, learner
from metalora_jax.adaptation.prediction import Prediction, Recorded, among, predict
from metalora_jax.data.config import DataConfig, read_demos, unpictured
from metalora_jax.data.frames import Frames
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import World
from metalora_jax.evaluation.offline import measure, rivals
from metalora_jax.evaluation.offline.measure import Settings
from metalora_jax.evaluation.offline.records import RECORDS, Log, Row
from metalora_jax.evaluation.offline.report import write_report
from metalora_jax.evaluation.offline.rivals import Meaning
from metalora_jax.evaluation.protocol import experiment, few_shot, identified
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice
from metalora_jax.evaluation.protocol.checks import check_apart, check_replay, check_splits
from metalora_jax.evaluation.protocol.comparison import Comparison, Identified
from metalora_jax.evaluation.protocol.few_shot import Cell, DataSet
from metalora_jax.evaluation.protocol.identified import Identifier
from metalora_jax.evaluation.protocol.plan import BASE
from metalora_jax.evaluation.reports import provenance
from metalora_jax.machine.progress import progress
from metalora_jax.policies.policy import Stage
from metalora_jax.training import checkpoint
from metalora_jax.types import Demo, PyTree
from metalora_jax.words import plural

__all__ = ["RECORDS", "run", "write_report"]


class Query(NamedTuple):
    """What a cell is judged on."""

    seen: Recorded  # N frames; `frames` are all of the split's
    episodes: tuple[int, ...]  # which demonstrations of the task
    demos: tuple[Demo, ...]  # the same, without pictures, commanded under the cell's condition


def run(comparison: Comparison, workdir: Path) -> Path:
    """Runs the unfinished part of the comparison in `workdir`; returns it.

    Raises:
      ValueError: the config does not fit its data or base, or `workdir` holds another run.
    """
    protocol, settings = comparison.protocol, comparison.offline
    assert settings is not None
    checkpoint.check_claim(workdir, comparison.to_json())
    check_replay(comparison)
    known = _read_plain(comparison.data)
    check_splits(comparison, _world(comparison, known))
    check_apart(comparison)
    _check_calibrations(comparison, known)
    experiment.convert(comparison)
    base = bases.load(comparison.base_directory)
    for doubt in provenance.doubts(comparison.source):
        logging.warning("the report of this run will be marked as a draft: %s", doubt)
    experiment.check_placements(comparison, base)
    checkpoint.claim(workdir, comparison.to_json())
    asked, comparison = comparison, experiment.settled(comparison, base, workdir)
    experiment.train(comparison, workdir)
    moved = identified.continuous([demo for demos in known.values() for demo in demos])
    arms = [arm for name in comparison.arms for arm in experiment.build(comparison, name, base, workdir, moved)]
    plain = learner(base, (), jax.random.key(0))
    stages = {plain.stage, *(arm.learner.stage for arm in arms)}
    validation, test = experiment.data_sets(comparison, base, stages, ("validation", "test"))
    adapt = Adaptation(protocol.noise_draws)
    choices = experiment.searched(comparison, arms, adapt, validation, workdir)
    data = {"validation": validation.digest, "test": test.digest}
    data |= {"replay": test.replay.digest} if test.replay else {}
    common = provenance.inputs(asked.to_json(), base.fingerprint, comparison.source, base.statistics.digest(), data)
    stamps = experiment.stamp(common, arms, choices, workdir)
    judge = _Judge(base, comparison, test, known)
    with Log(workdir / RECORDS) as log:
        for shots in protocol.shots:
            for cell in progress(test.cells[shots], description=f"cells of {plural(shots, 'demonstration')}"):
                others, stamp = (BASE, *rivals.NAMES), stamps[BASE, 0]
                if not all(log.has(_policy(name, 0, cell, 0), judge.rows(cell, 0), stamp) for name in others):
                    for row in judge.without_adapting(cell, plain):
                        log.append(row._replace(fingerprint=stamp))
                for arm in arms:
                    stamp = stamps[arm.name, arm.meta_seed]
                    if isinstance(arm, Identifier):
                        if not log.has(_policy(arm.name, arm.meta_seed, cell, 0), judge.rows(cell, 0), stamp):
                            for row in judge.mapped(arm, choices[arm.name], cell):
                                log.append(row._replace(fingerprint=stamp))
                        continue
                    steps = protocol.steps if shots == protocol.shots[0] else protocol.shots_steps
                    missing = [
                        step
                        for step in steps
                        if not log.has(_policy(arm.name, arm.meta_seed, cell, step), judge.rows(cell, step), stamp)
                    ]
                    for step, theta, seconds, _ in few_shot.adapted_at(
                        arm, adapt, choices[arm.name], cell, test, protocol, missing
                    ):
                        for row in judge.adapted(arm, cell, step, theta):
                            log.append(row._replace(fingerprint=stamp, adapt_seconds=seconds))
    return workdir


class _Judge:
    """Measures policies on cells; what is shared between them is computed once."""

    def __init__(self, base: Base, comparison: Comparison, test: DataSet, known: Mapping[str, Sequence[Demo]]):
        assert comparison.offline is not None
        self._base, self._protocol, self._test = base, comparison.protocol, test
        self._settings: Settings = comparison.offline
        self._demos = {task: list(known[task]) for task in test.frames.demos}
        for task, demos in self._demos.items():
            there = test.frames.actions[task]
            if len(there) != len(demos) or not all(map(np.array_equal, there, (demo.actions for demo in demos))):
                raise ValueError(f"{task}: some demonstrations have bad pictures; name those in test.drop")
        every = [demo for demos in self._demos.values() for demo in demos]
        self._meaning: Meaning = rivals.meaning(every, self._settings.actions)
        self._told: dict[tuple[Cell, Stage], PyTree] = {}

    def rows(self, cell: Cell, step: int) -> int:
        """How many rows `adapted` gives."""
        return len(cell.query[: self._protocol.episodes]) * (2 if self._asks_wrong(cell, step) else 1)

    def _asks_wrong(self, cell: Cell, step: int) -> bool:
        return bool(step and step == self._protocol.instruction_steps and cell.shots == self._protocol.shots[0])

    def without_adapting(self, cell: Cell, plain: Learner) -> Iterator[Row]:
        """The frozen base, and the rivals, which use the cell's own demonstrations."""
        query, frozen = self._query(cell), self._test.frozen_outputs[plain.stage]
        yield from self._rows(cell, query, self._predicted(plain, frozen, query, query.seen.rows), BASE)
        training = {cell.task: [self._demo(cell, i) for i in cell.demos]}
        for rival in rivals.NAMES:
            chunk = rivals.predicted(rival, query.seen, query.demos, training, self._meaning)
            yield from self._rows(cell, query, Prediction(chunk[None], chunk), rival)

    def adapted(self, arm: Arm, cell: Cell, step: int, theta: PyTree) -> Iterator[Row]:
        """An arm after so many steps, and under another task's instruction where the protocol asks for it."""
        query, adapted = self._query(cell), arm.learner.replace(theta=theta)
        frozen = self._test.frozen_outputs[adapted.stage]
        own = self._predicted(adapted, frozen, query, query.seen.rows)
        at = {"meta_seed": arm.meta_seed, "steps": step}
        yield from self._rows(cell, query, own, arm.name, **at)
        if self._asks_wrong(cell, step):
            wrong = self._wrong(cell)
            misled = self._predicted(adapted, self._misled(cell, query, adapted.stage, wrong), query, None)
            yield from self._rows(cell, query, misled, arm.name, told=wrong, **at)

    def mapped(self, arm: Identifier, choices: Mapping[str, Choice], cell: Cell) -> Iterator[Row]:
        """The base through the map that an arm fits to the cell's demonstrations."""
        fitted, query = identified.fit(arm, choices, cell, self._test), self._query(cell)
        plain = identified.shifted(
            *(arm, query.seen.rows, query.seen.target, self._test, fitted.action_map.reading),
            *(self._settings.samples, self._settings.seed),
        )
        made = Prediction(fitted.action_map(plain.samples), fitted.action_map(plain.quiet))
        at = {"meta_seed": arm.meta_seed, "adapt_seconds": fitted.seconds, "identified": arm.kind}
        yield from self._rows(cell, query, made, arm.name, **at)

    def _predicted(self, adapted: Learner, frozen: PyTree, query: Query, rows: np.ndarray | None) -> Prediction:
        settings = self._settings
        seen = query.seen.target, query.seen.states
        return predict(self._base, adapted, frozen, *seen, rows=rows, samples=settings.samples, seed=settings.seed)

    def _rows(self, cell: Cell, query: Query, made: Prediction, method: str, **fields) -> Iterator[Row]:
        result = measure.assembled(self._base, query.seen, query.demos, {method: made}, self._meaning, self._settings)
        scaled, loss = result.scaled(method), result.loss(method)
        for number, episode in enumerate(query.episodes):
            yield Row(
                method=method,
                split=cell.split,
                task=cell.task,
                condition=(cell.condition or Condition()).to_json(),
                shots=cell.shots,
                draw=cell.draw,
                episode=episode,
                error=tuple(result.errors[method].error[number].tolist()),
                scaled_error=float(scaled[number]),
                loss=None if loss is None else float(loss[number]),
                **fields,
            )

    def _query(self, cell: Cell) -> Query:
        episodes = cell.query[: self._protocol.episodes]
        settings = self._settings
        seen = among(
            *(self._test.frames, cell.task, episodes),
            stride=settings.stride,
            most=settings.most,
            relabel=cell.relabel,
        )
        return Query(seen, episodes, tuple(self._demo(cell, i) for i in episodes))

    def _demo(self, cell: Cell, i: int) -> Demo:
        demo, relabel = self._demos[cell.task][i], cell.relabel
        return demo if relabel is None else demo._replace(actions=relabel(demo.actions))

    def _wrong(self, cell: Cell) -> str:
        """The next task's instruction that differs."""
        tasks = sorted(self._demos)
        at, own = tasks.index(cell.task), self._demos[cell.task][0].instruction
        told = (self._demos[task][0].instruction for task in tasks[at + 1 :] + tasks[:at])
        wrong = next((text for text in told if text != own), None)
        if wrong is None:
            raise ValueError("protocol.instruction_steps needs two test tasks with different instructions; set it to 0")
        return wrong

    def _misled(self, cell: Cell, query: Query, stage: Stage, wrong: str) -> PyTree:
        """The frozen front of a cell's query frames under another instruction."""
        if (cell, stage) not in self._told:
            frames = _told(self._test.frames, query.seen.rows, cell.task, wrong)
            [self._told[cell, stage]] = frozen_outputs(self._base, [frames], stage)
        return self._told[cell, stage]


def _policy(name: str, meta_seed: int, cell: Cell, step: int) -> tuple:
    """See `Row.policy`."""
    return name, meta_seed, cell.task, cell.shots, cell.draw, step


def _told(frames: Frames, rows: np.ndarray, task: str, instruction: str) -> Frames:
    """Some frames alone, under another instruction."""
    tokens, mask = frames.preprocessor.text(instruction, frames.state[rows])
    return frames._replace(
        images=frames.images[rows],
        state=frames.state[rows],
        tokens=tokens,
        token_mask=mask,
        first_row={task: (0,)},
        moments={task: (np.arange(len(rows)),)},
    )


def _read_plain(parts: Sequence[DataConfig]) -> dict[str, list[Demo]]:
    """Task -> all demonstrations that the config names, without pictures."""
    found: dict[str, list[Demo]] = {}
    for part in progress(unpictured(parts), description="demonstrations, without pictures"):
        for task, demos in read_demos(part).items():
            if len(demos) > len(found.get(task, ())):
                found[task] = demos
    return found


def _check_calibrations(comparison: Comparison, known: Mapping[str, Sequence[Demo]]) -> None:
    """Refuses to look for a calibration where the demonstrations do not command positions."""
    assert comparison.offline is not None
    told = rivals.meaning([demo for demos in known.values() for demo in demos], comparison.offline.actions)
    for name, arm in comparison.arms.items():
        if isinstance(arm, Identified) and arm.identify == CALIBRATION and told.relative.any():
            raise ValueError(
                f"arms.{name}: {told.said}; only commanded positions have a calibration: leave the arm out, identify "
                f"{LINEAR!r}, or set offline.actions to 'absolute' if they are positions"
            )


def _world(comparison: Comparison, known: Mapping[str, Sequence[Demo]]) -> World:
    """What the checks ask of a world, from the demonstrations."""

    def refused(*_) -> None:
        raise ValueError("a dataset is no simulator")

    def none(task: str) -> str:
        return ""

    return World(
        cameras=tuple(comparison.test.cameras),
        state_dim=0,
        action_dim=0,
        tasks=lambda: tuple(known),
        instruction=lambda task: known[task][0].instruction,
        open=refused,  # type: ignore[arg-type]
        episode_start=lambda *_: 0,
        demo_steps=lambda _: 0,
        suite=none,
    )
