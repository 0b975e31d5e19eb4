"""A whole few-shot comparison: train the arms, search their rates, adapt, run episodes, write the report. Resumable."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from metalora_jax.adapters import placement
from metalora_jax.data.frames import Frames, gather
from metalora_jax.data.tasks import Splits, check_disjoint
from metalora_jax.envs.conditions import Condition, ConditionRange
from metalora_jax.envs.world import World, world
from metalora_jax.evaluation import execution, few_shot, rollout
from metalora_jax.evaluation.arms import Adaptation, Arm, Choice
from metalora_jax.evaluation.few_shot import Cell, Protocol
from metalora_jax.evaluation.records import Episode, EpisodeLog, code_digest, fingerprint
from metalora_jax.evaluation.rollout import Control, Job, Rollout, one_core_each
from metalora_jax.policies.stages import Stage, earliest
from metalora_jax.processes import in_processes
from metalora_jax.training import adapter, checkpoint
from metalora_jax.training import base as bases
from metalora_jax.training.augmentation import other_texts
from metalora_jax.training.base import Base
from metalora_jax.training.learner import learner
from metalora_jax.training.meta_train import (
    DataConfig,
    frozen_bank,
    meta_train,
    read_demos,
)
from metalora_jax.training.progress import progress, take_line
from metalora_jax.types import PyTree

BASE = "base"  # the method name of the frozen policy, which is not adapted


class DataSet(NamedTuple):
    """Demonstrations of one split, with the frozen front computed."""

    frames: Frames
    bank: PyTree
    cells: dict[int, list[Cell]]  # shots -> cells


def run(config: Mapping[str, Any], workdir: Path) -> Path:
    """Runs what is not done yet of the comparison in `workdir`, which `config` has claimed.

    Returns:
      The run directory, with episodes.jsonl complete.
    """
    base = bases.load(config["base"] or None)
    control = Control(tuple(config["test"]["cameras"]), **config["control"])
    execution.check(control.execute, control.ensemble, base.config.chunk_size)
    check_splits(config)
    train(config, workdir)
    protocol = Protocol.from_config(config["protocol"])
    arms = [arm for name in config["arms"] for arm in build_arm(config, name, base, workdir)]
    stage = earliest(arm.learner.stage for arm in arms)
    validation = data_set(config, "validation", base, protocol, protocol.shots[:1], stage)
    test = data_set(config, "test", base, protocol, protocol.shots, stage)
    adapt = Adaptation(protocol.flow_draws)
    choices = searched(config, arms, adapt, validation, protocol, workdir / "rates.json")
    with EpisodeLog(workdir / "episodes.jsonl") as log:
        common = {"code": code_digest(), "config": fingerprint(**config), "base": base.fingerprint}
        jobs = plan(arms, choices, adapt, test, protocol, world(control.world), log, common)
        execute(jobs, config["base"], control, config["workers"], log)
    return workdir


def check_splits(config: Mapping[str, Any]) -> None:
    """Refuses unknown tasks, and on new tasks any that is learned from and tested on, by name or by any of its texts.

    Known tasks under new conditions share their tasks on purpose; there the conditions are held out.
    """
    learned = {task for arm in config["arms"].values() if "data" in arm for task in arm["data"]["tasks"]}
    splits = Splits(tuple(sorted(learned)), tuple(config["validation"]["tasks"]), tuple(config["test"]["tasks"]))
    known = world(config["control"].get("world", Control._field_defaults["world"]))
    instructions = {task: known.instruction(task) for tasks in splits for task in tasks}
    if config["protocol"]["distribution"] == "tasks":
        others: dict[str, tuple[str, ...]] = {}
        for arm in config["arms"].values():
            for task, texts in (other_texts(arm, known.instruction) if "data" in arm else {}).items():
                others[task] = others.get(task, ()) + texts
        check_disjoint(splits, instructions, others)


def train(config: Mapping[str, Any], workdir: Path) -> None:
    """Meta-trains every arm and seed that has no adapter yet, each in a process of its own, some side by side."""
    todo = [
        (recipe, home)
        for seed in config["meta_seeds"]
        for name in config["arms"]
        for recipe, home in [_recipe(config, name, seed, workdir)]
        if recipe is not None and not (home / "adapter").exists()
    ]
    for recipe, home in todo:
        checkpoint.claim(home, recipe)
    workers = min(config["workers"], len(todo))
    for _ in in_processes(meta_train, todo, workers, _start_training, (workers,)):
        pass


def _start_training(workers: int) -> None:
    take_line(one_core_each(workers))


def _recipe(config: Mapping[str, Any], name: str, seed: int, workdir: Path) -> tuple[dict[str, Any] | None, Path]:
    """The meta-training config of an arm with one seed, None where the arm starts fresh; and its home."""
    arm = config["arms"][name]
    recipe = arm | {"seed": seed, "base": config["base"]} if "meta" in arm else None
    return recipe, workdir / "arms" / name / f"seed_{seed}"


def build_arm(config: Mapping[str, Any], name: str, base: Base, workdir: Path) -> list[Arm]:
    """The arm `name` for every meta-seed, from its trained adapter or a fresh start."""
    made = []
    for seed in config["meta_seeds"]:
        recipe, home = _recipe(config, name, seed, workdir)
        if recipe is None:
            rules = placement.from_json([dict(rule) for rule in config["arms"][name]["placement"]])
            learn = learner(base, rules, jax.random.key(seed))
            made.append(Arm(name, seed, learn, rules, {"theta": learn.theta}, config["protocol"]["max_norm"]))
        else:
            learned = adapter.load(home / "adapter", base)
            clip = recipe["meta"]["max_norm"]
            made.append(Arm(name, seed, learned.learner, learned.placement, learned.meta_params, clip, learned.head))
    return made


def data_set(
    config: Mapping[str, Any], split: str, base: Base, protocol: Protocol, shots: Sequence[int], stage: Stage
) -> DataSet:
    """Reads a split's demonstrations, computes their frozen front up to `stage` and lays out the cells."""
    frames = gather(read_demos(DataConfig.from_config(config[split])), base.statistics, base.encode_text, base.sizes)
    conditions = None if config["conditions"] is None else ConditionRange.from_config(config["conditions"])
    draws = protocol.draws_per_task
    made = {k: few_shot.cells(protocol, split, frames.demos, conditions, k, draws, config["seed"]) for k in shots}
    return DataSet(frames, frozen_bank(base, frames, stage), made)


def searched(
    config: Mapping[str, Any],
    arms: Sequence[Arm],
    adapt: Adaptation,
    validation: DataSet,
    protocol: Protocol,
    file: Path,
) -> dict[str, dict[str, Choice]]:
    """Inner optimiser and rate of every method, searched with its first seed and kept in `file`."""
    known = json.loads(file.read_text()) if file.exists() else {}
    first = {arm.name: arm for arm in reversed(arms)}
    todo = [name for name in config["arms"] if name not in known]
    for name in progress(todo, description="search of inner rates, methods") if todo else ():
        found = few_shot.search(
            first[name],
            adapt,
            config["search"],
            validation.cells[protocol.shots[0]],
            validation.frames,
            validation.bank,
            protocol,
        )
        known[name] = {budget: choice._asdict() for budget, choice in found.items()}
        staging = file.with_suffix(".new")
        staging.write_text(json.dumps(known, indent=1) + "\n")
        os.replace(staging, file)
    return {name: {b: Choice(**c) for b, c in known[name].items()} for name in config["arms"]}


def plan(
    arms: Sequence[Arm],
    choices: Mapping[str, Mapping[str, Choice]],
    adapt: Adaptation,
    test: DataSet,
    protocol: Protocol,
    where: World,
    log: EpisodeLog,
    common: Mapping[str, str],
) -> list[Job]:
    """Adapts every arm to every cell that still lacks episodes, and lists those episodes."""
    jobs = _base_jobs(test, protocol, where, log, common)
    work = [(arm, cell) for arm in arms for shots in protocol.shots for cell in test.cells[shots]]

    def adapted(item: tuple[Arm, Cell]) -> list[Job]:
        arm, cell = item
        wanted = protocol.steps if cell.shots == protocol.shots[0] else protocol.shots_steps
        stamp = fingerprint(**common, arm=arm.fingerprint, choices={b: list(c) for b, c in choices[arm.name].items()})
        plans = {step: _pending(arm, cell, step, protocol, where, stamp, log) for step in wanted}
        missing = [step for step, pending in plans.items() if pending]
        results = few_shot.adapted_at(arm, adapt, choices[arm.name], cell, test.frames, test.bank, protocol, missing)
        return [
            Job(
                cell.task,
                arm.placement,
                theta,
                tuple(_rollout(record, seconds, loss) for record in plans[step]),
            )
            for step, theta, seconds, loss in results
        ]

    found = few_shot.side_by_side(adapted, work)
    return jobs + [job for made in progress(found, description="adaptation, cells", total=len(work)) for job in made]


def execute(jobs: Sequence[Job], base_directory: str, control: Control, workers: int, log: EpisodeLog) -> None:
    """Runs the episodes and writes each down as it ends; an empty `base_directory` is the nano base."""
    total = sum(len(job.rollouts) for job in jobs)
    outcomes = rollout.run(jobs, Path(base_directory) if base_directory else None, control, workers)
    for outcome in progress(outcomes, description="episodes", total=total):
        record, seconds, loss = outcome.key
        completed = dataclasses.replace(
            record,
            success=bool(outcome.success),
            episode_return=float(outcome.episode_return),
            length=outcome.length,
            adapt_seconds=seconds,
            support_loss=loss,
            error=outcome.error,
        )
        log.append(completed)


def _pending(
    arm: Arm, cell: Cell, step: int, protocol: Protocol, where: World, stamp: str, log: EpisodeLog
) -> list[Episode]:
    shifted = cell.condition or Condition()
    pending = _episodes(arm.name, arm.meta_seed, cell, shifted, cell.split, step, protocol, where, stamp)
    if step == protocol.retention_steps and cell.shots == protocol.shots[0] and step:
        pending += _episodes(arm.name, arm.meta_seed, cell, Condition(), "base", step, protocol, where, stamp)
    return [record for record in pending if not log.done(record.key, record.fingerprint)]


def _base_jobs(
    test: DataSet, protocol: Protocol, where: World, log: EpisodeLog, common: Mapping[str, str]
) -> list[Job]:
    """The frozen policy: under every test condition, and without a shift (retention with the adapter off)."""
    stamp, jobs = fingerprint(**common), []
    for cell in test.cells[protocol.shots[0]]:
        plain = cell._replace(shots=0)
        pending = _episodes(BASE, 0, plain, cell.condition or Condition(), cell.split, 0, protocol, where, stamp)
        if protocol.retention_steps:
            pending += _episodes(BASE, 0, plain, Condition(), "base", 0, protocol, where, stamp, adapter_on=False)
        todo = [record for record in pending if not log.done(record.key, record.fingerprint)]
        if todo:
            jobs.append(Job(cell.task, (), None, tuple(_rollout(record, 0.0, None) for record in todo)))
    return jobs


def _episodes(
    method: str,
    meta_seed: int,
    cell: Cell,
    condition: Condition,
    split: str,
    step: int,
    protocol: Protocol,
    where: World,
    stamp: str,
    adapter_on: bool = True,
) -> list[Episode]:
    made = []
    for number in range(protocol.episodes):
        record = _blank(cell.task, condition, where.episode_start(cell.task, cell.draw, number), stamp)
        made.append(
            dataclasses.replace(
                record,
                method=method,
                meta_seed=meta_seed,
                distribution=protocol.distribution,
                split=split,
                shots=cell.shots,
                draw=cell.draw,
                steps=step,
                adapter_on=adapter_on,
            )
        )
    return made


def _rollout(record: Episode, seconds: float, loss: float | None) -> Rollout:
    """The episode that completes `record`, whose policy took `seconds` to adapt."""
    return Rollout((record, seconds, loss), Condition.from_json(record.condition), record.episode_seed)


def base_job(task: str, number: int, where: World, stamp: str) -> Job:
    """One episode of the plain base without a shift, for judging the base itself."""
    start = where.episode_start(task, 99, number)  # a draw that no comparison uses
    record = _blank(task, Condition(), start, stamp)
    return Job(task, (), None, (_rollout(record, 0.0, None),))


def _blank(task: str, condition: Condition, seed: int, stamp: str) -> Episode:
    """The record of an episode of the frozen base that is still to be run."""
    return Episode(
        method=BASE,
        meta_seed=0,
        distribution="conditions",
        split="base",
        task=task,
        condition=condition.to_json(),
        shots=0,
        draw=0,
        steps=0,
        episode_seed=seed,
        success=False,
        episode_return=0.0,
        length=0,
        adapt_seconds=0.0,
        support_loss=None,
        fingerprint=stamp,
        error=None,
        adapter_on=False,
    )
