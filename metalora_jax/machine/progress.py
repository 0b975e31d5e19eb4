"""A progress bar with rate and remaining time: live on a terminal, an occasional line in a log file."""

import sys
from collections.abc import Callable, Iterable, Sized
from typing import Any, TextIO

from tqdm import tqdm

_LINE = "{desc}: {n_fmt}/{total_fmt} ({percentage:.0f} %), {elapsed} elapsed, {remaining} left, {rate_fmt}{postfix}"
_OPEN = "{desc}: {n_fmt} done, {elapsed} elapsed{postfix}"  # when the total is unknown


_line: int | None = None  # of the terminal, when several processes show one bar each


def take_line(number: int) -> None:
    """Puts this process's bars on a terminal line of their own."""
    global _line
    _line = number


class _Lines(tqdm):
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
    common = {"iterable": iterable, "desc": description, "total": total, "initial": initial, "file": file}
    if file.isatty():
        return tqdm(**common, dynamic_ncols=True, position=_line)
    # miniters=1: look at the clock after every item; tqdm would learn to skip checks, and lag when items slow down.
    return _Lines(
        **common, mininterval=every, maxinterval=every, miniters=1, bar_format=_OPEN if total is None else _LINE
    )
