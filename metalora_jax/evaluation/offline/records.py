"""The raw record of a comparison without a simulator: one JSON line for each policy and demonstration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from metalora_jax.evaluation.reports.records import RecordError, canonical
from metalora_jax.fields import from_fields
from metalora_jax.machine import files

RECORDS = "offline.jsonl"


class Row(NamedTuple):
    """One policy on one demonstration that it was not adapted to."""

    method: str  # an arm, "base", or a rival of `rivals.NAMES`
    split: str
    task: str
    condition: Mapping[str, Any]  # {} is the nominal one
    shots: int  # demonstrations adapted on; the rivals use the same
    draw: int
    episode: int  # which demonstration of the task
    error: tuple[float, ...]  # (D,) mean absolute error of each joint, in the robot's own units
    scaled_error: float  # mean over joints, in standard deviations of the base's data
    loss: float | None  # flow matching; None for rivals
    meta_seed: int = 0
    steps: int = 0  # gradient steps
    told: str | None = None  # another task's instruction, in the wrong-instruction control
    adapt_seconds: float = 0.0  # without compilation [s]
    fingerprint: str = ""  # a line of provenance.jsonl
    identified: str | None = (
        None  # the kind of arm that maps the base's commands instead of taking steps, such as "linear"
    )

    @property
    def key(self) -> tuple:
        """What was decided before it was measured."""
        return (*self.policy, self.episode, self.told)

    @property
    def policy(self) -> tuple:
        """The adapted policy."""
        return self.method, self.meta_seed, self.task, self.shots, self.draw, self.steps


class Log:
    """An append-only log. A torn last line of a killed run is dropped; rows that are there are not written again."""

    def __init__(self, path: Path):
        self._path = path
        self._stamps = {row.key: row.fingerprint for row in read(path, mend=True)}
        self._file = path.open("a", encoding="utf-8")

    def has(self, policy: tuple, rows: int, stamp: str) -> bool:
        """Whether all rows of an adapted policy (see `Row.policy`) are there; RecordError if made of other inputs."""
        stamps = [recorded for key, recorded in self._stamps.items() if key[:-2] == policy]
        if set(stamps) - {stamp}:
            raise RecordError(f"{self._path}: {policy} was recorded with other inputs; use a new run directory")
        return len(stamps) == rows

    def append(self, row: Row) -> None:
        """Writes a row through, unless it is there."""
        if row.key in self._stamps:
            return
        self._file.write(canonical(row._asdict()) + "\n")
        self._file.flush()
        self._stamps[row.key] = row.fingerprint

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read(path: Path, mend: bool = False) -> list[Row]:
    """All rows; none where there is no file.

    Args:
      path: the log.
      mend: take an incomplete last line out of the file, too.

    Raises:
      RecordError: a line is no row.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        logging.warning("%s: an incomplete last line is left out", path)
        if mend:
            files.write_text(path, whole)
    rows = []
    for number, line in enumerate(whole.split("\n")[:-1], 1):
        try:
            rows.append(from_fields(Row, json.loads(line), "row"))
        except ValueError as error:
            raise RecordError(f"{path}:{number}: {error}; the log was edited or damaged, restore it") from None
    return rows
