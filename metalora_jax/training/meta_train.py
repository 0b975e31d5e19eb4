"""Meta-training: learns theta on a base from many tasks or many deployment conditions, into an adapter directory."""

import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import logging

from metalora_jax import adapters, trees
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation import features
from metalora_jax.adaptation.adapter import manifest_of, save
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.conventions import quick
from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.adaptation.learner import Learner, learner, loss_fn
from metalora_jax.adapters import Placement
from metalora_jax.data import content
from metalora_jax.data.config import check_there, described, read_demos, resolved, weights
from metalora_jax.data.frames import Frames, Relabel, gather, rows_and_labels
from metalora_jax.data.normalize import normalize_actions
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.data.tasks import draw_tasks
from metalora_jax.envs.conditions import Condition, command_labels
from metalora_jax.machine.memory import sparing
from metalora_jax.machine.progress import progress, waiting
from metalora_jax.meta import MetaMethod
from metalora_jax.training import checkpoint, loop, methods, task_batches
from metalora_jax.training.adapt import unmoved as check_moved
from metalora_jax.training.augmentation import augmented
from metalora_jax.training.recipe import OuterConfig, Recipe
from metalora_jax.training.validation import Look, cells, learned
from metalora_jax.types import ActionChunk, Array, Batch, PyTree
from metalora_jax.words import plural

CARTESIAN = (4, 7)  # numbers of an action that conditions fit
BEST = "best"  # the adapter directory, beside the last one, that did best on what validation keeps out
_STEPS = "outer.steps"  # the one field that may grow
OUTWEIGHS = 5.0  # mean square of a task's normalised actions; it is about 1 over all data behind the statistics


class Setting(NamedTuple):
    """What a recipe names, read and checked; everything that meta-training needs that is not a number on the way."""

    recipe: Recipe  # with its tasks, cameras and held-out episodes named
    base: Base
    learner: Learner
    frames: Frames
    data: str  # digest of the demonstrations
    embodiment: Embodiment  # of the robot that recorded them, and what the base knows besides


def setting(recipe: Recipe) -> Setting:
    """Reads base and demonstrations, and attaches the adapters.

    Raises:
      ValueError: the placement does not fit the base, or the data have not what the recipe asks for.
    """
    base = bases.load(recipe.base or None)
    start = learner(base, recipe.placement, jax.random.key(recipe.seed))  # before anything is read: it may not fit
    data, held_out = resolved(recipe.data.with_cameras(base.embodiment.cameras))
    recipe = recipe._replace(data=data)
    logging.info("%s", described(data, held_out))
    left = learned(data, recipe.validation)
    if apart := left.drop[len(data.drop) :]:
        logging.info("validation looks at episodes %s, and nothing is learned from them", ",".join(map(str, apart)))
    check_fits(recipe._replace(data=left), base)
    check_there(left)
    robot = data.embodiment
    for doubt in embodiments.check(robot, base.embodiment):
        logging.warning("%s: %s", data.directory, doubt)
    read = read_demos(left)
    robot = robot.measured([demo for recorded in read.values() for demo in recorded])
    extended = recipe.symmetries, recipe.paraphrases, recipe.deployments
    demos = augmented(read, data.cameras, *extended)
    for doubt in [*embodiments.check_units(robot, base.embodiment), *quick(base, demos)]:
        logging.warning("%s", doubt)
    frames = gather(demos, base.preprocessor, recipe.augment, recipe.data.frames)
    check_retained(recipe.batch.retained_tasks, frames.demos)
    if found := outweighing(frames):
        logging.warning(
            "%d of %d tasks have actions far outside the base's statistics and will outweigh the others (mean square, "
            "normalised, in brackets); leave them out, or take a base with statistics of them too: %s",
            *(len(found), len(frames.demos), ", ".join(found)),
        )
    return Setting(recipe, base, start, frames, content.digest(demos), robot.over(base.embodiment))


def check_fits(recipe: Recipe, base: Base) -> None:
    """Refuses, before demonstrations are read, what does not fit the base and its robot; the data are resolved.

    Raises:
      ValueError: conditions are not of these actions; the data have more cameras than the base takes, or a task fewer
        demonstrations than a meta-step draws.
    """
    width = len(base.statistics.action_mean)
    if recipe.conditions is not None and width not in CARTESIAN:
        raise ValueError(
            "conditions turn and scale Cartesian actions (x, y, z, perhaps axis-angle, gripper: 4 or 7 numbers), and "
            f"those of the base have {width}: set --config.conditions=None; `deployments` shifts joints"
        )
    cameras = recipe.data.cameras
    if len(cameras) > base.sizes.cameras:
        raise ValueError(
            f"{recipe.data.directory}: {len(cameras)} cameras ({', '.join(cameras)}), and the base takes "
            f"{base.sizes.cameras}: choose some, in the base's order, with --config.data.cameras; of a comparison, "
            "with --config=own_robot_few_shot:DATASET:CAMERA,CAMERA"
        )
    least = recipe.batch.shots + recipe.batch.query_demos
    for part in (recipe.data, *recipe.data.others.values()):
        if part.demos is None:
            source = part.open(pictures=False)
            for task in part.tasks:
                if (there := len(source.listing(source.find(task)))) < least:
                    raise ValueError(
                        f"{part.directory}: {task!r} has {plural(there, 'demonstration')} to learn from, and "
                        f"batch.shots + batch.query_demos are {least}: record more, lower those, or leave the task out"
                    )


def check_retained(retained: Collection[str], tasks: Collection[str]) -> None:
    """Refuses tasks to retain that are unknown, or that are all there are.

    Raises:
      ValueError: the message names the task.
    """
    if unknown := set(retained) - set(tasks):
        raise ValueError(
            f"batch.retained_tasks: {min(unknown)!r} is not in data.tasks; add it there, its demonstrations are read"
        )
    if set(retained) >= set(tasks):
        raise ValueError("batch.retained_tasks names all of data.tasks: none is left to adapt to")


def relabel_of(condition: Condition | None) -> Relabel | None:
    """How recorded actions become a condition's commands."""
    if condition is None:
        return None
    return lambda actions: command_labels(actions, condition)


def make_gradient(method: MetaMethod, frozen: PyTree) -> loop.Gradient:
    """A meta-method's gradient as the loop wants it, over row numbers of `frozen`; None: over filled batches."""

    def gradient(params: PyTree, batch: Any, key: jax.Array) -> tuple[PyTree, dict[str, Array]]:
        filled = batch if frozen is None else task_batches.fill_tasks(batch, frozen)
        grads, metrics = method.gradient(params, filled, key)
        numbers: dict[str, Array] = {"loss": metrics["query_loss"], "distance": metrics["distance"]}
        if metrics["support_losses"].size:
            numbers["support_loss_first"] = metrics["support_losses"][0]
            numbers["support_loss_last"] = metrics["support_losses"][-1]
        return grads, numbers

    return gradient


def report_placement(known: Setting, frozen: PyTree) -> None:
    """Says how much is adapted, from where on, and which adapters can never learn."""
    theta = known.learner.theta
    logging.info(
        "adapting %d parameters on %d maps; frozen up to: %s", trees.count(theta), len(theta), known.learner.stage
    )
    rows, labels = rows_and_labels(known.frames, next(iter(known.frames.demos)), (0,))
    batch = task_batches.fill(task_batches.Rows(rows[:4], ActionChunk(*(x[:4] for x in labels))), frozen)

    with progress(description="gradients of every adapter", total=1, delay=1.0) as bar, waiting(bar, "compiling"):
        gradients = jax.block_until_ready(_gradients(theta, known.learner, batch))
        bar.update()
    dead = adapters.dead_adapters(gradients)
    if dead:
        logging.warning("no gradient reaches the adapters on %s; leave them out of the placement", ", ".join(dead))


@jax.jit
def _gradients(theta: PyTree, start: Learner, batch: Batch) -> PyTree:
    return jax.grad(loss_fn(start, draws=1))(theta, batch, jax.random.key(0))


def outweighing(frames: Frames) -> list[str]:
    """Tasks whose actions the base's statistics do not cover: their loss would drown the others'."""
    statistics, sizes = frames.preprocessor.statistics.of_commands(), frames.preprocessor.sizes
    found = []
    for task, recorded in frames.actions.items():
        normalised = normalize_actions(statistics, np.concatenate(recorded), sizes.action)
        square = float(np.mean(np.square(normalised[:, : recorded[0].shape[1]])))
        if square > OUTWEIGHS:
            found.append(f"{task} ({square:.0f})")
    return found


def outer_schedule(outer: OuterConfig, peak: float) -> optax.Schedule:
    """The rate of each update: a short warm-up and a cosine to a tenth of `peak`."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, min(20, outer.steps // 10), outer.steps, peak / 10)


def outer_optimizer(outer: OuterConfig) -> optax.GradientTransformation:
    """See OuterConfig. Learned rates have their own: in logarithms, theta's would change them by a few percent."""

    def adam(peak: float) -> optax.GradientTransformation:
        return optax.adam(outer_schedule(outer, peak))

    optimizers = {"theta": adam(outer.learning_rate)}
    if outer.learning_rate_of_rates is not None:
        optimizers["log_rates"] = adam(outer.learning_rate_of_rates)
    return optax.chain(
        optax.clip_by_global_norm(outer.max_norm),
        optax.multi_transform(optimizers, lambda params: {name: name for name in params}),
    )


def batches(recipe: Recipe, frames: Frames) -> Callable[[int], task_batches.TaskRows]:
    """Step number -> the tasks of that meta-step, pure in (seed, step)."""
    batch, conditions = recipe.batch, recipe.conditions
    tasks = [task for task in frames.demos if task not in batch.retained_tasks]
    retained = task_batches.all_rows(frames, batch.retained_tasks) if batch.retained_tasks else None

    def condition(rng: np.random.Generator) -> Condition | None:
        return None if conditions is None else conditions.sample(rng, "train")

    def of(step: int) -> task_batches.TaskRows:
        counts = batch.meta_batch, tasks, frames.demos, batch.shots, batch.query_demos
        draws = draw_tasks(recipe.seed, step, *counts, condition, weights(recipe.data, tasks))
        sizes = recipe.meta.inner_steps, batch.frames, batch.query_frames
        others = retained, batch.retained_frames, batch.replay_frames
        return task_batches.task_batch(frames, draws, relabel_of, *sizes, *others)

    return of


def outer_step(recipe: Recipe, known: Setting, frozen: PyTree) -> loop.Step:
    """(state, rows, key) -> (state, metrics): one update, compiled, over row numbers of the frozen outputs."""
    compiled = _update(recipe.meta, recipe.batch.noise_draws, _random(recipe.placement), recipe.outer)

    def step(state: loop.TrainState, rows: task_batches.TaskRows, key: jax.Array) -> Any:
        if features.on_host(frozen):
            return compiled(state, task_batches.fill_tasks(rows, frozen), key, None, known.learner)
        return compiled(state, rows, key, frozen, known.learner)

    return step


@functools.cache  # so that runs in one process that differ in seed or data compile once
def _update(meta: methods.MetaConfig, draws: int, dropout: bool, outer: OuterConfig) -> Any:
    optimizer = outer_optimizer(outer)

    def update(
        state: loop.TrainState, rows: task_batches.TaskRows, key: jax.Array, frozen: PyTree, start: Learner
    ) -> tuple[loop.TrainState, dict[str, Array]]:
        method = methods.build(loss_fn(start, draws=draws, dropout=dropout), meta)
        return loop.update(state, rows, key, make_gradient(method, frozen), optimizer)

    # The learner is an argument: what a jitted function closes over becomes part of its program.
    return jax.jit(update, donate_argnums=0, compiler_options=sparing())


def method_of(recipe: Recipe, start: Learner) -> MetaMethod:
    """The recipe's meta-method on the losses of `start`."""
    loss = loss_fn(start, draws=recipe.batch.noise_draws, dropout=_random(recipe.placement))
    return methods.build(loss, recipe.meta)


def _random(placement: Placement) -> bool:
    return any(rule.kind is not None and rule.kind.random for rule in placement)


def validation(recipe: Recipe, known: Setting, best: Path) -> Callable[[int, loop.TrainState], dict[str, float]]:
    """(step, state) -> metrics after adapting to what is held out; keeps the best adapter in the directory `best`."""
    assert recipe.validation is not None
    conditions = recipe.conditions

    def relabel(rng: np.random.Generator) -> Relabel | None:
        return None if conditions is None else relabel_of(conditions.sample(rng, "validation"))

    look = Look(
        known.base,
        cells(recipe.data, recipe.validation, recipe.batch.shots),
        known.learner.stage,
        steps=recipe.meta.inner_steps,
        frames=recipe.batch.frames,
        seed=recipe.seed,
        each=recipe.data.frames,
        relabel=relabel,
    )
    there = manifest_of(best) if best.exists() else None  # of the run that this one resumes
    least = there["config"]["validated"]["error"] if there else np.inf

    def seen(step: int, state: loop.TrainState) -> dict[str, float]:
        nonlocal least
        found = look(step, known.learner, lambda start: method_of(recipe, start), state.params)
        if found.error < least:
            least, made = found.error, recipe.to_json() | {"validated": found._asdict()}
            _keep(best, known, state.params, made)
        return found.metrics()

    return seen


def meta_train(recipe: Recipe, workdir: str | Path, sinks: Callable[[int], list] = lambda _: []) -> Path:
    """Runs meta-training in `workdir`, or resumes it there; returns the adapter directory.

    The adapter holds the meta-parameters: theta, and log_rates where rates are learned. With a section `validation`,
    `workdir`/best holds those that had the least action error after adapting to what is held out. A run that has ended
    goes on where `recipe` differs in nothing but more steps; from there on its rates are those of the longer schedule.

    Raises:
      WorkdirError: `workdir` holds another run.
      ValueError: see `setting`; or theta did not move in all of the run.
    """
    workdir, claimed = Path(workdir), recipe.to_json()
    checkpoint.check_claim(workdir, claimed, _STEPS)
    target = workdir / "adapter"
    if target.exists() and (done := manifest_of(target)):
        if (steps := done["config"]["outer"]["steps"]) == recipe.outer.steps:
            return target
        logging.info(
            "%s goes on from %d to %d outer steps; its adapter stays until then", workdir, steps, recipe.outer.steps
        )
    known = setting(recipe)
    recipe = known.recipe
    checkpoint.claim(workdir, claimed, _STEPS)  # not before the inputs are there: a mistyped path would bind it
    optimizer = outer_optimizer(recipe.outer)
    [frozen] = frozen_outputs(known.base, [known.frames], known.learner.stage)
    report_placement(known, frozen)
    before = jax.tree.map(np.array, known.learner.theta)  # a copy: the loop's first step takes the arrays over
    state = loop.run(
        workdir,
        loop.init(method_of(recipe, known.learner).init(known.learner.theta), optimizer),
        outer_step(recipe, known, frozen),
        batches(recipe, known.frames),
        steps=recipe.outer.steps,
        seed=recipe.seed,
        description=f"meta-train {recipe.meta.method}, seed {recipe.seed}",
        checkpoint_every=recipe.checkpoint_every,
        sinks=sinks,
        learning_rate=outer_schedule(recipe.outer, recipe.outer.learning_rate),
        look=validation(recipe, known, workdir / BEST) if recipe.validation else None,
        look_every=recipe.validation.every if recipe.validation else 0,
    )
    check_moved(before, state.params["theta"])
    _keep(target, known, state.params, claimed)
    return target


def _keep(directory: Path, known: Setting, meta_params: PyTree, config: Mapping[str, Any]) -> None:
    """Saves an adapter; one that is there stays until this one is whole."""
    save(
        directory,
        known.base,
        known.recipe.placement,
        meta_params,
        config=config,
        data=known.data,
        embodiment=known.embodiment,
        overwrite=directory.exists(),
    )
