"""What the recipes' splits of LIBERO are checked against."""

from collections.abc import Iterable, Mapping, Sequence

from metalora_jax.data.libero_tasks import LiberoTask, compositions
from metalora_jax.data.tasks import Splits


def hold_out(
    tasks: Sequence[str], validation: Sequence[str], test: Sequence[str], labels: Mapping[str, Iterable[str]]
) -> Splits:
    """Splits whose training tasks are all of `tasks` that share no label with a held-out task, in their order.

    Held-out tasks are chosen first and kept; training tasks give way to them.
    """
    held_out = {*validation, *test}
    taken = {label for task in held_out for label in labels[task]}
    left = tuple(task for task in tasks if task not in held_out and taken.isdisjoint(labels[task]))
    return Splits(left, tuple(validation), tuple(test))


def check_recombined(splits: Splits, tasks: Mapping[str, LiberoTask]) -> Splits:
    """Returns `splits` if held-out compositions are new, but made of objects and places that occur in training.

    Raises:
      ValueError: if training has such a composition, or lacks one of its objects or places; the message names it.
    """
    known = set(compositions({name: tasks[name] for name in splits.train}))
    objects, places = {what for what, _ in known}, {where for _, where in known}
    for what, where in compositions({name: tasks[name] for name in splits.validation + splits.test}):
        if (what, where) in known:
            raise ValueError(f"{what} {where} is held out, but a training task asks for it too")
        for thing, others in ((what, objects), (where, places)):
            if thing not in others:
                raise ValueError(f"{what} {where} is held out, but no training task has {thing!r} in any composition")
    return splits
