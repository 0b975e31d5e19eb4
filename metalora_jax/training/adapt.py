"""From a few demonstrations and a meta-learned adapter to an adapter for their task."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from metalora_jax import meta, trees
from metalora_jax.adaptation.adapter import Start
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.adaptation.learner import Learner, loss_fn
from metalora_jax.adaptation.prediction import recorded
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.frames import Frames, gather, rows_and_labels
from metalora_jax.data.plausibility import refuse_idle
from metalora_jax.fields import check_positive
from metalora_jax.machine.progress import progress, waiting
from metalora_jax.meta import InnerOptions
from metalora_jax.training.methods import OPTIMIZERS
from metalora_jax.training.metrics import Sink
from metalora_jax.training.task_batches import Replay, Rows, behind, drawn, fill, replay_of
from metalora_jax.training.validation import FEW, MANY, Validated, validated
from metalora_jax.types import Batch, Demo, PyTree

STILL = 2.0**-23  # of all of theta: a smaller change is below what float32 resolves
HOLD_OUT = 10  # every tenth frame is kept back, to see whether the adapter has learned or memorised
DRAWS, FEW_DRAWS = 8, 2  # samples of (t, noise) that a loss is judged with; few where a policy is large
JUDGED, FEW_JUDGED = 8, 1  # minibatches at most, spread over the frames, that a loss is measured on, likewise
FRAMES, FEW_FRAMES = 32, 8  # in a minibatch; few make the steps of a large policy quick
_TASK = "the task"


class Options(NamedTuple):
    """How to adapt."""

    optimizer: str = "learned"  # "learned", "sgd" or "adam"
    learning_rate: float = 1.0  # of sgd and adam; a factor on learned rates
    steps: int = 3
    frames: int = FRAMES  # in a minibatch
    noise_draws: int = 2  # samples of (t, noise) per frame
    max_norm: float | None = 1.0  # clips every gradient
    seed: int = 0
    fast: tuple[str, ...] | None = None  # leaf paths that move; None takes those of the start: all, or ANIL's head
    replay_frames: int = 0  # frames of earlier tasks in a minibatch, besides `frames`
    validate_every: int = 0  # steps between two looks at held-out demonstrations; 0 where there are none
    patience: int = 0  # looks without a better one after which it stops; 0: it takes all steps
    data_frames: int | None = (
        None  # of each demonstration, spread evenly; few make a large base's front cheap. None: all
    )


class Adapted(NamedTuple):
    """What `adapt` returns."""

    learner: Learner  # that of the start, with the adapted theta: what an `Agent` acts with
    support_loss: tuple[float, float]  # before and after, on frames it learned from
    # before and after, on frames kept back from the same demonstrations; None where they are too short to keep any back
    held_out_loss: tuple[float, float] | None
    replay_loss: tuple[float, float] | None  # before and after, on earlier tasks; None where none are replayed
    frames: tuple[int, int]  # learned from, and kept back
    judged: int  # frames at most that each of the losses is measured on
    front: tuple[Frames, PyTree]  # the frames of the demonstrations, and their frozen front
    seconds: float  # of the gradient steps, without compilation
    unmoved: tuple[str, ...] = ()  # adapted maps whose parameters are what they were before
    validation: tuple[Validated, ...] = ()  # from step 0 on; theta is that of the one with the least error

    @property
    def best(self) -> Validated | None:
        """The validation that theta is of; None where there was none."""
        return min(self.validation, key=lambda each: each.error, default=None)

    @property
    def theta(self) -> PyTree:
        """The adapted parameters."""
        return self.learner.theta


_DEFAULT = Options()


def inner_loop(
    optimizer: str, noise_draws: int, options: InnerOptions, keep: tuple[int, ...] = ()
) -> Callable[..., meta.AdaptResult]:
    """(learner, meta_params, support, key, rate, first, state) -> one gradient step for each minibatch of `support`.

    `first` and `state` go on where another run ended, see `meta.adapt`; without them it starts.

    Args:
      optimizer: "learned" (then `rate` is a factor on the learned rates), or a name in `methods.OPTIMIZERS`.
      noise_draws: samples of (t, noise) per frame.
      options: mask and clipping.
      keep: steps after which theta is returned too.
    """

    def run(
        start: Learner,
        meta_params: PyTree,
        support: Batch,
        key: jax.Array,
        rate: jax.Array,
        first: jax.Array | int = 0,
        state: PyTree = None,
    ) -> meta.AdaptResult:
        loss = loss_fn(start, draws=noise_draws)
        inner = inner_optimizer(optimizer, meta_params, rate)
        theta = meta_params["theta"]
        return meta.adapt(loss, theta, support, key, inner, options, keep=keep, first=first, state=state)

    return run


@functools.cache
def program(optimizer: str, noise_draws: int, options: InnerOptions, keep: tuple[int, ...] = ()) -> Any:
    """`inner_loop` under jit; the same for the same arguments, so that a process compiles it once for each shape."""
    return jax.jit(inner_loop(optimizer, noise_draws, options, keep))


def inner_optimizer(optimizer: str, meta_params: PyTree, rate: jax.Array) -> optax.GradientTransformation:
    """ "learned", whose rates are those of `meta_params` times `rate`, or a name in `methods.OPTIMIZERS`."""
    if optimizer == "learned":
        return meta.descend(jax.tree.map(lambda log_rate: log_rate + jnp.log(rate), meta_params["log_rates"]))
    return OPTIMIZERS[optimizer](rate)


def adapt(
    base: Base,
    start: Start,
    demos: Sequence[Demo],
    options: Options = _DEFAULT,
    augment: ImageAugmentation | None = None,
    earlier: Mapping[str, Sequence[Demo]] | None = None,
    held_out: Sequence[Demo] = (),
    sinks: Sequence[Sink] = (),
) -> Adapted:
    """Adapts to `demos`, all of one task; losses are of the frames as they are.

    With held-out demonstrations it looks at them every `options.validate_every` steps, keeps the theta with the least
    action error there, and stops after `options.patience` looks without a better one.

    Args:
      base: the frozen policy.
      start: the adapter that it starts from.
      demos: of the task.
      options: how; by default with the rates that were meta-learned.
      augment: variants of the frames that are learned from, too.
      earlier: demonstrations of earlier tasks, whose frames are replayed, so that the adapted policy still does them.
      held_out: demonstrations of the same task that are not learned from.
      sinks: take what is seen of them, see `metrics`.

    Raises:
      ValueError: learned rates are wanted of an adapter that has none, the optimiser is unknown, there are
        paraphrases but no variants, or earlier tasks without `options.replay_frames`, or held-out demonstrations
        without `options.validate_every`, or the reverse of either; nothing moves in a demonstration; or theta did not
        move.
    """
    start.learner.check_base(base)
    _check(start, options, earlier, held_out)
    refuse_idle(demos, base.statistics.of_commands(), "leave it out, or record it again")
    if options.optimizer == "learned" and start.inner_steps is not None and options.steps > start.inner_steps:
        logging.warning(
            "steps is %d, but the rates were learned for %d: beyond those the loss may rise again; watch the held-out "
            "loss, lower the learning_rate (a factor on them), or take the optimizer adam",
            *(options.steps, start.inner_steps),
        )
    frames = gather({_TASK: list(demos)}, base.preprocessor, augment, options.data_frames)
    old = [gather(earlier, base.preprocessor, each=options.data_frames)] if earlier else []
    unseen = [recorded({_TASK: held_out}, base.preprocessor, most=FEW if base.large else MANY)] if held_out else []
    outputs = frozen_outputs(base, [frames, *old, *(each.frames for each in unseen)], start.learner.stage)
    frozen, *others_frozen = outputs
    replay = replay_of(old[0], others_frozen[0]) if earlier else None
    known, kept_back = _kept_apart(Rows(*rows_and_labels(frames, _TASK, range(len(demos)))))

    def look(step: int, theta: PyTree, losses: Sequence[float]) -> Validated:
        found = validated(
            base, start.learner.replace(theta=theta), outputs[-1], unseen[0].target, unseen[0].states, step
        )
        seen = {"support_loss": float(np.mean(losses))} if losses else {}
        for sink in sinks:
            sink(step, found.metrics() | seen)
        return found

    support = _support(frames, known, frozen, replay, options)
    theta, last, seconds, curve = _descended(start, support, options, look if unseen else None)

    draws = FEW_DRAWS if base.large else DRAWS
    number, size = (FEW_JUDGED, min(options.frames, FEW_FRAMES)) if base.large else (JUDGED, options.frames)

    def change(name: str, batches: Sequence[Batch]) -> tuple[float, float]:
        """Mean losses before and after."""
        every = [(at, batch) for at in (start.meta_params["theta"], theta) for batch in batches]
        shown = progress(every, description=f"{name} loss", delay=1.0)
        found = [float(_loss(start.learner, *one, draws=draws)) for one in shown]
        before, after = (float(np.mean(half)) for half in np.split(np.array(found, np.float32), 2))
        return before, after

    others = None
    if replay is not None:
        rng = np.random.default_rng([options.seed, 2])
        others = change("replay", [replay(rng, (size,)) for _ in range(number)])
    return Adapted(
        start.learner.replace(theta=theta, only_for=None),  # a start that was for another task alone
        change("support", _judged(known, frozen, number, size)),
        change("held-out", back) if (back := _judged(kept_back, frozen, number, size)) else None,
        others,
        (len(known.rows), len(kept_back.rows)),
        number * size,
        (frames, frozen),
        seconds,
        unmoved(start.meta_params["theta"], last),
        curve,
    )


def moved(before: PyTree, after: PyTree) -> bool:
    """Whether all of theta changed by more than `STILL`."""
    return float(trees.global_norm(trees.sub(after, before))) > STILL * float(trees.global_norm(before))


def unmoved(before: PyTree, after: PyTree) -> tuple[str, ...]:
    """The adapted maps whose parameters did not move.

    Raises:
      ValueError: none of them moved by more than `STILL`.
    """
    if not moved(before, after):
        change, size = (float(trees.global_norm(tree)) for tree in (trees.sub(after, before), before))
        raise ValueError(
            f"theta did not move: its change of {change:.1g} is too small for its size of {size:.2g}; raise the "
            "learning rate, or adapt maps that the loss depends on"
        )
    return tuple(
        path
        for path, parts in after.items()
        if all(np.array_equal(leaf, before[path][name]) for name, leaf in parts.items())
    )


def _check(
    start: Start, options: Options, earlier: Mapping[str, Sequence[Demo]] | None, held_out: Sequence[Demo]
) -> None:
    check_positive(options, "options", ("learning_rate", "steps", "frames", "noise_draws", "max_norm"))
    if options.fast is not None and not options.fast:
        raise ValueError("options.fast names no leaf path, so nothing would move; None takes those of the start")
    if bool(earlier) != (options.replay_frames > 0):
        raise ValueError(
            f"{len(earlier or ())} earlier tasks, replay_frames is {options.replay_frames}: give both or neither"
        )
    if bool(held_out) != (options.validate_every > 0) or (options.patience and not held_out):
        raise ValueError(
            f"{len(held_out)} held-out demonstrations, validate_every is {options.validate_every}, patience "
            f"{options.patience}: give demonstrations and steps between two looks at them, or neither"
        )
    if options.optimizer == "learned" and "log_rates" not in start.meta_params:
        raise ValueError(
            "this adapter has no learned rates: choose the optimizer adam with a learning_rate such as 0.01"
        )
    if options.optimizer not in ("learned", *OPTIMIZERS):
        raise ValueError(f"no optimizer named {options.optimizer!r}; choose learned, {', '.join(OPTIMIZERS)}")


def _kept_apart(every: Rows) -> tuple[Rows, Rows]:
    """The frames that are learned from, and every tenth one, which is kept back."""
    back = np.arange(len(every.rows)) % HOLD_OUT == HOLD_OUT - 1
    known, unseen = (Rows(every.rows[which], trees.index(every.target, which)) for which in (~back, back))
    return known, unseen


def _support(frames: Frames, known: Rows, frozen: PyTree, replay: Replay | None, options: Options) -> Batch:
    """A minibatch for each step, leaves (steps, frames, ...), with replayed frames behind those of the task."""
    rng = np.random.default_rng(options.seed)
    support = fill(drawn(frames, rng, *known, (options.steps, options.frames)), frozen)
    if replay is None:
        return support
    others = replay(np.random.default_rng([options.seed, 1]), (options.steps, options.replay_frames))
    return behind(support, others, axis=1)


@functools.partial(jax.jit, static_argnames="draws")
def _loss(start: Learner, theta: PyTree, batch: Batch, draws: int) -> jax.Array:
    return loss_fn(start, draws=draws)(theta, batch, jax.random.key(1))


def _descended(
    start: Start, support: Batch, options: Options, look: Callable[[int, PyTree, Sequence[float]], Validated] | None
) -> tuple[PyTree, PyTree, float, tuple[Validated, ...]]:
    """The best theta and the last, seconds of the steps without compilation, and what was seen on the way.

    `look` is given the steps taken, theta, and the losses of the minibatches learned from since it looked last.
    """
    fast = start.head if options.fast is None else options.fast
    inner = InnerOptions(fast=None if fast is None else tuple(fast), max_norm=options.max_norm)
    key, rate = jax.random.key(options.seed), jnp.float32(options.learning_rate)
    run = program(options.optimizer, options.noise_draws, inner)
    theta = best = start.meta_params["theta"]
    state = meta.initial_state(theta, inner_optimizer(options.optimizer, start.meta_params, rate), inner)
    curve = [look(0, theta, ())] if look else []
    compiled, seconds, least = {}, 0.0, 0  # least: which of the curve has the least error
    every = options.validate_every or options.steps
    with progress(description="adapt, steps", total=options.steps) as bar:
        for first in range(0, options.steps, every):
            size = min(every, options.steps - first)
            part = support if size == options.steps else trees.index(support, np.arange(first, first + size))
            arguments = (start.learner, start.meta_params | {"theta": theta}, part, key, rate, jnp.int32(first), state)
            if size not in compiled:
                with waiting(bar, "compiling"):
                    compiled[size] = run.lower(*arguments).compile()
            began = time.perf_counter()
            with waiting(bar, "running"):
                theta, losses, _, state = jax.block_until_ready(compiled[size](*arguments))
            seconds += time.perf_counter() - began
            bar.update(size)
            if look is None:
                best = theta
                continue
            curve.append(look(first + size, theta, losses.tolist()))
            bar.set_postfix(error=f"{curve[-1].error:.4f}")
            if curve[-1].error < curve[least].error:
                best, least = theta, len(curve) - 1
            if options.patience and len(curve) - 1 - least >= options.patience:
                break
    if look and least == 0:
        logging.warning("no step was better than the start on the held-out demonstrations: the start is kept")
    return best, theta, seconds, tuple(curve)


def _judged(some: Rows, frozen: PyTree, most: int, size: int) -> list[Batch]:
    """At most so many minibatches of one size, whatever the demonstrations' lengths.

    The last is filled up with the first frames.
    There is none where there are no frames.
    """
    if not (count := len(some.rows)):
        return []
    number = min(most, -(-count // size))
    spread = np.linspace(0, count - 1, min(count, number * size)).astype(int)
    order = np.resize(spread, (number, size))
    return [fill(Rows(some.rows[rows], trees.index(some.target, rows)), frozen) for rows in order]
