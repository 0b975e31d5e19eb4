"""From drawn tasks to the arrays of one meta-step: row numbers of cached frames, and action labels."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from metalora_jax.data.frames import Frames, Relabel, pick, rows_and_labels
from metalora_jax.data.tasks import Draw, Shift
from metalora_jax.types import ActionChunk, Batch, PyTree, TaskBatch


class Rows(NamedTuple):
    """A Batch whose inputs are still row numbers of frozen outputs (see `adaptation.features`)."""

    rows: np.ndarray  # (...) int
    target: ActionChunk  # (..., chunk, action)


class TaskRows(NamedTuple):
    """A TaskBatch of Rows: leaves (tasks, K, B, ...) and (tasks, B, ...)."""

    support: Rows
    query: Rows


Minibatch = TypeVar("Minibatch", Rows, Batch)
# (generator, shape) -> so many frames of earlier tasks, to stand behind those of a new one
Replay = Callable[[np.random.Generator, tuple[int, ...]], Batch]


def fill(batch: Rows, frozen: PyTree) -> Batch:
    """Looks the rows up; inside jit, or before it where the outputs are not on the device."""
    return Batch(jax.tree.map(lambda leaf: leaf[batch.rows], frozen), batch.target)


def fill_tasks(batch: TaskRows, frozen: PyTree) -> TaskBatch:
    """The same for a meta-batch."""
    return TaskBatch(fill(batch.support, frozen), fill(batch.query, frozen))


def support_rows(
    frames: Frames,
    task: str,
    demos: Sequence[int],
    relabel: Relabel | None,
    steps: int,
    size: int,
    rng: np.random.Generator,
) -> Rows:
    """Minibatches for `steps` inner steps: leaves (steps, size, ...)."""
    rows, labels = rows_and_labels(frames, task, demos, relabel)
    return drawn(frames, rng, rows, labels, (steps, size))


def query_rows(
    frames: Frames, task: str, demos: Sequence[int], relabel: Relabel | None, size: int, rng: np.random.Generator
) -> Rows:
    """One minibatch: leaves (size, ...)."""
    rows, labels = rows_and_labels(frames, task, demos, relabel)
    return drawn(frames, rng, rows, labels, (size,))


def drawn(
    frames: Frames, rng: np.random.Generator, rows: np.ndarray, labels: ActionChunk, shape: tuple[int, ...]
) -> Rows:
    """`shape` of some frames (n,) and their labels, each in a variant of its own."""
    picked, target = pick(rng, rows, labels, shape)
    return Rows(frames.vary(rng, picked), target)


def task_batch(
    frames: Frames,
    draws: Sequence[Draw[Shift]],
    relabel_of: Callable[[Shift], Relabel | None],
    inner_steps: int,
    support_frames: int,
    query_frames: int,
    retained: Rows | None = None,
    retained_frames: int = 0,
    replay_frames: int = 0,
) -> TaskRows:
    """The tasks of one meta-step, with a leading task axis.

    Args:
      frames: where the demonstrations are.
      draws: the tasks.
      relabel_of: maps a draw's shift to its labels.
      inner_steps: minibatches in a support set.
      support_frames: frames in each of them.
      query_frames: frames of the task itself in its query.
      retained: frames (n, ...) of tasks that adapting must not cost, see `all_rows`.
      retained_frames: how many of those stand in each query, behind its own.
      replay_frames: how many of those stand in each of a support set's minibatches, behind its own.
    """
    support, query = [], []
    for draw in draws:
        relabel = relabel_of(draw.shift)
        learned = support_rows(frames, draw.task, draw.support, relabel, inner_steps, support_frames, draw.rng)
        judged = query_rows(frames, draw.task, draw.query, relabel, query_frames, draw.rng)
        if retained is not None:
            judged = behind(judged, drawn(frames, draw.rng, *retained, (retained_frames,)), axis=0)
            if replay_frames:
                learned = behind(learned, drawn(frames, draw.rng, *retained, (inner_steps, replay_frames)), axis=1)
        support.append(learned)
        query.append(judged)
    return TaskRows(*(jax.tree.map(lambda *leaves: np.stack(leaves), *parts) for parts in (support, query)))


def behind(own: Minibatch, others: Minibatch, axis: int) -> Minibatch:
    """Minibatches with the frames of `others` behind their own; frames stand along `axis`."""
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis), own, others)


def replay_of(frames: Frames, frozen: PyTree) -> Replay:
    """Experience replay (Chaudhry et al. 2019, arXiv:1902.10486): any frames of every task in `frames`."""
    everything = all_rows(frames, list(frames.demos))
    return lambda rng, shape: fill(drawn(frames, rng, *everything, shape), frozen)


def all_rows(frames: Frames, tasks: Sequence[str]) -> Rows:
    """Every frame of some tasks, without a shift: leaves (n, ...)."""
    each = [Rows(*rows_and_labels(frames, task, range(frames.demos[task]))) for task in tasks]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *each)
