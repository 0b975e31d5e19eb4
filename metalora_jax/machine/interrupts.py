"""Ctrl-C and SIGTERM end a program the same way: KeyboardInterrupt is raised, and nothing half-written stays behind."""

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def end_at_once() -> Iterator[None]:
    """For imports: Ctrl-C ends the process without a word, where NumPy would make an ImportError of it."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """For what cannot be undone half-way: Ctrl-C and SIGTERM take effect at its end."""
    if threading.current_thread() is not threading.main_thread():  # no other is interrupted
        yield
        return
    came: list[int] = []
    both = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, _: came.append(number)) for each in both]
    try:
        yield
    finally:
        for each, handler in zip(both, before, strict=True):
            signal.signal(each, handler)
    for number in came:
        signal.raise_signal(number)


def install() -> None:
    """For the rest of the process."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.unraisablehook = _unraisable


def _terminated(*_: object) -> None:
    """Ends as by Ctrl-C, workers included; a second SIGTERM ends it at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for worker in multiprocessing.active_children():  # Ctrl-C reaches them by itself
        worker.terminate()
    raise KeyboardInterrupt


def _unraisable(ignored: "sys.UnraisableHookArgs") -> None:
    """`sys.unraisablehook`, which raises an interrupt again a moment later.

    Python calls JAX while it collects garbage, and ignores what is raised there: a Ctrl-C at that moment would be lost.
    """
    if not isinstance(ignored.exc_value, KeyboardInterrupt):
        return sys.__unraisablehook__(ignored)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)  # [s]; here, it would be ignored again
