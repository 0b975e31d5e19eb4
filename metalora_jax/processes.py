"""Work in fresh processes, side by side; results come as they are done."""

import contextlib
import ctypes
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Result = TypeVar("Result")
Job = TypeVar("Job")

GRACE = 20.0  # [s] that running jobs get to save their work when the others are given up
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

    Processes are spawned, not forked: JAX runs threads. They end with this one, even when it is killed. Each has a pipe
    of its own and at most one job: concurrent.futures feeds all its processes from one queue, and (before Python 3.12)
    hangs when they end while a large job is in it.

    Args:
      function, jobs: importable, and picklable.
      workers: processes at a time.
      start: called once in every new process with `start_args`.
      jobs_each: jobs after which a process is replaced by a fresh one; None keeps it.

    Raises:
      RuntimeError: a process died without an exception (no memory, a crash in a C library). What a job raises is raised
        here, too. Either way, as with Ctrl-C, no other job begins, and running ones have `GRACE` seconds to end.
    """
    context = multiprocessing.get_context("spawn")
    crew: dict[Connection, BaseProcess] = {}
    left: dict[Connection, int | None] = {}  # jobs until a process is replaced
    todo = list(reversed(jobs))

    def hire() -> None:
        ours, theirs = context.Pipe()
        crew[ours] = context.Process(target=_work, args=(theirs, function, start, start_args), daemon=True)
        crew[ours].start()
        theirs.close()  # so that its end is seen here
        left[ours] = jobs_each
        ours.send(todo.pop())

    try:
        while len(crew) < workers and todo:
            hire()
        while crew:
            for worker in wait(list(crew)):
                assert isinstance(worker, Connection)
                result = _receive(worker)
                remaining = left[worker]
                left[worker] = None if remaining is None else remaining - 1
                if todo and left[worker] != 0:
                    worker.send(todo.pop())
                else:
                    worker.close()
                    crew.pop(worker).join()
                    if todo:
                        hire()
                yield result
    finally:
        _dismiss(crew)


def _receive(worker: Connection) -> Any:
    try:
        succeeded, value = worker.recv()
    except (EOFError, OSError):
        raise RuntimeError(
            "a worker process died without a word: out of memory, a full disk, or a crash in a C library; what is "
            "finished is kept, and the same command goes on from there"
        ) from None
    if not succeeded:
        raise value
    return value


def _dismiss(crew: dict[Connection, BaseProcess]) -> None:
    deadline = time.monotonic() + GRACE
    for connection, process in crew.items():
        connection.close()
        process.join(max(0.0, deadline - time.monotonic()))
    for process in crew.values():
        process.terminate()
        process.join()


def _work(
    jobs: Connection, function: Callable[..., object], start: Callable[..., None] | None, start_args: tuple
) -> None:
    end_with_parent()
    # Whoever interrupts this process or closes its pipe wants no answer any more.
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = jobs.recv()
            try:
                if start is not None:
                    start(*start_args)
                    start = None
                answer = True, function(*job)
            except Exception as error:
                error.add_note(traceback.format_exc())  # a traceback itself does not travel
                answer = False, error
            jobs.send(answer)


def end_with_parent() -> None:
    """Lets this process end with the one that started it, even when that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def share(jobs: Sequence[Job], host: int, hosts: int) -> Sequence[Job]:
    """The part of `jobs` that falls to one of several hosts: neighbours stay together, and parts differ by one at most.

    Raises:
      ValueError: `host` is not in 0..hosts-1.
    """
    if not 0 <= host < hosts:
        raise ValueError(f"host {host} of {hosts}: hosts are counted from 0")
    return jobs[len(jobs) * host // hosts : len(jobs) * (host + 1) // hosts]
