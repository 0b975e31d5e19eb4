"""A progress bar with rate and remaining time: live on a terminal, an occasional line in a log file.

A command of several stages gives a `Forecast` once (`show_forecast`); every bar of a stage then also shows how far
along the whole command is, and how long it will still take.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TextIO

from tqdm import tqdm

from metalora_jax.machine.forecast import Forecast, approximate

_LINE = (
    "{desc}: {n_fmt}/{total_fmt} ({percentage:.0f} %), {elapsed} elapsed, {remaining} left, {rate_fmt}{postfix}{whole}"
)
_OPEN = "{desc}: {n_fmt} done, {elapsed} elapsed{postfix}"  # when the total is unknown


_line: int | None = None  # of the terminal, when several processes show one bar each


def take_line(number: int) -> None:
    """Puts this process's bars on a terminal line of their own."""
    global _line
    _line = number


_forecast: Forecast | None = None


def show_forecast(forecast: Forecast | None) -> None:
    """Makes the bars of this process show a forecast of the whole command, too; None: they show none."""
    global _forecast
    _forecast = forecast


def current_forecast() -> Forecast | None:
    """The forecast that this process shows, to be handed on to the processes that it starts."""
    return _forecast


class _Bar(tqdm):
    """Shows the forecast of the whole command behind its own numbers."""

    def __init__(self, *, forecast: Forecast | None, **kwargs: Any):
        self._forecast = forecast
        self._stage = None if forecast is None else forecast.stage(kwargs["desc"])
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
        if self._forecast is not None and self._stage is not None and numbers["total"]:
            share, left = self._forecast.at(self._stage, *self._moved(numbers))
            numbers["whole"] = f"; the whole: {share:.0%}, {approximate(left)} left"
        return numbers

    def close(self) -> None:
        """As in tqdm; the forecast takes the stage's outcome into account."""
        if not self.disable and self._forecast is not None and self._stage is not None and self.total:
            self._forecast.end(self._stage, *self._moved(super().format_dict)[1:])
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
    delay: float = 0.0,
    file: TextIO | None = None,
) -> tqdm:
    """A tqdm bar over `iterable`, or one moved by `update()`; `set_postfix(loss=...)` adds numbers to it.

    Args:
      iterable: what to count; None for a bar that is moved by hand.
      description: what is counted, such as "meta-train".
      total: how many in all, including `initial`; by default `initial + len(iterable)`, if there is a length.
      initial: how many the resumed run had already done; they do not count towards the rate.
      every: time between two lines if `file` is not a terminal [s].
      delay: what is over after so long [s] is not shown at all.
      file: where to write; standard error by default.
    """
    file = file or sys.stderr
    if total is None and isinstance(iterable, Sized):
        total = initial + len(iterable)
    common: dict[str, Any] = {"iterable": iterable, "desc": description, "total": total, "initial": initial}
    common |= {"file": file, "forecast": _forecast, "delay": delay}
    if file.isatty():
        return _Bar(**common, dynamic_ncols=True, position=_line, bar_format="{l_bar}{bar}{r_bar}{whole}")
    # miniters=1: look at the clock after every item; tqdm would learn to skip checks, and lag when items slow down.
    return _Lines(
        **common, mininterval=every, maxinterval=every, miniters=1, bar_format=_OPEN if total is None else _LINE
    )


@contextlib.contextmanager
def waiting(bar: tqdm, what: str) -> Iterator[Callable[[], None]]:
    """Shows on a bar what it waits for, and for how long: "compiling, 12 s".

    It ends with the block, or when what it yields is called: work has begun. The time does not count in the bar's rate.
    """
    began, ended = time.monotonic(), threading.Event()

    def show() -> None:
        while not ended.wait(max(1.0, min(10.0, bar.mininterval))):
            bar.set_postfix_str(f"{what}, {time.monotonic() - began:.0f} s", refresh=False)
            bar.refresh()

    thread = threading.Thread(target=show, name="waiting", daemon=True)

    def end() -> None:
        if not ended.is_set():
            ended.set()
            thread.join()
            bar.unpause()
            bar.set_postfix_str("", refresh=False)

    bar.set_postfix_str(what)
    thread.start()
    try:
        yield end
    finally:
        end()
