"""A whole few-shot comparison: train the arms, search their rates, adapt, run episodes, write the report. Resumable."""

import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
from absl import logging

from metalora_jax import adapters
from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.conventions import quick
from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.adaptation.learner import learner, outline
from metalora_jax.data import content
from metalora_jax.data.config import read_demos, unpictured
from metalora_jax.data.frames import gather
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.envs.control import Control
from metalora_jax.envs.world import World, check_shift, world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import alternatives, few_shot, identified, recorded, search
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice
from metalora_jax.evaluation.protocol.checks import (
    check_apart,
    check_demos,
    check_gate,
    check_outcomes,
    check_recorded,
    check_replay,
    check_retention,
    check_splits,
)
from metalora_jax.evaluation.protocol.comparison import Comparison, Identified
from metalora_jax.evaluation.protocol.few_shot import DataSet, Replayed
from metalora_jax.evaluation.protocol.identified import Identifier
from metalora_jax.evaluation.protocol.plan import BASE, Stamps, plan
from metalora_jax.evaluation.reports import provenance, rates
from metalora_jax.evaluation.reports.provenance import Inputs
from metalora_jax.evaluation.reports.records import EpisodeLog
from metalora_jax.evaluation.rollout import Job, one_core_each
from metalora_jax.machine import files
from metalora_jax.machine.forecast import Forecast
from metalora_jax.machine.processes import ALONE, Host, in_processes
from metalora_jax.machine.progress import current_forecast, progress, show_forecast, take_line
from metalora_jax.policies.policy import Stage
from metalora_jax.training import checkpoint
from metalora_jax.training.meta_train import meta_train
from metalora_jax.training.recipe import Recipe
from metalora_jax.training.task_batches import replay_of

RATES = "rates.json"  # in a run's directory: the choices of every method
LOOK = 5.0  # [s] between two checks of a waiting host


def run(comparison: Comparison, workdir: Path, host: Host = ALONE) -> Path:
    """Runs the unfinished part of the comparison in `workdir`.

    Several hosts may share a `workdir` and the episodes, each with a log of its own. The first one trains and searches;
    the others wait for it.

    Returns:
      The run directory, with the host's episodes complete.

    Raises:
      ValueError: if the run was started with another number of hosts, or the config does not fit its world, base or
        protocol.
    """
    protocol, control = comparison.protocol, comparison.closed_loop
    checkpoint.check_claim(workdir, comparison.to_json())
    check_retention(protocol)
    check_replay(comparison)
    where = world(control.world)
    check_splits(comparison, where)
    check_gate(comparison, where)
    check_shift(comparison.conditions, control.world, where)
    check_kinds(comparison, where)
    check_logs(workdir, host)
    check_demos(comparison.data)
    check_apart(comparison)
    if comparison.recorded:
        check_recorded(comparison)
    if host.number:
        wait_for_first(comparison.arms, workdir)
    convert(comparison)
    base = bases.load(comparison.base_directory)
    for doubt in provenance.doubts(comparison.source):
        logging.warning("a report of this run will be refused, or marked as a draft: %s", doubt)
    rollout.check_base(base, control, where)
    where.prepare()
    check_placements(comparison, base)
    checkpoint.claim(workdir, comparison.to_json())  # not before all inputs are there: it binds the directory
    asked, comparison = comparison, settled(comparison, base, workdir, where)
    train(comparison, workdir)
    moved = identified.moved_dimensions(where)
    arms = [arm for name in comparison.arms for arm in build(comparison, name, base, workdir, moved)]
    stages = {arm.learner.stage for arm in arms}
    validation, test = data_sets(comparison, base, stages, ("validation", "test"))
    adapt = Adaptation(protocol.noise_draws)
    if protocol.search_episodes:
        search.check_starts(validation.cells[protocol.shots[0]], test.cells[protocol.shots[0]], protocol, where)
    choices = searched(comparison, arms, adapt, validation, workdir, where)
    data = {"validation": validation.digest, "test": test.digest}
    data |= {"replay": test.replay.digest} if test.replay else {}
    common = provenance.inputs(asked.to_json(), base.fingerprint, comparison.source, base.statistics.digest(), data)
    with EpisodeLog(workdir / log_name(host)) as log:
        stamps = stamp(common, arms, choices, workdir)
        for jobs in plan(arms, choices, adapt, test, protocol, where, log, stamps, host, comparison.report.reference):
            execute(jobs, comparison.base_directory, control, comparison.workers, log)
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


def wait_for_first(arms: Collection[str], workdir: Path) -> None:
    """Returns once the first host has trained and searched: its rates.json names every method."""
    if set(arms) <= set(_known(workdir / RATES)):
        return
    logging.warning("waiting for host 0 to train and to search rates; start it if it is not running")
    while not set(arms) <= set(_known(workdir / RATES)):
        time.sleep(LOOK)


def stamp(
    common: Inputs, arms: Sequence[Arm | Identifier], choices: Mapping[str, Mapping[str, Choice]], workdir: Path
) -> Stamps:
    """Records what each method's episodes depend on; returns the fingerprints that they carry."""
    made = {(BASE, 0): common}
    for arm in arms:
        data = dict(common.data) | ({} if arm.data == "" else {"training": arm.data})
        chosen = {budget: list(choice) for budget, choice in choices[arm.name].items()}
        made[arm.name, arm.meta_seed] = common._replace(data=data, adapter=arm.fingerprint, choices=chosen)
    provenance.keep(workdir, made.values())
    return {key: each.fingerprint for key, each in made.items()}


def convert(comparison: Comparison) -> None:
    """Converts the lerobot policy that the section `convert` names to a base, unless that exists already.

    Its statistics are those of all demonstrations that an arm is trained on, and of no others.
    """
    directory = Path(comparison.base)
    if comparison.convert is None or directory.exists():
        return
    parts = [recipe.data for recipe in comparison.trained.values()]
    singly = unpictured(part._replace(tasks=(task,)) for part in parts for task in part.tasks)
    demos = [
        demo
        for part in progress(singly, description="statistics, demonstration files")
        for recorded in read_demos(part, pictures=False).values()
        for demo in recorded
    ]
    robot, doubts = embodiments.common(part.embodiment for part in parts)
    for doubt in doubts:
        logging.warning("%s", doubt)
    base, source = bases.convert(comparison.convert.policy, demos, comparison.convert.tokenizer, robot)
    logging.info("statistics of %s: %s", directory, source)
    bases.save(directory, base)


def settled(comparison: Comparison, base: Base, workdir: Path, where: World | None = None) -> Comparison:
    """The comparison with the best of its `alternatives` in the arms' places, which are tried unless they were before.

    Without a world to drive in, the loss decides.
    """
    if not comparison.alternatives:
        return comparison
    ways = {
        name: alternatives.recipes(name, comparison.trained[name], of) for name, of in comparison.alternatives.items()
    }
    if not (workdir / rates.STARTS).exists():
        every = {way: recipe for of in ways.values() for way, recipe in of.items()}
        trial = comparison._replace(arms=every, meta_seeds=comparison.meta_seeds[:1], alternatives=None)
        train(trial, workdir)
        arms = [arm for name in trial.arms for arm in build_arm(trial, name, base, workdir)]
        [validation] = data_sets(trial, base, {arm.learner.stage for arm in arms}, ("validation",))
        record = tried(trial, arms, Adaptation(trial.protocol.noise_draws), validation, workdir, where)
        chosen = {name: alternatives.choose(record, list(of), trial.protocol) for name, of in ways.items()}
        # Its rates were searched already.
        search.write(workdir / rates.FILE, record | {name: record[way] for name, way in chosen.items()})
        files.write_json(workdir / rates.STARTS, chosen)
    chosen = alternatives.started(workdir)
    return comparison._replace(arms={**comparison.arms, **{name: ways[name][way] for name, way in chosen.items()}})


def train(comparison: Comparison, workdir: Path) -> None:
    """Meta-trains every arm and seed that has no adapter yet, each in its own process, some in parallel."""
    todo = [
        (comparison.recipe(name, seed), home)
        for seed in comparison.meta_seeds
        for name in comparison.trained
        for home in [_home(workdir, name, seed)]
        if not (home / "adapter").exists()
    ]
    workers = min(comparison.workers, len(todo))
    for _ in in_processes(meta_train, todo, workers, _start_training, (workers, current_forecast())):
        pass


def _start_training(workers: int, forecast: Forecast | None) -> None:
    show_forecast(forecast)
    take_line(one_core_each(workers))


def _home(workdir: Path, name: str, seed: int) -> Path:
    """Where an arm is meta-trained: one that has alternatives, in the chosen one's place."""
    return workdir / "arms" / alternatives.started(workdir).get(name, name) / f"seed_{seed}"


def check_kinds(comparison: Comparison, where: World) -> None:
    """Checks that what is identified can be there in a world.

    Raises:
      ValueError: see `identified.check_kind`.
    """
    for name, arm in comparison.arms.items():
        if isinstance(arm, Identified):
            identified.check_kind(arm.identify, name, where)


def build(
    comparison: Comparison, name: str, base: Base, workdir: Path, moved: Sequence[int]
) -> Sequence[Arm | Identifier]:
    """The arm `name` for every meta-seed; one that takes no steps has no random start, and only the first.

    Args:
      comparison: that it is of.
      name: of the arm.
      base: the frozen policy.
      workdir: of the run, with the trained adapters.
      moved: dimensions of a command that a linear map covers, see `identified.moved_dimensions`.
    """
    arm = comparison.arms[name]
    if isinstance(arm, Identified):
        return [identified.make(name, arm.identify, base, comparison.meta_seeds[0], moved)]
    return build_arm(comparison, name, base, workdir)


def check_placements(comparison: Comparison, base: Base) -> None:
    """Refuses arms that do not fit the base, before anything is read, trained or kept.

    Raises:
      ValueError: the message names the arm, or the way to train it, and the rule.
    """
    for name, arm in comparison.arms.items():
        if isinstance(arm, Identified):
            identified.check_base(arm.identify, name, base)
    placements = {name: arm.placement for name, arm in comparison.arms.items() if not isinstance(arm, Identified)}
    for name, of in (comparison.alternatives or {}).items():
        ways = alternatives.recipes(name, comparison.trained[name], of)
        placements |= {way: recipe.placement for way, recipe in ways.items()}
    for name, placement in placements.items():
        try:
            theta = outline(base, placement).theta
            if comparison.protocol.retention_scales:
                jax.eval_shape(partial(adapters.scaled, placement=placement, factor=0.5), theta)
        except ValueError as error:
            raise ValueError(f"arms.{name}.placement: {error}") from None


def build_arm(comparison: Comparison, name: str, base: Base, workdir: Path) -> list[Arm]:
    """The arm `name`, which takes gradient steps, for every meta-seed: from its trained adapter or a fresh start."""
    arm, made = comparison.arms[name], []
    assert not isinstance(arm, Identified)
    for seed in comparison.meta_seeds:
        if isinstance(arm, Recipe):
            learned = adapter.load(_home(workdir, name, seed) / "adapter", base)
            start = learned.learner, learned.placement, learned.meta_params
            made.append(Arm(name, seed, *start, arm.meta.max_norm, learned.head, learned.data))
        else:
            learn = learner(base, arm.placement, jax.random.key(seed))
            start = learn, arm.placement, {"theta": learn.theta}
            made.append(Arm(name, seed, *start, comparison.protocol.max_norm))
    return made


def data_sets(
    comparison: Comparison, base: Base, stages: Collection[Stage], splits: Sequence[Literal["validation", "test"]]
) -> list[DataSet]:
    """Reads the splits' demonstrations, computes their frozen front up to each of `stages` and lays out the cells.

    They share the replayed demonstrations, if there are any.
    """
    protocol = comparison.protocol
    parts = [getattr(comparison, split) for split in splits]
    parts += [comparison.replay] if comparison.replay else []
    said = [line for part in parts for line in embodiments.check(part.embodiment, base.embodiment)]
    demos = [read_demos(part) for part in parts]
    said += [line for each in demos for line in quick(base, each)]
    for doubt in dict.fromkeys(said):
        logging.warning("%s", doubt)
    frames = [gather(each, base.preprocessor, each=part.frames) for each, part in zip(demos, parts, strict=True)]
    fronts = {stage: frozen_outputs(base, frames, stage) for stage in stages}
    replay = None
    if comparison.replay:
        draw = {stage: replay_of(frames[-1], outputs[-1]) for stage, outputs in fronts.items()}
        replay = Replayed(draw, content.digest(demos[-1]))
    made = []
    for i, split in enumerate(splits):
        layout = protocol, split, frames[i].demos, comparison.conditions
        known = recorded.conditions(parts[i]) if comparison.recorded else None
        cells = {
            shots: few_shot.cells(*layout, shots, comparison.seed, known)
            for shots in (protocol.shots if split == "test" else protocol.shots[:1])
        }
        outputs = {stage: front[i] for stage, front in fronts.items()}
        made.append(DataSet(frames[i], outputs, cells, content.digest(demos[i]), replay))
    return made


def searched(
    comparison: Comparison,
    arms: Sequence[Arm | Identifier],
    adapt: Adaptation,
    validation: DataSet,
    workdir: Path,
    where: World | None = None,
) -> dict[str, dict[str, Choice]]:
    """Inner optimiser and rate of every method, searched with its first seed and kept in rates.json; see `tried`."""
    file = workdir / RATES
    known = _known(file)
    first = {arm.name: arm for arm in reversed(arms)}
    todo = [first[name] for name in comparison.arms if name not in known]
    if todo:
        record = tried(comparison, todo, adapt, validation, workdir, where)
        for arm in todo:
            known[arm.name] = {budget: choice._asdict() for budget, choice in search.chosen(record, arm.name).items()}
        files.write_json(file, known)
    return {name: {b: Choice(**c) for b, c in known[name].items()} for name in comparison.arms}


def tried(
    comparison: Comparison,
    arms: Sequence[Arm | Identifier],
    adapt: Adaptation,
    validation: DataSet,
    workdir: Path,
    where: World | None = None,
) -> search.Record:
    """What the search tries for each of `arms`, kept in search.json: an interrupted one goes on from there.

    Without a world to drive in, the loss decides.
    """
    file, driven = workdir / rates.FILE, where is not None and comparison.protocol.search_episodes > 0

    def run(jobs: Sequence[Job]) -> Iterator[rollout.Outcome]:
        return rollout.run(jobs, comparison.base_directory, comparison.closed_loop, comparison.workers)

    how = search.Search(adapt, comparison.search, validation, comparison.protocol)
    how = how._replace(where=where, run=run) if driven else how
    return search.search(arms, how, search.read(file), partial(search.write, file))


def _known(file: Path) -> dict[str, Any]:
    return files.read_json(file) if file.exists() else {}


def execute(jobs: Sequence[Job], base_directory: Path | None, control: Control, workers: int, log: EpisodeLog) -> None:
    """Runs the episodes and records each as it ends; None is the nano base in the package.

    Raises:
      RuntimeError: every episode ended by an error.
    """
    errors: list[str | None] = []
    total = sum(len(job.rollouts) for job in jobs)
    outcomes = rollout.run(jobs, base_directory, control, workers)
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
            commands=outcome.digest,
        )
        log.append(completed)
        errors.append(outcome.error)
    check_outcomes(errors, str(log.path))
