"""The tables of a LeRobot dataset: the rows of one episode, from a file of its own or one of many episodes."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from metalora_jax.data.demos import DemoError, reading
from metalora_jax.data.sources.lerobot_info import INFO, REMEDY, Feature
from metalora_jax.data.sources.lerobot_meta import LAYOUT, Row, parquet
from metalora_jax.data.sources.pictures import HALF
from metalora_jax.data.sources.selection import listed
from metalora_jax.words import plural

_COUNTERS = ("frame_index", "task_index", "index")


class Tables:
    """Reads rows; of the files, only the row groups that hold them."""

    def __init__(self, rows: Iterable[Row]):
        """Opens nothing."""
        self._numbers = {row.number for row in rows}
        self._whose: tuple[Path | None, np.ndarray] = (None, np.zeros(0, int))  # the episode of each row of a file
        self._told: set[Path] = set()

    def read(self, row: Row, columns: Sequence[str], present: Sequence[str] = ()) -> Any:
        """The episode's rows, as a table of `columns`, and of `present` where they are there."""
        if not row.data.exists():
            fields = "by its chunk_index and file_index, or by its number"
            raise DemoError(f"{row.data}: no such file, named for episode {row.number} {fields}; {REMEDY}")
        with reading(row.data, LAYOUT, REMEDY), parquet().ParquetFile(row.data) as file:
            there = set(file.schema_arrow.names)
            if missing := [name for name in ("episode_index", *columns) if name not in there]:
                raise DemoError(f"{row.data}: key missing (column {missing[0]}), which {INFO} declares; {REMEDY}")
            known, whose = self._whose  # several threads may read
            if known != row.data:
                whose = _integers(f"{row.data}", "episode_index", file.read(columns=["episode_index"]))
                self._whose = row.data, whose
                self._tell_strangers(row.data, whose)
            rows = np.flatnonzero(whose == row.number)
            if len(rows) != row.length:
                what = f"{len(rows)} rows of episode {row.number} (episode_index)"
                if not len(rows):
                    what = f"no rows of episode {row.number} (episode_index; by its chunk_index and file_index)"
                raise DemoError(f"{row.data}: {what}, but the metadata declare length {row.length}; {REMEDY}")
            if (np.diff(rows) != 1).any():
                raise DemoError(f"{row.data}: the rows of episode {row.number} are not consecutive; {REMEDY}")
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            first, last = np.searchsorted(ends, rows[[0, -1]], side="right")
            wanted = [*columns, *(name for name in present if name in there)]
            table = file.read_row_groups(list(range(first, last + 1)), columns=list(dict.fromkeys(wanted)))
            return table.slice(rows[0] - (ends[first] - sizes[first]), row.length)

    def _tell_strangers(self, path: Path, whose: np.ndarray) -> None:
        """Says which rows are never read, since the metadata do not list their episodes."""
        if path not in self._told:
            self._told.add(path)
            if strangers := sorted({int(i) for i in np.unique(whose)} - self._numbers):
                what = f"left out rows of episodes that the metadata do not list: {listed(strangers)}"
                logging.warning("%s: %s", path, what)

    @staticmethod
    def counts(path: Path) -> dict[int, int]:
        """How many rows of each episode a file holds."""
        with reading(path, LAYOUT, REMEDY):
            whose = _integers(f"{path}", "episode_index", parquet().read_table(path, columns=["episode_index"]))
        return {int(i): int(count) for i, count in zip(*np.unique(whose, return_counts=True), strict=True)}

    @staticmethod
    def tasks(path: Path) -> dict[int, set[int]]:
        """The tasks (task_index) of each episode in a file."""
        with reading(path, LAYOUT, REMEDY):
            table = parquet().read_table(path, columns=["episode_index", "task_index"])
            pairs = np.stack([_integers(f"{path}", name, table) for name in ("episode_index", "task_index")])
        found: dict[int, set[int]] = {}
        for episode, task in np.unique(pairs, axis=1).T.tolist():
            found.setdefault(episode, set()).add(task)
        return found


def check_counters(where: str, row: Row, task: str, tasks: dict[int, str], fps: float, table: Any) -> None:
    """Holds the columns that count against the metadata, and the times against the frames.

    Args:
      where: prefix of error messages.
      row: what the metadata say.
      task: the episode's.
      tasks: those of the dataset.
      fps: frames per second, as declared.
      table: the episode's rows.
    """
    there = [name for name in _COUNTERS if name in table.column_names]
    counters = {name: _integers(where, name, table) for name in there}
    steps = np.arange(row.length)
    if (wrong := counters["frame_index"] != steps).any():
        step = int(np.argmax(wrong))
        what = f"frame_index does not count from 0 to {row.length - 1}: row {step} has {counters['frame_index'][step]}"
        raise DemoError(f"{where}: {what}; {REMEDY}")
    for index in np.unique(counters["task_index"]).tolist():
        if index not in tasks:
            known = f"0 to {max(tasks)}" if tasks else "none"
            raise DemoError(f"{where}: frames of task_index {index}, but the tasks are {known}; {REMEDY}")
        if tasks[index] != task:
            what = f"frames of task_index {index} ({tasks[index]!r}), but the metadata say {task!r}"
            raise DemoError(f"{where}: {what}; {REMEDY}")
    if "index" in counters:
        index = counters["index"]
        first = int(index[0]) if row.first is None else row.first
        if (wrong := index != first + steps).any():
            step = int(np.argmax(wrong))
            what = f"index of frame {step} is {index[step]}, but the metadata make it {first + step}"
            raise DemoError(f"{where}: {what} (dataset_from_index, or the lengths before it); {REMEDY}")
    times = column(table, "timestamp").to_numpy()
    if not np.issubdtype(times.dtype, np.number):
        raise DemoError(f"{where}: timestamp holds {times.dtype}, expected seconds; {REMEDY}")
    near = np.abs(times.astype(np.float64) * fps - steps) <= HALF
    if not near.all():
        step = int(np.argmin(near))
        what = (
            f"timestamp: frame {step} at {times[step]:.3f} s, expected {step / fps:.3f} s at the declared fps {fps:g}"
        )
        raise DemoError(f"{where}: {what}; {REMEDY}")


def vectors(where: str, key: str, feature: Feature, table: Any) -> np.ndarray:
    """(T, width) of a column of lists, as wide as declared."""
    cells = column(table, key)
    kind = getattr(cells.type, "value_type", cells.type)
    try:
        same = np.dtype(kind.to_pandas_dtype()) == feature.dtype
    except (TypeError, NotImplementedError):
        same = False
    if not same:
        raise DemoError(f"{where}: {key} holds {kind}, but info.json declares {feature.dtype}; {REMEDY}")
    try:
        values = np.asarray(cells.to_pylist(), feature.dtype)  # an empty cell becomes a NaN
    except (ValueError, TypeError) as error:
        widths = {len(cell) for cell in cells.to_pylist() if isinstance(cell, list)}
        what = (
            f"is not of constant width: {', '.join(map(str, sorted(widths)))}" if len(widths) > 1 else "has empty cells"
        )
        raise DemoError(f"{where}: {key} {what}; {REMEDY}") from error
    values = values.reshape(len(values), -1)
    if values.shape[1:] != feature.shape:
        raise DemoError(
            f"{where}: {key} has {plural(values.shape[1], 'dimension')}, info.json declares shape "
            f"{feature.shape}; {REMEDY}"
        )
    return values


def column(table: Any, name: str) -> Any:
    """A column as one array."""
    return table[name].combine_chunks()


def _integers(where: str, name: str, table: Any) -> np.ndarray:
    values = table[name].to_numpy()
    if not np.issubdtype(values.dtype, np.integer):
        whole = np.issubdtype(values.dtype, np.floating) and np.isfinite(values).all() and (values % 1 == 0).all()
        if not whole:
            raise DemoError(f"{where}: {name} holds {table[name].type}, or is empty, expected whole numbers; {REMEDY}")
    return values.astype(np.int64)
