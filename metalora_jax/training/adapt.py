"""From a few demonstrations and a meta-learned adapter to an adapter for their task."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalora_jax import meta, trees
from metalora_jax.adaptation.adapter import Start
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.adaptation.learner import Learner, loss_fn
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.frames import gather, rows_and_labels
from metalora_jax.meta import InnerOptions
from metalora_jax.training.methods import OPTIMIZERS
from metalora_jax.training.task_batches import Rows, behind, drawn, fill, replay_of
from metalora_jax.types import Batch, Demo, PyTree

HOLD_OUT = 10  # every tenth frame is kept back, to see whether the adapter has learned or memorised
JUDGED = 8  # minibatches at most, spread over the frames, that a loss is measured on: it must not outlast the adapting
_TASK = "demonstrated"


class Options(NamedTuple):
    """How to adapt."""

    optimizer: str = "learned"  # "learned", "sgd" or "adam"
    learning_rate: float = 1.0  # of sgd and adam; a factor on learned rates
    steps: int = 3
    frames: int = 32  # in a minibatch
    noise_draws: int = 2  # noise draws per frame
    max_norm: float | None = 1.0  # clips every gradient
    seed: int = 0
    fast: tuple[str, ...] | None = None  # leaf paths that move; None takes those of the start: all, or ANIL's head
    replay_frames: int = 0  # frames of earlier tasks in a minibatch, besides `frames`


class Adapted(NamedTuple):
    """What `adapt` returns."""

    learner: Learner  # that of the start, with the adapted theta: what an `Agent` acts with
    support_loss: tuple[float, float]  # before and after, on frames it learned from
    held_out_loss: tuple[float, float]  # before and after, on frames kept back from the same demonstrations
    replay_loss: tuple[float, float] | None  # before and after, on earlier tasks; None where none are replayed
    frames: tuple[int, int]  # learned from, and kept back
    seconds: float  # of the gradient steps, without compilation

    @property
    def theta(self) -> PyTree:
        """The adapted parameters."""
        return self.learner.theta


_DEFAULT = Options()


def inner_loop(
    optimizer: str, noise_draws: int, options: InnerOptions, keep: tuple[int, ...] = ()
) -> Callable[..., meta.AdaptResult]:
    """(learner, meta_params, support, key, rate) -> the result of one gradient step for each minibatch of `support`.

    Args:
      optimizer: "learned" (then `rate` is a factor on the learned rates), or a name in `methods.OPTIMIZERS`.
      noise_draws: samples of (t, noise) per frame.
      options: mask and clipping.
      keep: steps after which theta is returned too.
    """

    def run(start: Learner, meta_params: PyTree, support: Batch, key: jax.Array, rate: jax.Array) -> meta.AdaptResult:
        loss = loss_fn(start, draws=noise_draws)
        if optimizer == "learned":
            method = meta.learned_rates(loss, first_order=True, **options._asdict())
            scaled = jax.tree.map(lambda log_rate: log_rate + jnp.log(rate), meta_params["log_rates"])
            return method.adapt(meta_params | {"log_rates": scaled}, support, key, keep=keep)
        inner = OPTIMIZERS[optimizer](rate)
        return meta.adapt(loss, meta_params["theta"], support, key, inner, options, keep=keep)

    return run


def adapt(
    base: Base,
    start: Start,
    demos: Sequence[Demo],
    options: Options = _DEFAULT,
    augment: ImageAugmentation | None = None,
    earlier: Mapping[str, Sequence[Demo]] | None = None,
) -> Adapted:
    """Adapts to `demos`, all of one task; losses are of the frames as they are.

    Args:
      base: the frozen policy.
      start: the adapter that it starts from.
      demos: of the task.
      options: how; by default with the rates that were meta-learned.
      augment: variants of the frames that are learned from, too.
      earlier: demonstrations of earlier tasks, whose frames are replayed, so that the adapted policy still does them.

    Raises:
      ValueError: learned rates are wanted of an adapter that has none, the optimiser is unknown, there are
        paraphrases but no variants, or earlier tasks without `options.replay_frames`, or the reverse.
    """
    if bool(earlier) != (options.replay_frames > 0):
        raise ValueError(
            f"{len(earlier or ())} earlier tasks, replay_frames is {options.replay_frames}: give both or neither"
        )
    if options.optimizer == "learned" and "log_rates" not in start.meta_params:
        raise ValueError(
            "this adapter has no learned rates: choose --optimizer=adam with a --learning_rate such as 0.01"
        )
    if options.optimizer not in ("learned", *OPTIMIZERS):
        raise ValueError(f"no optimizer named {options.optimizer!r}; choose learned, {', '.join(OPTIMIZERS)}")
    learner, meta_params = start.learner, start.meta_params
    fast = start.head if options.fast is None else options.fast
    frames = gather({_TASK: list(demos)}, base.preprocessor, augment)
    old = [gather(earlier, base.preprocessor)] if earlier else []
    frozen, *old_frozen = frozen_outputs(base, [frames, *old], learner.stage)
    rows, labels = rows_and_labels(frames, _TASK, range(len(demos)))
    kept_back = np.arange(len(rows)) % HOLD_OUT == HOLD_OUT - 1
    known, unseen = ((rows[which], trees.index(labels, which)) for which in (~kept_back, kept_back))
    rng = np.random.default_rng(options.seed)
    support = fill(drawn(frames, rng, *known, (options.steps, options.frames)), frozen)
    replay = None
    if earlier:
        replay = replay_of(*old, *old_frozen)
        shape = options.steps, options.replay_frames
        support = behind(support, replay(np.random.default_rng([options.seed, 1]), shape), axis=1)
    inner = InnerOptions(fast=fast, max_norm=options.max_norm)
    arguments = (learner, meta_params, support, jax.random.key(options.seed), jnp.float32(options.learning_rate))
    run = jax.jit(inner_loop(options.optimizer, options.noise_draws, inner)).lower(*arguments).compile()
    began = time.perf_counter()
    theta = jax.block_until_ready(run(*arguments).theta)
    seconds = time.perf_counter() - began

    @jax.jit
    def judge(known: Learner, theta: PyTree, batch: Batch) -> jax.Array:
        return loss_fn(known, draws=8)(theta, batch, jax.random.key(1))

    def change(batches: Iterable[Batch]) -> tuple[float, float]:
        judged = list(batches)
        before, after = (
            float(np.mean([judge(learner, at, batch) for batch in judged])) for at in (meta_params["theta"], theta)
        )
        return before, after

    def losses(part: tuple) -> tuple[float, float]:
        if not len(part[0]):
            return float("nan"), float("nan")
        count = len(part[0])
        # Minibatches of one size, whatever the demonstrations' lengths: the last is filled up with the first frames.
        number = min(JUDGED, -(-count // options.frames))
        spread = np.linspace(0, count - 1, min(count, number * options.frames)).astype(int)
        order = np.resize(spread, (number, options.frames))
        return change(fill(Rows(part[0][rows], trees.index(part[1], rows)), frozen) for rows in order)

    others = None
    if replay is not None:
        rng = np.random.default_rng([options.seed, 2])
        others = change(replay(rng, (options.frames,)) for _ in range(JUDGED))
    counts = len(known[0]), len(unseen[0])
    return Adapted(learner.replace(theta=theta), losses(known), losses(unseen), others, counts, seconds)
