"""What a check says."""

from collections.abc import Iterable
from typing import NamedTuple

from metalora_jax.words import listed


class Finding(NamedTuple):
    """One thing that is wrong."""

    where: str  # the file, demonstration, camera or flag
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Outcome(NamedTuple):
    """What came of one check: it is fine where there is neither a finding nor a reason to skip it."""

    check: str
    findings: tuple[Finding, ...] = ()
    note: str = ""  # what was seen, in figures
    skipped: str = ""  # why it could not be made


def together(found: Iterable[tuple[str, str, str, str]], counts: dict[str, int]) -> tuple[Finding, ...]:
    """One finding for all demonstrations of a file that have the same complaint.

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
