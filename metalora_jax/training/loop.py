"""The training loop: the one place where pure steps meet checkpoints, metrics, signals and the clock."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

from metalora_jax import trees
from metalora_jax.machine.progress import progress, waiting
from metalora_jax.training.checkpoint import Checkpoints, Interrupt
from metalora_jax.training.metrics import MetricsWriter, Sink, Skips, finite_or_skip, raise_if_stuck
from metalora_jax.types import Array, PyTree


class TrainState(NamedTuple):
    """All that a resumed run needs besides its step: the data order and the noise are pure in (seed, step)."""

    params: PyTree
    opt_state: PyTree
    skips: Skips


Gradient = Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, dict[str, Array]]]
"""(params, batch, key) -> gradient and scalar metrics, one of which is named "loss"."""

Step = Callable[[TrainState, PyTree, jax.Array], tuple[TrainState, dict[str, Array]]]
"""(state, batch, key) -> the state after one update, and scalar metrics."""


def init(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(params, optimizer.init(params), Skips.zero())


def update(
    state: TrainState, batch: PyTree, key: jax.Array, gradient: Gradient, optimizer: optax.GradientTransformation
) -> tuple[TrainState, dict[str, Array]]:
    """One pure step. An update from a loss or gradient that is not finite is skipped and counted.

    So is one from a gradient whose norm overflows: clipped, it would be zero, and the run would make no progress.
    """
    grads, metrics = gradient(state.params, batch, key)
    norm = trees.global_norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    old, new = (state.params, state.opt_state), (optax.apply_updates(state.params, updates), opt_state)
    (params, opt_state), skips = finite_or_skip((grads, metrics["loss"], norm), old, new, state.skips)
    metrics = metrics | {"gradient_norm": norm, "skipped": skips.total}
    return TrainState(params, opt_state, skips), metrics


def run(
    workdir: Path,
    state: TrainState,
    step_fn: Step,
    batch_fn: Callable[[int], PyTree],
    *,
    steps: int,
    seed: int,
    description: str,
    checkpoint_every: int,
    log_every: int = 10,
    sinks: Callable[[int], list[Sink]] = lambda first_step: [],
    learning_rate: Callable[[int], Any] | None = None,
    meta: Mapping[str, Any] | None = None,
    look: Callable[[int, TrainState], Mapping[str, float]] | None = None,
    look_every: int = 0,
) -> TrainState:
    """Trains to `steps` updates, from the newest checkpoint in `workdir` if there is one.

    A run that was interrupted or killed gives the same state, bit for bit, as one that was not. On SIGTERM or Ctrl-C
    the state is saved and the process exits with `Interrupt.EXIT_CODE`.

    Args:
      workdir: claimed by this configuration, see `checkpoint.claim`.
      state: the start of a new run.
      step_fn: jitted; (state, batch, key) -> state and scalar metrics.
      batch_fn: update number -> batch; pure.
      steps: updates in all.
      seed: seed of the noise.
      description: for the progress bar.
      checkpoint_every, log_every: updates between checkpoints, and between lines of `metrics.jsonl`.
      sinks: dashboards, created once the first step to be logged is known.
      learning_rate: updates that were made before -> the rate of the next, for `metrics.jsonl`.
      meta: JSON to keep with each checkpoint.
      look: (updates, state) -> further metrics, after every `look_every` updates and the last.
    """
    with ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints"))
        interrupt = stack.enter_context(Interrupt())
        restored = checkpoints.restore(state)
        start = 0
        if restored is not None:
            start, state = restored.step, restored.state
        writer = stack.enter_context(MetricsWriter(workdir / "metrics.jsonl", start + 1, sinks(start + 1)))
        root = jax.random.key(seed)
        bar = stack.enter_context(progress(description=description, total=steps, initial=start))
        compiled = stack.enter_context(waiting(bar, "compiling")) if start < steps else None
        for step in range(start + 1, steps + 1):
            state, metrics = step_fn(state, batch_fn(step), jax.random.fold_in(root, step))
            if compiled is not None:  # most of the first step was compilation, which does not count towards the rate
                jax.block_until_ready(state)
                compiled()
                compiled, clock = None, time.monotonic()
            seen: Mapping[str, float] = {}
            if look is not None and (step % look_every == 0 or step == steps):
                seen = look(step, state)
            if seen or step % log_every == 0 or step == steps:
                raise_if_stuck(state.skips, step)
                numbers = {name: float(value) for name, value in metrics.items()}
                if learning_rate is not None:  # skipped updates do not advance the schedule
                    numbers["learning_rate"] = float(learning_rate(max(step - 1 - int(state.skips.total), 0)))
                if step > start + 1:
                    numbers["steps_per_second"] = (step - start - 1) / (time.monotonic() - clock)
                writer.write(step, numbers | dict(seen))
                bar.set_postfix(loss=f"{numbers['loss']:.4f}")
            bar.update()
            if step % checkpoint_every == 0 or step == steps or interrupt:
                checkpoints.save(step, state, {"step": step} | dict(meta or {}))
            if interrupt and step < steps:
                bar.close()
                print(f"saved at step {step} of {steps} in {workdir}; the same command resumes from there")
                sys.exit(Interrupt.EXIT_CODE)
    return state
