"""Meta-training: learns theta on a base from many tasks or many deployment conditions, into an adapter directory."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import logging

from metalora_jax import adapters, trees
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation import features
from metalora_jax.adaptation.adapter import save
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.frozen_front import frozen_banks
from metalora_jax.adaptation.learner import Learner, learner, loss_fn
from metalora_jax.adapters import placement
from metalora_jax.data import content
from metalora_jax.data.config import DataConfig, read_demos
from metalora_jax.data.frames import Frames, Relabel, gather, rows_and_labels
from metalora_jax.data.normalize import normalize_actions
from metalora_jax.data.tasks import draw_tasks
from metalora_jax.envs.conditions import Condition, ConditionRange, command_labels
from metalora_jax.fields import from_fields
from metalora_jax.memory import sparing
from metalora_jax.meta import MetaMethod
from metalora_jax.training import loop, methods, task_batches
from metalora_jax.training.augmentation import augmented, variants
from metalora_jax.types import ActionChunk, Array, Batch, PyTree

OUTWEIGHS = 5.0  # mean square of a task's normalised actions; it is about 1 over all data behind the statistics


class BatchConfig(NamedTuple):
    """What one meta-step consumes."""

    meta_batch: int  # tasks
    shots: int  # demonstrations in a task's support set
    frames: int  # frames in each inner step's minibatch
    query_demos: int
    query_frames: int
    draws: int  # samples of (t, noise) per frame
    kept: Sequence[str] = ()  # of data.tasks, those that are not adapted to, and that adapting must not cost
    kept_frames: int = 0  # frames of `kept`, which every task's query has besides its own
    replay_frames: int = 0  # frames of `kept`, which every inner step's minibatch has besides its own

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "BatchConfig":
        """Reads the section `batch`; see `fields.from_fields`."""
        return from_fields(cls, fields, "batch")


class OuterConfig(NamedTuple):
    """The outer optimiser: Adam with clipping, warm-up and a cosine to a tenth."""

    steps: int
    rate: float  # of theta
    rate_of_rates: float | None  # of the logarithms of learned inner rates; None where they are not learned
    max_norm: float

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "OuterConfig":
        """Reads the section `outer`; see `fields.from_fields`."""
        return from_fields(cls, fields, "outer")


class Setting(NamedTuple):
    """A config, read and checked; everything that meta-training needs that is not a number on the way."""

    base: Base
    learner: Learner
    placement: adapters.Placement
    frames: Frames
    data: str  # digest of the demonstrations
    conditions: ConditionRange | None
    batch: BatchConfig


def setting(config: Mapping[str, Any]) -> Setting:
    """Reads base, demonstrations and placement. Unknown and missing fields raise ValueError, by name."""
    base = bases.load(config["base"] or None)
    rules = placement.from_json([dict(rule) for rule in config["placement"]])
    data = DataConfig.from_config(config["data"])
    demos = augmented(config, read_demos(data))
    frames = gather(demos, base.preprocessor, variants(config), data.frames)
    conditions = None if config["conditions"] is None else ConditionRange.from_config(config["conditions"])
    key = jax.random.key(config["seed"])
    batch = BatchConfig.from_config(config["batch"])
    check_kept(batch, frames.demos)
    if found := outweighing(frames):
        logging.warning(
            "%d of %d tasks have actions far outside the base's statistics and will outweigh the others (mean square, "
            "normalised, in brackets); leave them out, or take a base with statistics of them too: %s",
            *(len(found), len(frames.demos), ", ".join(found)),
        )
    return Setting(base, learner(base, rules, key), rules, frames, content.digest(demos), conditions, batch)


def check_kept(batch: BatchConfig, tasks: Collection[str]) -> None:
    """Refuses tasks to keep that are unknown, that are all there are, or of which no frame would be drawn.

    Raises:
      ValueError: as said.
    """
    if unknown := set(batch.kept) - set(tasks):
        raise ValueError(
            f"batch.kept: {min(unknown)!r} is not in data.tasks; add it there, its demonstrations are read"
        )
    if bool(batch.kept) != (batch.kept_frames > 0):
        named = len(batch.kept)
        raise ValueError(f"batch.kept names {named} tasks, kept_frames is {batch.kept_frames}: set both or neither")
    if batch.replay_frames < 0 or (batch.replay_frames and not batch.kept):
        raise ValueError(f"batch.replay_frames is {batch.replay_frames}: name the tasks to replay in batch.kept, or 0")
    if set(batch.kept) >= set(tasks):
        raise ValueError("batch.kept names all of data.tasks: none is left to adapt to")


def relabel_of(condition: Condition | None) -> Relabel | None:
    """How recorded actions become a condition's commands."""
    if condition is None:
        return None
    return lambda actions: command_labels(actions, condition)


def make_gradient(method: MetaMethod, bank: PyTree) -> loop.Gradient:
    """A meta-method's gradient as the loop wants it, over batches of row numbers of `bank`; None: over filled ones."""

    def gradient(params: PyTree, batch: Any, key: jax.Array) -> tuple[PyTree, dict[str, Array]]:
        filled = batch if bank is None else task_batches.fill_tasks(batch, bank)
        grads, metrics = method.gradient(params, filled, key)
        numbers: dict[str, Array] = {"loss": metrics["query_loss"], "distance": metrics["distance"]}
        if metrics["support_losses"].size:
            numbers["support_loss_first"] = metrics["support_losses"][0]
            numbers["support_loss_last"] = metrics["support_losses"][-1]
        return grads, numbers

    return gradient


def report_placement(known: Setting, bank: PyTree) -> None:
    """Says how much is adapted, from where on, and which adapters can never learn."""
    theta = known.learner.theta
    logging.info(
        "adapting %d parameters on %d maps; frozen up to: %s", trees.count(theta), len(theta), known.learner.stage
    )
    rows, labels = rows_and_labels(known.frames, next(iter(known.frames.demos)), (0,))
    batch = task_batches.fill(task_batches.Rows(rows[:4], ActionChunk(*(x[:4] for x in labels))), bank)

    def loss(theta: PyTree, start: Learner, batch: Batch) -> jax.Array:
        return loss_fn(start, draws=1)(theta, batch, jax.random.key(0))

    dead = adapters.dead_adapters(jax.jit(jax.grad(loss))(theta, known.learner, batch))
    if dead:
        logging.warning("no gradient reaches the adapters on %s; leave them out of the placement", ", ".join(dead))


def outweighing(frames: Frames) -> list[str]:
    """Tasks whose actions the base's statistics do not cover: their loss would drown the others'."""
    statistics, sizes = frames.preprocessor.statistics, frames.preprocessor.sizes
    found = []
    for task, recorded in frames.actions.items():
        normalised = normalize_actions(statistics, np.concatenate(recorded), sizes.action)
        square = float(np.mean(np.square(normalised[:, : recorded[0].shape[1]])))
        if square > OUTWEIGHS:
            found.append(f"{task} ({square:.0f})")
    return found


def outer_optimizer(outer: OuterConfig, learned: bool) -> optax.GradientTransformation:
    """See OuterConfig. Rates have a rate of their own: in logarithms, theta's would change them by a few percent only.

    Raises:
      ValueError: `rate_of_rates` is given where no rate is learned, or the reverse.
    """
    if learned != (outer.rate_of_rates is not None):
        raise ValueError("outer.rate_of_rates belongs to learned inner rates: set it with them, and only with them")
    warmup = min(20, outer.steps // 10)

    def adam(peak: float) -> optax.GradientTransformation:
        return optax.adam(optax.warmup_cosine_decay_schedule(0.0, peak, warmup, outer.steps, peak / 10))

    rates = {"theta": adam(outer.rate)} | ({"log_rates": adam(outer.rate_of_rates)} if outer.rate_of_rates else {})
    return optax.chain(
        optax.clip_by_global_norm(outer.max_norm),
        optax.multi_transform(rates, lambda params: {name: name for name in params}),
    )


def meta_train(config: Mapping[str, Any], workdir: Path, sinks: Callable[[int], list] = lambda _: []) -> Path:
    """Runs (or resumes) meta-training in `workdir`, which `config` has claimed; returns the adapter directory.

    The adapter holds the meta-parameters: theta, and log_rates where rates are learned.
    """
    target = workdir / "adapter"
    if target.exists():
        return target
    known = setting(config)
    base, learn, batch = known.base, known.learner, known.batch
    meta = dict(config["meta"])
    inner_steps = meta.pop("inner_steps")
    outer = OuterConfig.from_config(config["outer"])
    dropout = any(rule.kind is not None and rule.kind.random for rule in known.placement)

    def method(start: Learner) -> MetaMethod:
        return methods.build(loss_fn(start, draws=batch.draws, dropout=dropout), **meta)

    optimizer = outer_optimizer(outer, meta["optimizer"] in methods.LEARNED)
    [bank] = frozen_banks(base, [known.frames], learn.stage)
    report_placement(known, bank)
    # The learner is an argument: what a jitted function closes over becomes part of its program.
    step = jax.jit(
        lambda state, rows, key, bank, start: loop.update(
            state, rows, key, make_gradient(method(start), bank), optimizer
        ),
        donate_argnums=0,
        compiler_options=sparing(),
    )

    def one_step(state: loop.TrainState, rows: task_batches.TaskRows, key: jax.Array) -> Any:
        if features.on_host(bank):
            return step(state, task_batches.fill_tasks(rows, bank), key, None, learn)
        return step(state, rows, key, bank, learn)

    tasks = [task for task in known.frames.demos if task not in batch.kept]
    kept = task_batches.all_rows(known.frames, batch.kept) if batch.kept else None

    def batch_of(number: int) -> task_batches.TaskRows:
        conditions = known.conditions
        draws = draw_tasks(
            config["seed"],
            number,
            batch.meta_batch,
            tasks,
            known.frames.demos,
            batch.shots,
            batch.query_demos,
            (lambda rng: None) if conditions is None else (lambda rng: conditions.sample(rng, "train")),
        )
        sizes = inner_steps, batch.frames, batch.query_frames
        others = kept, batch.kept_frames, batch.replay_frames
        return task_batches.task_batch(known.frames, draws, relabel_of, *sizes, *others)

    state = loop.run(
        workdir,
        loop.init(method(learn).init(learn.theta), optimizer),
        one_step,
        batch_of,
        steps=outer.steps,
        seed=config["seed"],
        description=f"meta-train {meta['method']}, seed {config['seed']}",
        checkpoint_every=config["checkpoint_every"],
        sinks=sinks,
    )
    save(target, base, known.placement, state.params, config=config, data=known.data)
    return target
