"""The time and the memory of a piece of work on a CPU."""

import contextlib
import time
from pathlib import Path


def timed(work):
    """Runs it: seconds on the wall and of the processor, and the highest resident memory meanwhile [GiB]."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from here on
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "peak_gib": highest_gib()}


def highest_gib():
    """The highest resident memory of this process, since it began or since `timed` last did."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
