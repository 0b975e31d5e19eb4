"""Results of the checks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from metalora_jax.words import listed

SEVERITIES = ("error", "warning", "info")  # the worst first


class Finding(NamedTuple):
    """One problem."""

    where: str  # the file, demonstration, camera or flag
    what: str
    remedy: str
    severity: str = "error"  # one of SEVERITIES
    file: str = ""  # the file or data set, where it is about one
    episodes: tuple[int, ...] = ()  # the data set's own numbers, where it is about some
    task: str = ""  # the instruction
    figures: Mapping[str, float] = {}

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Outcome(NamedTuple):
    """The result of one check: it passed if there is neither a finding nor a reason to skip it."""

    check: str
    findings: tuple[Finding, ...] = ()
    note: str = ""  # what was seen, in figures
    skipped: str = ""  # why the check was not possible

    @property
    def worst(self) -> str:
        """The worst severity among the findings; "" if there is none."""
        return next((s for s in SEVERITIES if any(f.severity == s for f in self.findings)), "")


def together(
    found: Iterable[tuple[str, str, str, str]], counts: dict[str, int], severity: str = "error"
) -> tuple[Finding, ...]:
    """One finding for all demonstrations of a file that have the same problem.

    Args:
      found: (file, demonstration, what, remedy).
      counts: file -> its demonstrations.
      severity: of all of them.
    """
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for file, demonstration, what, remedy in found:
        grouped.setdefault((file, what, remedy), []).append(demonstration)
    return tuple(
        Finding(f"{file} {listed(names, 4)} ({len(names)} of {counts[file]})", what, remedy, severity, file)
        for (file, what, remedy), names in grouped.items()
    )


def in_spans(found: Sequence[tuple[str, str, str, str, float | None]]) -> list[tuple[str, str, str, str]]:
    """What `together` takes, where a problem has another figure in each demonstration: all say its range in the file.

    Args:
      found: (file, demonstration, what, remedy, figure); "{}" in `what` stands for the figure, None where it has none.
    """
    figures: dict[tuple[str, str], list[float]] = {}
    for file, _, what, _, figure in found:
        figures.setdefault((file, what), []).extend([] if figure is None else [figure])
    spans = {key: _span(values) for key, values in figures.items()}
    return [(file, name, what.format(spans[file, what]), remedy) for file, name, what, remedy, _ in found]


def _span(figures: Sequence[float]) -> str:
    low, high = (f"{edge(figures, default=0.0):.3g}" for edge in (min, max))
    return low if low == high else f"{low} to {high}"


def failing(outcomes: Sequence[Outcome], level: str) -> list[Finding]:
    """The findings that are as bad as `level`, or worse; none for the level "never"."""
    if level == "never":
        return []
    bad = SEVERITIES[: SEVERITIES.index(level) + 1]
    return [finding for outcome in outcomes for finding in outcome.findings if finding.severity in bad]


def to_drop(outcomes: Sequence[Outcome]) -> dict[str, list[int]]:
    """File -> the numbers of the episodes that stand apart from the others by an error or a warning."""
    found: dict[str, set[int]] = {}
    for finding in failing(outcomes, "warning"):
        if finding.episodes:
            found.setdefault(finding.file, set()).update(finding.episodes)
    return {file: sorted(numbers) for file, numbers in found.items()}


def dropping(file: str, numbers: Sequence[int]) -> str:
    """As `drop` takes it everywhere: episodes of HDF5 files with their task, since each file counts anew."""
    task = PurePath(file).stem.removesuffix("_demo")
    return f"drop={tuple(f'{task}:{number}' if file.endswith('.hdf5') else number for number in numbers)}"
