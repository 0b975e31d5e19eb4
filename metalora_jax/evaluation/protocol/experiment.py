"""A whole few-shot comparison: train the arms, search their rates, adapt, run episodes, write the report. Resumable."""

import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from metalora_jax import files
from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.frozen_front import frozen_banks
from metalora_jax.adaptation.learner import learner
from metalora_jax.adapters import placement
from metalora_jax.data import content, normalize
from metalora_jax.data.config import DataConfig, read_demos, unpictured
from metalora_jax.data.frames import gather
from metalora_jax.envs.conditions import ConditionRange
from metalora_jax.envs.world import world
from metalora_jax.evaluation import execution, rollout
from metalora_jax.evaluation.protocol import few_shot
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice
from metalora_jax.evaluation.protocol.checks import check_demos, check_replay, check_retention, check_splits
from metalora_jax.evaluation.protocol.few_shot import DataSet, Protocol, Replayed
from metalora_jax.evaluation.protocol.plan import BASE, Stamps, plan
from metalora_jax.evaluation.reports import provenance
from metalora_jax.evaluation.reports.provenance import Inputs
from metalora_jax.evaluation.reports.records import EpisodeLog
from metalora_jax.evaluation.rollout import Control, Job, one_core_each
from metalora_jax.policies.policy import Stage
from metalora_jax.processes import ALONE, Host, in_processes
from metalora_jax.progress import Outlook, foretell, foretold, progress, take_line
from metalora_jax.training import checkpoint
from metalora_jax.training.meta_train import meta_train
from metalora_jax.training.task_batches import replay_of

LOOK = 5.0  # [s] between two checks of a waiting host


def run(config: Mapping[str, Any], workdir: Path, host: Host = ALONE) -> Path:
    """Runs the unfinished part of the comparison in `workdir`, which `config` has claimed.

    Several hosts may share a `workdir` and the episodes, each with a log of its own. The first one trains and searches;
    the others wait for it.

    Returns:
      The run directory, with the host's episodes complete.

    Raises:
      ValueError: if the run was started with another number of hosts, or the config does not fit its world, base or
        protocol.
    """
    protocol = Protocol.from_config(config["protocol"])
    check_retention(protocol)
    check_replay(config, protocol)
    control = Control(tuple(config["test"]["cameras"]), **config["control"])
    where = world(control.world)
    check_splits(config, where)
    check_logs(workdir, host)
    check_demos(config)
    if host.number:
        wait_for_first(config, workdir)
    convert(config)
    base = bases.load(config["base"] or None)
    source = config["convert"]["policy"] if "convert" in config else config["base"]
    for doubt in provenance.doubts(source):
        logging.warning("a report of this run will be refused, or marked as a draft: %s", doubt)
    execution.check(control.execute, control.ensemble, base.sizes.chunk)
    train(config, workdir)
    arms = [arm for name in config["arms"] for arm in build_arm(config, name, base, workdir)]
    stages = {arm.learner.stage for arm in arms}
    validation, test = data_sets(config, base, protocol, stages, ("validation", "test"))
    adapt = Adaptation(protocol.flow_draws)
    choices = searched(config, arms, adapt, validation, protocol, workdir / "rates.json")
    data = {"validation": validation.digest, "test": test.digest}
    data |= {"replay": test.replay.digest} if test.replay else {}
    common = provenance.inputs(config, base.fingerprint, source, base.statistics.digest(), data)
    with EpisodeLog(workdir / log_name(host)) as log:
        stamps = stamp(common, arms, choices, workdir)
        for jobs in plan(arms, choices, adapt, test, protocol, where, log, stamps, host):
            execute(jobs, config["base"], control, config["workers"], log)
    return workdir


def log_name(host: Host) -> str:
    """Name of the file with a host's episodes."""
    return "episodes.jsonl" if host.hosts == 1 else f"episodes-{host.number}-of-{host.hosts}.jsonl"


def check_logs(workdir: Path, host: Host) -> None:
    """Checks that the episodes of a `workdir` are not run again in other shares.

    Raises:
      ValueError: if they would be, or there is no such host.
    """
    host.share(())
    ours = {log_name(Host(number, host.hosts)) for number in range(host.hosts)}
    logs = [path for path in workdir.glob("episodes*.jsonl") if path.stat().st_size]
    if others := sorted(path.name for path in logs if path.name not in ours):
        raise ValueError(
            f"{workdir} has {others[0]}, and {host.hosts} hosts would run its episodes again: keep the number of hosts"
        )


def wait_for_first(config: Mapping[str, Any], workdir: Path) -> None:
    """Returns once the first host has trained and searched: its rates.json names every method."""
    if set(config["arms"]) <= set(_known(workdir / "rates.json")):
        return
    logging.warning("waiting for host 0 to train and to search rates; start it if it is not running")
    while not set(config["arms"]) <= set(_known(workdir / "rates.json")):
        time.sleep(LOOK)


def stamp(common: Inputs, arms: Sequence[Arm], choices: Mapping[str, Mapping[str, Choice]], workdir: Path) -> Stamps:
    """Records what each method's episodes depend on; returns the fingerprints that they carry."""
    made = {(BASE, 0): common}
    for arm in arms:
        data = dict(common.data) | ({} if arm.data == "" else {"training": arm.data})
        chosen = {budget: list(choice) for budget, choice in choices[arm.name].items()}
        made[arm.name, arm.meta_seed] = common._replace(data=data, adapter=arm.fingerprint, choices=chosen)
    provenance.keep(workdir, made.values())
    return {key: each.fingerprint for key, each in made.items()}


def convert(config: Mapping[str, Any]) -> None:
    """Converts the lerobot policy that the section `convert` names to a base, unless that exists already.

    Its statistics are those of all demonstrations that an arm is trained on, and of no others.
    """
    directory = Path(config["base"])
    if "convert" not in config or directory.exists():
        return
    parts = [DataConfig.from_config(arm["data"]) for arm in config["arms"].values() if "data" in arm]
    singly = unpictured(part._replace(tasks=(task,)) for part in parts for task in part.tasks)
    demos = [
        demo
        for part in progress(singly, description="statistics, demonstration files")
        for recorded in read_demos(part).values()
        for demo in recorded
    ]
    base = bases.load(config["convert"]["policy"], normalize.compute(demos), config["convert"]["tokenizer"])
    directory.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_directory(directory) as staging:
        bases.save(staging, base)


def train(config: Mapping[str, Any], workdir: Path) -> None:
    """Meta-trains every arm and seed that has no adapter yet, each in its own process, some in parallel."""
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
    for _ in in_processes(meta_train, todo, workers, _start_training, (workers, foretold())):
        pass


def _start_training(workers: int, outlook: Outlook | None) -> None:
    foretell(outlook)
    take_line(one_core_each(workers))


def _recipe(config: Mapping[str, Any], name: str, seed: int, workdir: Path) -> tuple[dict[str, Any] | None, Path]:
    """The meta-training config of an arm with one seed, None if the arm starts fresh; and its directory."""
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
            start = learned.learner, learned.placement, learned.meta_params
            made.append(Arm(name, seed, *start, clip, learned.head, learned.data))
    return made


def data_sets(
    config: Mapping[str, Any], base: Base, protocol: Protocol, stages: Collection[Stage], splits: Sequence[str]
) -> list[DataSet]:
    """Reads the splits' demonstrations, computes their frozen front up to each of `stages` and lays out the cells.

    They share the replayed demonstrations, if there is a section `replay`.
    """
    sections = [*splits, *(["replay"] if "replay" in config else [])]
    parts = [DataConfig.from_config(config[section]) for section in sections]
    demos = [read_demos(part) for part in parts]
    frames = [gather(each, base.preprocessor, each=part.frames) for each, part in zip(demos, parts, strict=True)]
    fronts = {stage: frozen_banks(base, frames, stage) for stage in stages}
    replay = None
    if "replay" in config:
        draw = {stage: replay_of(frames[-1], banks[-1]) for stage, banks in fronts.items()}
        replay = Replayed(draw, content.digest(demos[-1]))
    conditions = None if config["conditions"] is None else ConditionRange.from_config(config["conditions"])
    made = []
    for i, split in enumerate(splits):
        cells = {
            shots: few_shot.cells(
                protocol, split, frames[i].demos, conditions, shots, protocol.draws_per_task, config["seed"]
            )
            for shots in (protocol.shots if split == "test" else protocol.shots[:1])
        }
        banks = {stage: front[i] for stage, front in fronts.items()}
        made.append(DataSet(frames[i], banks, cells, content.digest(demos[i]), replay))
    return made


def searched(
    config: Mapping[str, Any],
    arms: Sequence[Arm],
    adapt: Adaptation,
    validation: DataSet,
    protocol: Protocol,
    file: Path,
) -> dict[str, dict[str, Choice]]:
    """Inner optimiser and rate of every method, searched with its first seed and stored in `file`."""
    known = _known(file)
    first = {arm.name: arm for arm in reversed(arms)}
    todo = [name for name in config["arms"] if name not in known]
    for name in progress(todo, description="search of inner rates, methods") if todo else ():
        found = few_shot.search(
            first[name],
            adapt,
            config["search"],
            validation,
            protocol,
        )
        known[name] = {budget: choice._asdict() for budget, choice in found.items()}
        files.write_json(file, known)
    return {name: {b: Choice(**c) for b, c in known[name].items()} for name in config["arms"]}


def _known(file: Path) -> dict[str, Any]:
    return files.read_json(file) if file.exists() else {}


def execute(jobs: Sequence[Job], base_directory: str, control: Control, workers: int, log: EpisodeLog) -> None:
    """Runs the episodes and records each as it ends; an empty `base_directory` is the nano base."""
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
