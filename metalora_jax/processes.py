"""Work in fresh processes, side by side; results come as they are done."""

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Result = TypeVar("Result")

_stop: Any = None  # in a worker: set when no further job shall begin

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def in_processes(
    function: Callable[..., Result],
    jobs: Sequence[tuple],
    workers: int,
    start: Callable[..., None] | None = None,
    start_args: tuple = (),
    jobs_each: int | None = None,
) -> Iterator[Result]:
    """Yields `function(*job)` for each job, in the order in which they finish.

    Processes are spawned, not forked: JAX runs threads. They end with this one, even when it is killed. An interrupt
    ends the running jobs as each of them sees fit; no other begins.

    Args:
      function, jobs: importable, and picklable.
      workers: processes at a time.
      start: called once in every new process with `start_args`.
      jobs_each: jobs after which a process is replaced by a fresh one; None keeps it.

    Raises:
      RuntimeError: a process died without an exception (no memory, a crash in a C library). What a job raises is raised
        here, too; jobs that have not begun are dropped.
    """
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        context,
        initializer=_begin,
        initargs=(stop, start, start_args),
        max_tasks_per_child=jobs_each,
    )
    with pool:
        try:
            for done in as_completed([pool.submit(_call, function, *job) for job in jobs]):
                yield done.result()
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process died without a word: out of memory, a full disk, or a crash in a C library; what is "
                "finished is kept, and the same command goes on from there"
            ) from None
        finally:
            stop.set()  # a worker has the next jobs in its queue already
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(stop: Any, start: Callable[..., Any] | None, start_args: tuple) -> None:
    global _stop
    _stop = stop
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if start is not None:
        start(*start_args)


def _call(function: Callable[..., Result], *job: Any) -> Result:
    if _stop.is_set():
        raise KeyboardInterrupt
    try:
        return function(*job)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C reaches this process as soon as the one that started it
        _stop.set()
        raise
