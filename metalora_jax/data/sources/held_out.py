"""Which episodes are kept out of training: by the dataset's own numbers, or by a rule that holds for every task."""

import re
from collections.abc import Sequence

from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.selection import Episode
from metalora_jax.data.sources.source import Source

_RULE = re.compile(r"(last|every):([1-9]\d*)")
_RANGE = re.compile(r"(\d+)-(\d+)")

Names = tuple[int | str, ...]
"""Episodes as `sources.open` takes them, in `episodes` and in `drop`."""


def held_out(source: Source, tasks: Sequence[str], rule: Sequence[int | str]) -> Names:
    """The episodes of `tasks` that a rule keeps out of training, in order.

    Args:
      source: the whole dataset.
      tasks: by any name that `Source.find` takes.
      rule: any of: numbers of the dataset's own, 3 or "3", or "task:3" in a directory of HDF5 files; "40-49", from one
        number to another; "last:2", the last two episodes of each task; "every:10", each task's tenth, twentieth, ....

    Raises:
      DemoError: a part of the rule is none of these, or keeps out nothing, or all of a task.
    """
    found: set[Episode] = set()
    listings = {task: [e for e in source.listing(source.find(task)) if e.number is not None] for task in tasks}
    for part in rule:
        chosen = {e for episodes in listings.values() for e in _chosen(source, str(part).strip(), episodes)}
        if not chosen:
            raise DemoError(f"{source.path}: held-out episodes {str(part)!r}: there are none of {', '.join(tasks)}")
        found |= chosen
    for task, episodes in listings.items():
        if episodes and found.issuperset(episodes):
            raise DemoError(
                f"{source.path}: all {len(episodes)} episodes of {task!r} would be held out, and none left to learn "
                "from; hold out fewer"
            )
    return tuple(name(source, e) for episodes in listings.values() for e in episodes if e in found)


def name(source: Source, episode: Episode) -> int | str:
    """What `sources.open` calls an episode of `source`."""
    assert episode.number is not None
    return f"{episode.task}:{episode.number}" if source.several else episode.number


def _chosen(source: Source, part: str, episodes: Sequence[Episode]) -> Sequence[Episode]:
    """Those of one task."""
    if match := _RULE.fullmatch(part):
        count = int(match[2])
        return episodes[-count:] if match[1] == "last" else episodes[count - 1 :: count]
    if match := _RANGE.fullmatch(part):
        low, high = int(match[1]), int(match[2])
        return [e for e in episodes if e.number is not None and low <= e.number <= high]
    task, _, digits = part.rpartition(":")
    if not digits.isdecimal() or (task and task not in source.names()):
        raise DemoError(
            f"held-out episodes {part!r}: expected the dataset's own numbers (3,7 or 40-49), last:2 or every:10"
        )
    return [e for e in episodes if e.number == int(digits) and task in ("", e.task)]
