"""Results of the checks."""

from collections.abc import Iterable
from typing import NamedTuple

from metalora_jax.words import listed


class Finding(NamedTuple):
    """One problem."""

    where: str  # the file, demonstration, camera or flag
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Outcome(NamedTuple):
    """The result of one check: it passed if there is neither a finding nor a reason to skip it."""

    check: str
    findings: tuple[Finding, ...] = ()
    note: str = ""  # what was seen, in figures
    skipped: str = ""  # why the check was not possible


def together(found: Iterable[tuple[str, str, str, str]], counts: dict[str, int]) -> tuple[Finding, ...]:
    """One finding for all demonstrations of a file that have the same problem.

    Args:
      found: (file, demonstration, what, remedy).
      counts: file -> its demonstrations.
    """
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for file, demonstration, what, remedy in found:
        grouped.setdefault((file, what, remedy), []).append(demonstration)
    return tuple(
        Finding(f"{file} {listed(names, 4)} ({len(names)} of {counts[file]})", what, remedy)
        for (file, what, remedy), names in grouped.items()
    )
