"""A progress bar with rate and time left: alive on a terminal, one line now and then in a log file."""

import sys
from collections.abc import Callable, Iterable, Sized
from typing import Any, TextIO

from tqdm import tqdm

_LINE = "{desc}: {n_fmt}/{total_fmt} ({percentage:.0f} %), {elapsed} gone, {remaining} left, {rate_fmt}{postfix}"
_OPEN = "{desc}: {n_fmt} done, {elapsed} gone{postfix}"  # where nobody knows how many there are


_line: int | None = None  # of the terminal, where several processes show a bar each


def take_line(number: int) -> None:
    """Puts this process's bars on a terminal line of their own."""
    global _line
    _line = number


class _Lines(tqdm):
    """Prints each state of the bar as a line of its own: a log file cannot take one back."""

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        def print_status(status: str) -> None:
            if status.strip():
                file.write(status + "\n")
                file.flush()

        return print_status

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = True, **numbers: Any) -> None:
        """As in tqdm, but shown with the next line: new numbers are no reason for one."""
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
      total: how many in all, `initial` included; `initial + len(iterable)` when not given, where there is a length.
      initial: how many were done before, by the run that is resumed; they do not count into the rate.
      every: time between two lines where `file` is not a terminal [s].
      file: where to; standard error when not given.
    """
    file = file or sys.stderr
    if total is None and isinstance(iterable, Sized):
        total = initial + len(iterable)
    common = {"iterable": iterable, "desc": description, "total": total, "initial": initial, "file": file}
    if file.isatty():
        return tqdm(**common, dynamic_ncols=True, position=_line)
    # miniters=1: look at the clock after every item; tqdm would learn to skip looks, and come late when items slow.
    return _Lines(
        **common, mininterval=every, maxinterval=every, miniters=1, bar_format=_OPEN if total is None else _LINE
    )
