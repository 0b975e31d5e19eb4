"""Adapted policies measured offline and run in closed loop, under hidden conditions: does the one predict the other?

For each condition and task (a cell) a scripted expert records demonstrations; LoRA from scratch adapts to some of them,
at several rates, for several numbers of steps. Every such policy is measured on the others (`measure`), and then run.
Resumable: cells that are measured, and episodes that are over, are not done again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.frozen_front import frozen_output
from metalora_jax.adapters import Placement, placement
from metalora_jax.data import content
from metalora_jax.data.action_errors import Errors, errors
from metalora_jax.data.frames import gather
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.experts import record
from metalora_jax.envs.world import check_shift, world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.offline import measure
from metalora_jax.evaluation.offline.measure import Offline, Settings
from metalora_jax.evaluation.offline.rivals import HOLD
from metalora_jax.evaluation.protocol import experiment
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice
from metalora_jax.evaluation.reports import provenance
from metalora_jax.evaluation.reports.records import Episode, EpisodeLog, RecordError, canonical
from metalora_jax.evaluation.rollout import Job, Rollout
from metalora_jax.fields import check_positive, each, from_fields, to_fields
from metalora_jax.machine import files
from metalora_jax.machine.progress import progress
from metalora_jax.training import checkpoint
from metalora_jax.training.task_batches import fill, support_rows
from metalora_jax.types import Demo, PyTree

OFFLINE, EPISODES, CONFIG = "offline.jsonl", "episodes.jsonl", "config.json"
START = "start"  # the method name of policies that have taken no step
_ATTEMPTS = 10  # starts that an expert may fail from, in one cell


class Study(NamedTuple):
    """What is measured; cells are all conditions x tasks."""

    base: str  # directory; "" is the base in the package
    cameras: tuple[str, ...]
    control: Control
    tasks: tuple[str, ...]
    conditions: Mapping[str, Condition]  # by a name of one's own
    placement: Placement
    shots: int  # demonstrations that are learned from
    held_out: int  # demonstrations that are measured on
    first_demo: int  # start of the first demonstration of the first cell; cells are 100 apart
    learning_rates: tuple[float, ...]  # Adam's
    steps: tuple[int, ...]  # from 0 on
    frames: int  # in a minibatch
    noise_draws: int  # samples of (t, noise) per frame
    max_norm: float  # clips every gradient
    episodes: int  # of every policy, from the same starts in all of a cell
    offline: Settings
    workers: int = 1
    seed: int = 0

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Study":
        """Reads a whole config; see `fields.from_fields`.

        Raises:
          ValueError: a field is out of range, or a task or condition does not fit the world.
        """
        cameras = fields.get("cameras", ())
        readers = {
            "control": lambda section: Control.from_config(section, cameras),
            "conditions": each(Condition.from_json),
            "placement": placement.from_json,
            "offline": lambda section: from_fields(Settings, section, "offline").checked(),
        }
        self = from_fields(cls, fields, "", readers)
        check_positive(
            self, "config", ("shots", "held_out", "frames", "noise_draws", "max_norm", "episodes", "workers")
        )
        if list(self.steps) != sorted(set(self.steps)) or self.steps[:1] != (0,) or len(self.steps) < 2:
            raise ValueError(f"config.steps is {self.steps}; give 0 and some more, in rising order")
        if not self.learning_rates or not self.tasks or not self.conditions:
            raise ValueError("config.learning_rates, tasks and conditions need an entry each")
        where = world(self.control.world)
        for task in self.tasks:
            where.instruction(task)
        for condition in self.conditions.values():
            check_shift(condition, self.control.world, where)
        return self

    def to_json(self) -> dict[str, Any]:
        """The config, with the defaults of what it left out."""
        return {name: to_fields(value) for name, value in self._asdict().items()} | {
            "placement": placement.to_json(self.placement)
        }

    @property
    def cells(self) -> list["Cell"]:
        """All of them; those of the first condition come first."""
        pairs = [(name, task) for name in self.conditions for task in self.tasks]
        return [Cell(i, task, name, self.conditions[name]) for i, (name, task) in enumerate(pairs)]

    @property
    def policies(self) -> list["Made"]:
        """Those of a cell."""
        return [Made(0.0, 0), *(Made(rate, steps) for rate in self.learning_rates for steps in self.steps[1:])]


class Cell(NamedTuple):
    """A task under a condition."""

    number: int
    task: str
    name: str  # of the condition
    condition: Condition


class Made(NamedTuple):
    """How a policy was made; (0, 0) is the start of all."""

    learning_rate: float
    steps: int

    @property
    def method(self) -> str:
        """Its name in an episode's record."""
        return f"adam {self.learning_rate:g}" if self.steps else START


class Row(NamedTuple):
    """A policy, measured offline: a line of offline.jsonl."""

    cell: int
    task: str
    name: str  # of the condition
    condition: Mapping[str, Any]
    learning_rate: float
    steps: int
    error: tuple[float, ...]  # (D,) of each joint on the held-out demonstrations, in the robot's own units
    measures: Mapping[str, float]  # see MEASURES
    fingerprint: str  # a line of provenance.jsonl

    @property
    def made(self) -> Made:
        """How it was made."""
        return Made(self.learning_rate, self.steps)


MEASURES = {  # each is an error: less is better
    "scaled": "action error, scaled",
    "units": "action error, in the robot's units",
    "worst_joint": "action error of the worst joint, scaled",
    "root_mean_square": "root mean square error, scaled",
    "executed": "action error of the steps that are executed, scaled",
    "first_step": "action error of the first step, scaled",
    "mean_of_draws": "error of the mean of draws, scaled",
    "no_noise": "error without noise, scaled",
    "spread": "spread of the draws, scaled",
    "loss": "flow-matching loss",
    "joints": "joints no better than standing still",
    "learned_error": "action error on the demonstrations learned from, scaled",
    "learned_loss": "flow-matching loss on the demonstrations learned from",
}


def measured(result: Offline, name: str, held_out: int, execute: int) -> dict[str, float]:
    """MEASURES of a policy, from a result whose first `held_out` episodes are held out and the others learned from.

    Args:
      result: of all these episodes.
      name: of the policy.
      held_out: how many.
      execute: steps of a chunk that the robot takes.
    """
    found, loss = result.errors[name], result.loss(name)
    assert loss is not None

    def scaled(of_joints: np.ndarray) -> float:
        return float((of_joints[:held_out] / result.scale).mean())

    own, still = (result.errors[each].error[:held_out].mean(axis=0) for each in (name, HOLD))
    return {
        "scaled": scaled(found.error),
        "units": float(own.mean()),
        "worst_joint": float((own / result.scale).max()),
        "root_mean_square": float((np.sqrt(found.squared[:held_out].mean(axis=0)) / result.scale).mean()),
        "executed": scaled(_ahead(result, name, execute).error),
        "first_step": scaled(_ahead(result, name, 1).error),
        "mean_of_draws": scaled(found.of_mean),
        "no_noise": scaled(found.quiet),
        "spread": scaled(found.spread),
        "loss": float(loss[:held_out].mean()),
        "joints": float((own >= still).mean()),
        "learned_error": float((found.error[held_out:] / result.scale).mean()),
        "learned_loss": float(loss[held_out:].mean()),
    }


def _ahead(result: Offline, name: str, steps: int) -> Errors:
    """Of the first steps of each chunk alone."""
    is_pad, made = result.is_pad.copy(), result.predictions[name]
    is_pad[:, steps:] = True
    return errors(made.samples, made.quiet, result.actions, is_pad, result.demo)


def run(study: Study, workdir: Path) -> Path:
    """Runs the unfinished part of the study in `workdir`; returns it.

    Raises:
      ValueError: the base does not fit the world, `workdir` holds another study, or an expert fails.
    """
    checkpoint.check_claim(workdir, study.to_json())
    where = world(study.control.world)
    base = bases.load(study.base or None)
    rollout.check_base(base, study.control, where)
    for doubt in provenance.doubts(study.base):
        logging.warning("the report of this run will be marked as a draft: %s", doubt)
    where.prepare()
    checkpoint.claim(workdir, study.to_json())
    demos = _recorded(study)
    start = adapter.fresh(base, study.placement, study.seed)
    arm = Arm(START, 0, start.learner, study.placement, start.meta_params, study.max_norm)
    stamps = _stamps(study, base, arm, demos, workdir)
    rows, adapt, jobs = read(workdir / OFFLINE), Adaptation(study.noise_draws), []
    with EpisodeLog(workdir / EPISODES) as log:
        for cell in progress(study.cells, description="adapted and measured, cells"):
            known = any(row.cell == cell.number for row in rows)
            missing = _missing(study, cell, stamps, log)
            if known and not missing:
                continue
            thetas = _adapted(study, base, arm, adapt, cell, demos[cell])
            if not known:
                rows += _measured(study, base, arm, cell, demos[cell], thetas, stamps)
                files.write_text(workdir / OFFLINE, "".join(canonical(row._asdict()) + "\n" for row in rows))
            jobs += [
                Job(cell.task, study.placement, thetas[made], tuple(Rollout(*each) for each in own), cell.number)
                for made, own in missing.items()
            ]
        experiment.execute(jobs, Path(study.base) if study.base else None, study.control, study.workers, log)
    return workdir


def read(path: Path) -> list[Row]:
    """All rows of offline.jsonl; none where there is no file.

    Raises:
      RecordError: a line is no row.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), 1):
        try:
            rows.append(from_fields(Row, json.loads(line), "row"))
        except ValueError as error:
            raise RecordError(f"{path}:{number}: {error}; the file was edited or damaged, restore it") from None
    return rows


def _recorded(study: Study) -> dict[Cell, list[Demo]]:
    """The demonstrations of every cell, those that are learned from first; pure in the study."""
    where, control, found = world(study.control.world), study.control, {}
    for task in progress(study.tasks, description="demonstrations, tasks"):
        with where.open(task, study.cameras, control.image_size, **(control.simulator or {})) as env:
            for cell in (cell for cell in study.cells if cell.task == task):
                demos: list[Demo] = []
                for start in range(study.shots + study.held_out + _ATTEMPTS):
                    first, most = study.first_demo + 100 * cell.number, where.demo_steps(task)
                    limits = where.joint_limits
                    demo = record(env, first + start, cell.condition, max_steps=most, limits=limits)
                    demos += [] if demo is None else [demo]
                    if len(demos) == study.shots + study.held_out:
                        break
                else:
                    raise ValueError(
                        f"the expert of {task} fails more than {_ATTEMPTS} times under {cell.name}: drop it"
                    )
                found[cell] = demos
    return found


def _stamps(study: Study, base: Base, arm: Arm, demos: Mapping[Cell, Sequence[Demo]], workdir: Path) -> dict[str, str]:
    """What each method's records depend on, written to provenance.jsonl; returns the fingerprints that they carry."""
    data = {"test": content.digest({f"{cell.task}@{cell.name}": list(own) for cell, own in demos.items()})}
    common = provenance.inputs(study.to_json(), base.fingerprint, study.base, base.statistics.digest(), data)
    made = {
        policy.method: common._replace(
            adapter=arm.fingerprint,
            choices={"all": ["adam", policy.learning_rate]} if policy.steps else None,
        )
        for policy in study.policies
    }
    provenance.keep(workdir, made.values())
    return {method: each.fingerprint for method, each in made.items()}


def _adapted(
    study: Study, base: Base, arm: Arm, adapt: Adaptation, cell: Cell, demos: Sequence[Demo]
) -> dict[Made, PyTree]:
    frames = gather({cell.task: list(demos[: study.shots])}, base.preprocessor)
    rng, steps = np.random.default_rng([study.seed, cell.number]), study.steps[1:]
    rows = support_rows(frames, cell.task, range(study.shots), None, steps[-1], study.frames, rng)
    support = fill(rows, frozen_output(base, frames, arm.learner.stage))
    found = {Made(0.0, 0): jax.tree.map(np.asarray, arm.meta_params["theta"])}
    for rate in study.learning_rates:
        kept = adapt(arm, Choice("adam", rate), support, study.seed, steps).thetas
        found |= {Made(rate, step): kept[step] for step in steps}
    return found


def _measured(
    study: Study,
    base: Base,
    arm: Arm,
    cell: Cell,
    demos: Sequence[Demo],
    thetas: Mapping[Made, PyTree],
    stamps: Mapping[str, str],
) -> list[Row]:
    learned, unseen = list(demos[: study.shots]), list(demos[study.shots :])
    policies = {f"{made.method}, {made.steps}": arm.learner.replace(theta=theta) for made, theta in thetas.items()}
    joints = world(study.control.world).joints
    every, known = {cell.task: [*unseen, *learned]}, {cell.task: learned}
    result = measure.evaluate(base, policies, every, known, study.offline, joints)
    return [
        Row(
            *cell[:3],
            cell.condition.to_json(),
            *made,
            tuple(result.errors[name].error[: study.held_out].mean(axis=0).tolist()),
            measured(result, name, study.held_out, study.control.execute),
            stamps[made.method],
        )
        for made, name in zip(thetas, policies, strict=True)
    ]


def _missing(
    study: Study, cell: Cell, stamps: Mapping[str, str], log: EpisodeLog
) -> dict[Made, list[tuple[Any, Condition, int]]]:
    """The episodes of a cell that are not over, as `Rollout` takes them."""
    found: dict[Made, list[tuple[Any, Condition, int]]] = {}
    for made in study.policies:
        for episode in _episodes(study, cell, made, stamps[made.method]):
            if not log.done(episode.key, episode.fingerprint):
                found.setdefault(made, []).append(((episode, 0.0, None), cell.condition, episode.episode_seed))
    return found


def _episodes(study: Study, cell: Cell, made: Made, stamp: str) -> Iterator[Episode]:
    for number in range(study.episodes):
        yield Episode(
            method=made.method,
            meta_seed=0,
            distribution="conditions",
            split="test",
            task=cell.task,
            condition=cell.condition.to_json(),
            shots=study.shots if made.steps else 0,
            draw=cell.number,
            steps=made.steps,
            episode_seed=world(study.control.world).episode_start(cell.task, cell.number, number),
            success=False,
            episode_return=0.0,
            length=0,
            adapt_seconds=0.0,
            support_loss=None,
            fingerprint=stamp,
            error=None,
        )
