"""What a policy would do on recorded frames: chunks from several draws of noise, and the flow-matching loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalora_jax import trees
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.learner import Learner
from metalora_jax.data.action_errors import Errors, errors
from metalora_jax.data.frames import Frames, Relabel, gather, rows_and_labels
from metalora_jax.data.preprocessor import Preprocessor
from metalora_jax.policies import flow, stages
from metalora_jax.types import ActionChunk, Demo, PyTree

BATCH = 16  # frames that go through the policy together
DRAWS = 8  # samples of (t, noise) a frame, for the loss


class Prediction(NamedTuple):
    """Of one policy on N frames, in the robot's own units."""

    samples: np.ndarray  # (S, N, chunk, D), one chunk for each draw of noise
    quiet: np.ndarray  # (N, chunk, D), from zero noise
    loss: np.ndarray | None = None  # (N,) flow-matching loss; None for what is no flow policy


class Recorded(NamedTuple):
    """N frames of E demonstrations, and what was demonstrated from there on."""

    frames: Frames  # that hold them
    rows: np.ndarray  # (N,) of them in `frames`
    target: ActionChunk  # (N, chunk, ...), normalised
    demo: np.ndarray  # (N,) int in 0..E-1, in the order of the tasks and of their demonstrations
    moment: np.ndarray  # (N,) int, the frame's number in its demonstration

    @property
    def actions(self) -> np.ndarray:
        """(N, chunk, D) in the robot's own units."""
        return self.frames.preprocessor.commands(np.asarray(self.target.actions), self.states)

    @property
    def states(self) -> np.ndarray:
        """(N, state_dim) in the robot's own units."""
        return self.frames.states(self.rows)

    def errors(self, prediction: Prediction) -> Errors:
        """How far a prediction is from what was demonstrated."""
        return errors(prediction.samples, prediction.quiet, self.actions, np.asarray(self.target.is_pad), self.demo)


def recorded(
    demos: Mapping[str, Sequence[Demo]], preprocessor: Preprocessor, *, stride: int = 1, most: int | None = None
) -> Recorded:
    """The frames 1, 1 + stride, ... of every demonstration: from the second on, each has a command before it.

    Args:
      demos: of every task.
      preprocessor: of the base.
      stride: frames from one to the next.
      most: at most so many of each demonstration, spread evenly; None: all.

    Raises:
      ValueError: see `frames.gather`.
    """
    thin: dict[str, list[Demo]] = {}
    moments: dict[str, tuple[np.ndarray, ...]] = {}
    for task, whole in demos.items():
        moments[task] = tuple(_thin(np.arange(1, len(demo.actions), stride), most) for demo in whole)
        thin[task] = [
            demo._replace(images=demo.images[at], state=demo.state[at], actions=demo.actions[at])
            for demo, at in zip(whole, moments[task], strict=True)
        ]
    actions = {task: tuple(demo.actions for demo in whole) for task, whole in demos.items()}
    frames = gather(thin, preprocessor)._replace(moments=moments, actions=actions)
    labels = [rows_and_labels(frames, task, range(len(whole)))[1] for task, whole in demos.items()]
    every = [at for some in moments.values() for at in some]
    return Recorded(
        frames,
        np.arange(sum(map(len, every))),
        jax.tree.map(lambda *parts: np.concatenate(parts), *labels),
        np.repeat(np.arange(len(every)), [len(at) for at in every]),
        np.concatenate(every),
    )


def among(
    frames: Frames,
    task: str,
    demos: Sequence[int],
    *,
    stride: int = 1,
    most: int | None = None,
    relabel: Relabel | None = None,
) -> Recorded:
    """Frames of some demonstrations of `task`, of those that `frames` hold; see `recorded` for the others.

    `relabel` turns recorded actions into the commands of another deployment, see `frames.rows_and_labels`.
    """
    rows, labels, moments = [], [], []
    for demo in demos:
        every, targets = rows_and_labels(frames, task, [demo], relabel)
        there = frames.moments[task][demo]
        at = _thin(np.flatnonzero(there)[::stride], most)
        rows.append(every[at])
        labels.append(trees.index(targets, at))
        moments.append(there[at])
    target = jax.tree.map(lambda *parts: np.concatenate(parts), *labels)
    number = np.repeat(np.arange(len(demos)), [len(at) for at in rows])
    return Recorded(frames, np.concatenate(rows), target, number, np.concatenate(moments))


def _thin(found: np.ndarray, most: int | None) -> np.ndarray:
    """At most so many of them, spread evenly."""
    if most is None or len(found) <= most:
        return found
    return found[np.linspace(0, len(found) - 1, most).astype(int)]


def predict(
    base: Base,
    start: Learner,
    frozen: PyTree,
    target: ActionChunk,
    states: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    samples: int = 4,
    seed: int = 0,
    loss: bool = True,
    done: Callable[[int], None] = lambda _: None,
) -> Prediction:
    """What a policy would do on N frames. Every policy gets the same noise.

    Args:
      base: what the policy is on.
      start: the policy; its theta acts.
      frozen: the frozen front's output up to `start.stage`, leaves (frames, ...), see `frozen_front`.
      target: (N, chunk, ...) normalised.
      states: (N, state_dim) in the robot's own units, which relative actions start from, see `Preprocessor.commands`.
      rows: (N,) of the frames in `frozen`; None: the first N.
      samples: S, draws of noise; 0: the chunk from zero noise is the only sample.
      seed: of the noise.
      loss: whether the loss is computed too.
      done: called with the number of frames done since the last call.

    Raises:
      ValueError: the policy is on another base, or what it predicts is not finite.
    """
    start.check_base(base)
    count, sizes = len(target.actions), base.sizes
    rows = np.arange(count) if rows is None else rows
    noise = np.random.default_rng(seed).standard_normal((samples, count, sizes.chunk, sizes.action), np.float32)
    noise = np.concatenate([np.zeros((1, *noise.shape[1:]), np.float32), noise])
    chunks, losses = [], []
    together = min(BATCH, count)
    for first in range(0, count, together):
        at = np.arange(first, min(first + together, count))
        padded = np.resize(at, together)  # so that one compilation serves them all
        inputs = jax.tree.map(lambda leaf, padded=padded: leaf[rows[padded]], frozen)
        key = jax.random.fold_in(jax.random.key(seed), first)
        labels = trees.index(target, padded) if loss else None
        chunk, each = _run(start, inputs, labels, jnp.asarray(noise[:, padded]), key)
        chunks.append(np.asarray(chunk)[:, : len(at)])
        if each is not None:
            losses.append(np.asarray(each)[: len(at)])
        done(len(at))
    predicted = base.preprocessor.commands(np.concatenate(chunks, axis=1), states)
    if not np.isfinite(predicted).all():
        raise ValueError("predicted actions are not finite: the adapter's training diverged, or the base is damaged")
    return Prediction(predicted[1:] if samples else predicted, predicted[0], np.concatenate(losses) if losses else None)


@jax.jit
def _run(
    start: Learner, inputs: PyTree, target: ActionChunk | None, noise: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Chunks (S, B, chunk, action) from noise of that shape, and the loss (B,) of each frame where it has a target."""
    model = start.model()
    context = stages.context_of(model, inputs)

    def velocity(x_t: jax.Array, t: jax.Array) -> jax.Array:
        return model.velocity(context, x_t, t)

    chunks = jax.vmap(lambda x: flow.sample(velocity, x, model.num_steps))(noise)
    if target is None:
        return chunks, None
    actions, real = jnp.asarray(target.actions), ~jnp.asarray(target.is_pad)[..., None]
    noise_key, time_key = jax.random.split(key)
    drawn = jax.random.normal(noise_key, (DRAWS, *actions.shape))
    t = flow.sample_time(time_key, (DRAWS, len(actions)))
    x_t, wanted = flow.interpolate(actions[None], drawn, t)
    squares = flow.squared_error(jax.vmap(velocity)(x_t, t), wanted)[..., : start.action_dim]
    steps = jnp.maximum(real.sum(axis=(1, 2)), 1) * start.action_dim
    return chunks, jnp.where(real[None], squares, 0.0).sum(axis=(2, 3)).mean(axis=0) / steps
