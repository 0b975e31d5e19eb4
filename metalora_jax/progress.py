"""A progress bar with rate and remaining time: live on a terminal, an occasional line in a log file.

A command of several stages says once what they took where they were measured (`foretell`); every bar of a stage then
also shows how far the whole command is, and how long it still takes.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Sized
from typing import Any, TextIO

from tqdm import tqdm

_LINE = (
    "{desc}: {n_fmt}/{total_fmt} ({percentage:.0f} %), {elapsed} elapsed, {remaining} left, {rate_fmt}{postfix}{whole}"
)
_OPEN = "{desc}: {n_fmt} done, {elapsed} elapsed{postfix}"  # when the total is unknown


_line: int | None = None  # of the terminal, when several processes show one bar each


def take_line(number: int) -> None:
    """Puts this process's bars on a terminal line of their own."""
    global _line
    _line = number


PRIOR = 0.1  # of the whole: the measured pace counts for as much as that much work of this run's own


@dataclasses.dataclass
class Outlook:
    """How far a command of several stages is, and how long it still takes, at the pace of this run.

    Attributes:
      seconds: stage -> what it took where it was measured [s], in the order in which they run. A stage is what one bar
        counts, or several side by side, and its name is how the bar's description begins.
      done: of those, how many this run has done by itself [s]; what a resumed run finds done tells nothing of its pace.
      took: what they took here [s].
    """

    seconds: dict[str, float]
    done: float = 0.0
    took: float = 0.0

    def stage(self, description: str) -> str | None:
        """The stage that a bar belongs to."""
        return next((name for name in self.seconds if description.startswith(name)), None)

    def share(self, *stages: str) -> float:
        """Of stages in the whole, in [0, 1]."""
        return sum(self.seconds[stage] for stage in stages) / sum(self.seconds.values())

    def at(self, stage: str, fraction: float = 0.0, moved: float = 0.0, elapsed: float = 0.0) -> tuple[float, float]:
        """Where the whole is while a stage runs.

        What the running stage has done by itself is foretold at its own rate; the more of it that is, the less the
        measurement counts.

        Args:
          stage: the running one.
          fraction: of it that is done, in [0, 1].
          moved: of it that this run has done itself, in [0, fraction].
          elapsed: since it began [s].

        Returns:
          The share of the whole that is done, in [0, 1], and the time that is left of it [s].
        """
        names = list(self.seconds)
        before, after = names[: names.index(stage)], names[names.index(stage) + 1 :]
        own = self.seconds[stage]
        prior = PRIOR * sum(self.seconds.values())
        lately = elapsed if moved else 0.0  # until it moves, its clock says nothing of its pace
        pace = (self.took + lately + prior) / (self.done + moved * own + prior)
        measured = own * (1 - fraction) * pace
        seen = elapsed / moved * (1 - fraction) if moved else measured
        left = moved * seen + (1 - moved) * measured + pace * sum(self.seconds[name] for name in after)
        return self.share(*before) + fraction * self.share(stage), left

    def end(self, stage: str, moved: float, elapsed: float) -> None:
        """Takes a stage's outcome into account: how much of it this run has done itself, in how long [s]."""
        if moved:
            self.done += moved * self.seconds[stage]
            self.took += elapsed

    def heading(self, *stages: str) -> str:
        """For the line above stages that are about to begin: their share, and the time left."""
        return f"{self.share(*stages):.0%} of the whole, {told(self.at(stages[0])[1])} left"


def told(seconds: float) -> str:
    """A duration that is only foretold, in words: no more digits than are known."""
    if seconds < 90:
        return f"about {max(10, 10 * math.ceil(seconds / 10))} s"
    return f"about {round(seconds / 60)} min"


_outlook: Outlook | None = None


def foretell(outlook: Outlook | None) -> Outlook | None:
    """Makes the bars of this process show an outlook, too; returns it. None: they show none."""
    global _outlook
    _outlook = outlook
    return outlook


def foretold() -> Outlook | None:
    """The outlook of this process: to be handed on to those that it starts."""
    return _outlook


class _Bar(tqdm):
    """Shows the outlook of the whole behind what it shows of itself."""

    def __init__(self, *, outlook: Outlook | None, **kwargs: Any):
        self._outlook = outlook
        self._stage = None if outlook is None else outlook.stage(kwargs["desc"])
        super().__init__(**kwargs)

    def _moved(self, numbers: dict[str, Any]) -> tuple[float, float, float]:
        """Fraction done, fraction done by this run, and elapsed time [s]."""
        total = numbers["total"]
        return numbers["n"] / total, (numbers["n"] - numbers["initial"]) / total, numbers["elapsed"]

    @property
    def format_dict(self) -> dict[str, Any]:
        """As in tqdm, with `{whole}` for the format."""
        numbers = super().format_dict
        numbers["whole"] = ""
        if self._outlook is not None and self._stage is not None and numbers["total"]:
            share, left = self._outlook.at(self._stage, *self._moved(numbers))
            numbers["whole"] = f"; the whole: {share:.0%}, {told(left)} left"
        return numbers

    def close(self) -> None:
        """As in tqdm; the outlook learns what the stage took."""
        if not self.disable and self._outlook is not None and self._stage is not None and self.total:
            self._outlook.end(self._stage, *self._moved(super().format_dict)[1:])
        super().close()


class _Lines(_Bar):
    """Prints each state of the bar as a line of its own: a log file cannot overwrite one."""

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        def print_status(status: str) -> None:
            if status.strip():
                file.write(status + "\n")
                file.flush()

        return print_status

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = True, **numbers: Any) -> None:
        """As in tqdm, but shown with the next line: new numbers alone do not print one."""
        super().set_postfix(ordered_dict, refresh=False, **numbers)


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    description: str,
    total: int | None = None,
    initial: int = 0,
    every: float = 30.0,
    file: TextIO | None = None,
) -> tqdm:
    """A tqdm bar over `iterable`, or one moved by `update()`; `set_postfix(loss=...)` adds numbers to it.

    Args:
      iterable: what to count; None for a bar that is moved by hand.
      description: what is counted, such as "meta-train".
      total: how many in all, including `initial`; by default `initial + len(iterable)`, if there is a length.
      initial: how many the resumed run had already done; they do not count towards the rate.
      every: time between two lines if `file` is not a terminal [s].
      file: where to write; standard error by default.
    """
    file = file or sys.stderr
    if total is None and isinstance(iterable, Sized):
        total = initial + len(iterable)
    common: dict[str, Any] = {"iterable": iterable, "desc": description, "total": total, "initial": initial}
    common |= {"file": file, "outlook": _outlook}
    if file.isatty():
        return _Bar(**common, dynamic_ncols=True, position=_line, bar_format="{l_bar}{bar}{r_bar}{whole}")
    # miniters=1: look at the clock after every item; tqdm would learn to skip checks, and lag when items slow down.
    return _Lines(
        **common, mininterval=every, maxinterval=every, miniters=1, bar_format=_OPEN if total is None else _LINE
    )
