"""Which demonstrations of a dataset are read: by the dataset's own numbers, and whether bad ones may be left out."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metalora_jax.data.demos import DemoError
from metalora_jax.data.text import named

Number = tuple[str | None, int]  # the task (None: any), and the dataset's own number of a demonstration


class Episode(NamedTuple):
    """Where a demonstration lies."""

    task: str  # the source's name for it; "" if that cannot be told
    file: Path
    number: int | None  # the dataset's own: episode_index, i of demo_<i>, place in TFDS's order; None: the whole file


class Fault(NamedTuple):
    """A demonstration that cannot be used."""

    number: int | None  # the dataset's own; None: the whole file
    task: str  # "" if that cannot be told
    message: str
    file: Path


class Selection(NamedTuple):
    """Which demonstrations are read; all of them by default."""

    episodes: frozenset[Number] | None = None  # only these
    drop: frozenset[Number] = frozenset()  # but not these
    skip_bad: bool = False  # leave out those that cannot be used, and say so

    @property
    def numbers(self) -> list[Number]:
        """All that are named, in order."""
        return sorted((self.episodes or frozenset()) | self.drop, key=lambda name: (name[0] or "", name[1]))

    def keeps(self, task: str, number: int) -> bool:
        """Whether this one is to be read."""
        names = {(None, number), (task, number)}
        return (self.episodes is None or not names.isdisjoint(self.episodes)) and names.isdisjoint(self.drop)


EVERYTHING = Selection()


def selection(episodes: Any = None, drop: Any = (), skip_bad: Any = False) -> Selection:
    """Reads what a config, a flag or a caller says.

    Raises:
      DemoError: if these are no numbers, or one is both asked for and dropped.
    """
    if not isinstance(skip_bad, bool):
        raise DemoError(f"skip_bad is {named(skip_bad)}, expected True or False")
    chosen = None if episodes is None else _numbers("episodes", episodes)
    left_out = _numbers("drop", drop)
    if both := (chosen or frozenset()) & left_out:
        raise DemoError(f"episode {shown(min(both, key=str))} is both in episodes and in drop; name it in one of them")
    return Selection(chosen, left_out, skip_bad)


def without(episodes: Sequence[int | str] | None, names: Sequence[int | str]) -> list[int | str] | None:
    """`episodes`, as `selection` takes them, but for those that are held out of them; None, for all, stays None."""
    if episodes is None:
        return None
    held_out = _numbers("held-out episodes", names)
    return [episode for episode in episodes if _number("episodes", episode) not in held_out]


def check(path: Path, chosen: Selection, there: Iterable[Number]) -> None:
    """Raises DemoError if an episode is named that is not there; `there` holds each with and without its task."""
    known = set(there)
    if unknown := [name for name in chosen.numbers if name not in known]:
        numbers = sorted({number for _, number in known})
        span = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
        raise DemoError(f"{path}: no episode {shown(unknown[0])} to select or to drop; there are {span}")


def shown(name: Number) -> str:
    """As it is written in a config."""
    task, number = name
    return str(number) if task is None else f"{task}:{number}"


def leave_out(episode: Episode, several: bool) -> str:
    """How to go on without a bad demonstration."""
    name = f"'{episode.task}:{episode.number}'" if several else episode.number
    return f"leave episode {episode.number} out (drop=[{name}], or skip_bad for all that are bad)"


def listed(numbers: Sequence[int | None]) -> str:
    """Numbers of episodes, as a sentence names them."""
    return ", ".join(str(number) for number in numbers[:12]) + (", ..." if len(numbers) > 12 else "")


def _numbers(field: str, values: Any) -> frozenset[Number]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise DemoError(f"{field} is {named(values)}, expected a list of episode numbers, such as [3, 7]")
    closing = (")", "]")  # what a flag that splits at commas makes of the end of "(3,)"
    return frozenset(_number(field, value) for value in values if not (isinstance(value, str) and value in closing))


def _number(field: str, value: Any) -> Number:
    if isinstance(value, str):
        # A flag that is given a list as Python and the doctor write it, "('task:3', 'task:7')", splits it at commas.
        task, _, digits = value.strip(" ()[]'").rpartition(":")
        if digits.isascii() and digits.isdigit():
            return task or None, int(digits)
    elif hasattr(value, "__index__") and not isinstance(value, bool) and int(value) >= 0:
        return None, int(value)
    raise DemoError(f"{field} holds {named(value)}, expected numbers of episodes, such as 3, or 'task:3'")
