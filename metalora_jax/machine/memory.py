"""Memory that is not needed: not taken by compiled programs, and given back after compilation."""

import contextlib
import ctypes

import jax


def sparing() -> dict[str, str]:
    """Options of `jax.jit` (`compiler_options`) for a program of several heavy parts in a row, such as a meta-step.

    On a CPU XLA orders work so that independent parts may overlap, and then sets aside memory for all of them at once:
    for the inner loop's activations and the query's, though one ends before the other begins. In the order that needs
    least memory a meta-step takes half of it, and no longer.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def give_back_memory() -> None:
    """Returns to the system what was freed here: the C library keeps it, after compilation close to a gigabyte."""
    with contextlib.suppress(AttributeError, OSError):  # glibc has it, others do not
        ctypes.CDLL(None).malloc_trim(0)
