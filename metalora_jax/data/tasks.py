"""Which tasks are for training and which are held out, and which demonstrations a meta-step draws.

All sampling depends only on (seed, step): a resumed run draws what an uninterrupted one would have drawn.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from metalora_jax.data.instructions import normal

Shift = TypeVar("Shift")


class Splits(NamedTuple):
    """Task names for meta-training, for choosing rates, and for the final figures."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def check_disjoint(
    splits: Splits,
    instructions: Mapping[str, str],
    others: Mapping[str, Sequence[str]] | None = None,
    labels: Mapping[str, Iterable[str]] | None = None,
) -> Splits:
    """Returns `splits` if no task, instruction text or task label appears in two of them.

    Args:
      splits: task names.
      instructions: the instruction of every task.
      others: further instruction texts of some tasks: paraphrases, and those of their mirror images.
      labels: what else tasks of different splits must not share, such as "scene KITCHEN_SCENE3", for each task.

    Raises:
      ValueError: if a task, instruction or label leaks, or a split is empty; the message names it.
    """
    owner: dict[str, str] = {}
    for split, tasks in splits._asdict().items():
        if not tasks:
            raise ValueError(f"split {split} contains no tasks: name some in {split}.tasks")
        for task in tasks:
            texts = (instructions[task], *(others or {}).get(task, ()))
            named = (f"task {task!r}", *(f"instruction {normal(text)!r}" for text in texts))
            for key in (*named, *(labels[task] if labels else ())):
                if owner.setdefault(key, split) != split:
                    raise ValueError(f"{key} is in both {owner[key]} and {split}: held-out tasks must be disjoint")
    return splits


class Draw(NamedTuple, Generic[Shift]):
    """One task of a meta-batch: its condition, and its support and query demonstrations."""

    task: str
    shift: Shift  # the condition, or None
    support: tuple[int, ...]  # indices of the task's demonstrations
    query: tuple[int, ...]  # disjoint from support
    rng: np.random.Generator  # for the frames within the demonstrations


def draw_tasks(
    seed: int,
    step: int,
    count: int,
    tasks: Sequence[str],
    demos: Mapping[str, int],
    shots: int,
    queries: int,
    sample_shift: Callable[[np.random.Generator], Shift],
    weights: Sequence[float] | None = None,
) -> list[Draw[Shift]]:
    """The `count` tasks of meta-step `step`, pure in (seed, step); `weights`: the tasks' shares, None: equal.

    Raises:
      ValueError: if a task has fewer than shots + queries demonstrations.
    """
    draws = []
    for i in range(count):
        rng = np.random.default_rng([seed, step, i])
        task = tasks[int(rng.integers(len(tasks)) if weights is None else rng.choice(len(tasks), p=weights))]
        if demos[task] < shots + queries:
            raise ValueError(
                f"{task} has {demos[task]} demonstrations; {shots} shots and {queries} query demonstrations need "
                f"{shots + queries}: record more or lower the shots"
            )
        order = rng.permutation(demos[task])[: shots + queries].tolist()
        draws.append(Draw(task, sample_shift(rng), tuple(order[:shots]), tuple(order[shots:]), rng))
    return draws
