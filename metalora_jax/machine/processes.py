"""Runs jobs in parallel in fresh processes; results are yielded as they finish."""

import contextlib
import ctypes
import dataclasses
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, NoReturn, TypeVar

from metalora_jax.machine import caches

Result = TypeVar("Result")
Job = TypeVar("Job")

GRACE = 20.0  # [s] that running jobs get to save their work when the rest are cancelled
LOSSES = 5  # consecutive lost processes that indicate a broken installation
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclasses.dataclass
class _Worker:
    """A process and its current job."""

    process: BaseProcess
    left: int | None  # jobs until it is replaced; None: it never is
    job: tuple = ()
    deadline: float = math.inf  # [s], monotonic


def in_processes(
    function: Callable[..., Result],
    jobs: Sequence[tuple],
    workers: int,
    start: Callable[..., None] | None = None,
    start_args: tuple = (),
    jobs_each: int | None = None,
    lost: Callable[..., Result] | None = None,
    timeout: float = math.inf,
) -> Iterator[Result]:
    """Yields `function(*job)` for each job, in the order in which they finish.

    Processes are spawned, not forked: JAX runs threads. They end with this one, even if it is killed. Each has a pipe
    of its own and at most one job: concurrent.futures feeds all its processes from one queue, and (before Python 3.12)
    hangs if they end while a large job is in it.

    Args:
      function, jobs: importable and picklable.
      workers: number of processes.
      start: called once in every new process with `start_args`.
      jobs_each: jobs after which a process is replaced by a fresh one; None keeps it.
      lost: what to yield for a job whose process died, or did not answer in time: `lost(why, *job)`. The
        process is replaced; the others are unaffected. None: raise an error.
      timeout: time limit of a job [s], process start included, after which the process is killed.

    Raises:
      RuntimeError: if a process died without an exception (no memory, a crash in a C library) or did not answer, and
        there is no `lost`, or `LOSSES` jobs in a row were lost. What a job raises is raised here, too. Either way, as
        with Ctrl-C, no further job starts, and running ones have `GRACE` seconds to end.
    """
    context = multiprocessing.get_context("spawn")
    crew: dict[Connection, _Worker] = {}
    todo = list(reversed(jobs))
    losses = 0

    def hire() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, function, start, start_args), daemon=True)
        resource_tracker.ensure_running()  # or `process.start` does, and lets interrupts through again
        # A process inherits what is blocked: a Ctrl-C during its imports, where it would show a traceback, waits for
        # `_work`.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            theirs.close()  # so that its end is noticed here
            crew[ours] = _Worker(process, jobs_each)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        give(ours)

    def give(pipe: Connection) -> None:
        worker = crew[pipe]
        worker.job, worker.deadline = todo.pop(), time.monotonic() + timeout
        with contextlib.suppress(OSError):  # it has died, which shows at the next read
            pipe.send(worker.job)

    try:
        while len(crew) < workers and todo:
            hire()
        while crew:
            soonest = min(worker.deadline for worker in crew.values())
            ready = wait(list(crew), None if soonest == math.inf else max(0.0, soonest - time.monotonic()))
            late = [pipe for pipe, worker in crew.items() if worker.deadline <= time.monotonic()]
            for pipe in ready or late:
                assert isinstance(pipe, Connection)
                worker = crew[pipe]
                try:
                    value = _receive(pipe) if ready else _give_up(timeout)
                    worker.left = None if worker.left is None else worker.left - 1
                    losses = 0
                except _Lost as loss:
                    losses += 1
                    worker.process.kill()
                    if lost is None or losses == LOSSES:
                        raise RuntimeError(f"{loss}; finished work is kept, and the same command resumes") from None
                    worker.left = 0
                    value = lost(str(loss), *worker.job)
                if todo and worker.left != 0:
                    give(pipe)
                else:
                    pipe.close()
                    crew.pop(pipe).process.join()
                    if todo:
                        hire()
                yield value
    finally:
        _dismiss({pipe: worker.process for pipe, worker in crew.items()})


class _Lost(Exception):
    """A process has stopped answering."""


def _receive(pipe: Connection) -> Any:
    try:
        succeeded, value = pipe.recv()
    except (EOFError, OSError):
        raise _Lost(
            "a worker process died without an error message: out of memory, a full disk, or a crash in a C library"
        ) from None
    if not succeeded:
        raise value
    return value


def _give_up(timeout: float) -> NoReturn:
    raise _Lost(f"a worker process did not answer within {timeout:g} s")


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
    if caches.COMPILED in os.environ:  # the command that started this process keeps programs
        caches.keep_compiled()
    # Whoever interrupts this process or closes its pipe no longer needs an answer.
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            job = jobs.recv()
            try:
                if start is not None:
                    start(*start_args)
                    start = None
                answer = True, function(*job)
            except Exception as error:
                error.add_note(traceback.format_exc())  # a traceback itself cannot be pickled
                answer = False, error
            jobs.send(answer)


def end_with_parent() -> None:
    """Makes this process end with the one that started it, even if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Host(NamedTuple):
    """One of several machines that run the same command, each doing its share of the work."""

    number: int = 0  # counted from 0
    hosts: int = 1

    def share(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """The part of `jobs` that falls to this host: neighbours stay together, and part sizes differ by at most one.

        Raises:
          ValueError: if the number is not in 0..hosts-1.
        """
        if not 0 <= self.number < self.hosts:
            raise ValueError(f"host {self.number} of {self.hosts}: hosts are numbered from 0")
        return jobs[len(jobs) * self.number // self.hosts : len(jobs) * (self.number + 1) // self.hosts]


ALONE = Host()
