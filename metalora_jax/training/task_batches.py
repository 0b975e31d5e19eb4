"""From drawn tasks to the arrays of one meta-step: row numbers of cached frames, and action labels."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from metalora_jax.data.frames import Frames, Relabel, pick, rows_and_labels
from metalora_jax.data.tasks import Draw, Shift
from metalora_jax.types import ActionChunk, Batch, PyTree, TaskBatch


class Rows(NamedTuple):
    """A Batch whose inputs are still row numbers of a bank (see `data.features`)."""

    rows: np.ndarray  # (...) int
    target: ActionChunk  # (..., chunk, action)


class TaskRows(NamedTuple):
    """A TaskBatch of Rows: leaves (tasks, K, B, ...) and (tasks, B, ...)."""

    support: Rows
    query: Rows


def fill(batch: Rows, bank: PyTree) -> Batch:
    """Looks the rows up; inside jit, or before it where the bank is not on the device."""
    return Batch(jax.tree.map(lambda leaf: leaf[batch.rows], bank), batch.target)


def fill_tasks(batch: TaskRows, bank: PyTree) -> TaskBatch:
    """The same for a meta-batch."""
    return TaskBatch(fill(batch.support, bank), fill(batch.query, bank))


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
    return _drawn(frames, rng, rows, labels, (steps, size))


def query_rows(
    frames: Frames, task: str, demos: Sequence[int], relabel: Relabel | None, size: int, rng: np.random.Generator
) -> Rows:
    """One minibatch: leaves (size, ...)."""
    rows, labels = rows_and_labels(frames, task, demos, relabel)
    return _drawn(frames, rng, rows, labels, (size,))


def _drawn(
    frames: Frames, rng: np.random.Generator, rows: np.ndarray, labels: ActionChunk, shape: tuple[int, ...]
) -> Rows:
    picked, target = pick(rng, rows, labels, shape)
    return Rows(frames.vary(rng, picked), target)


def task_batch(
    frames: Frames,
    draws: Sequence[Draw[Shift]],
    relabel_of: Callable[[Shift], Relabel | None],
    inner_steps: int,
    support_frames: int,
    query_frames: int,
) -> TaskRows:
    """The tasks of one meta-step, with a leading task axis; `relabel_of` maps a draw's shift to its labels."""
    support, query = [], []
    for draw in draws:
        relabel = relabel_of(draw.shift)
        support.append(support_rows(frames, draw.task, draw.support, relabel, inner_steps, support_frames, draw.rng))
        query.append(query_rows(frames, draw.task, draw.query, relabel, query_frames, draw.rng))
    return TaskRows(*(jax.tree.map(lambda *leaves: np.stack(leaves), *parts) for parts in (support, query)))
