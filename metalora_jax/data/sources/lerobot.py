"""LeRobot datasets, versions 2.x and 3.0: tables in Parquet, pictures inside them or in videos."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax.data.demos import DemoError, checked, reading, stack_cameras
from metalora_jax.data.sources import pictures
from metalora_jax.data.sources.lerobot_meta import INFO, LAYOUT, REMEDY, Episode, load, parquet
from metalora_jax.data.sources.source import Source, feature_names
from metalora_jax.types import Demo

_TIME = 1e-3  # [s] by which a frame's time may differ from its number over fps
_NUMBERS = ("frame_index", "task_index", "timestamp")


class LeRobot(Source):
    """See `sources.open`. The pictures of public LIBERO datasets are already as policies see them."""

    def __init__(self, path: Path, cameras: Sequence[str], keys: Mapping[str, str]):
        """Reads the metadata."""
        self.path = path
        self._meta = load(path)
        self._cameras = tuple(cameras)
        self._features = feature_names(path / INFO, self._meta.features, cameras, keys)
        for key in self._features.cameras:
            if (dtype := self._meta.features[key]["dtype"]) not in ("image", "video"):
                raise DemoError(f"{path / INFO}: {key} is of dtype {dtype}, expected image or video")
        self._whose: tuple[Path | None, np.ndarray] = (None, np.zeros(0, int))  # the episode of each row of a file

    def tasks(self) -> dict[str, int]:
        """See `Source`."""
        return dict(collections.Counter(episode.task for episode in self._meta.episodes))

    def demos(self, task: str, limit: int | None = None) -> Iterator[Demo]:
        """See `Source`."""
        name = self.find(task)
        episodes = [episode for episode in self._meta.episodes if episode.task == name]
        for episode in episodes[: self.enough(task, len(episodes), limit)]:
            yield self._read(episode)

    def _read(self, episode: Episode) -> Demo:
        where = f"{episode.data}: episode {episode.number}"
        _, state, action = self._features
        stored = [key for key in self._features.cameras if self._meta.features[key]["dtype"] == "image"]
        table = self._rows(episode, [state, action, *stored, *_NUMBERS])
        self._check_numbers(where, episode, table)
        seen = [self._pictures(where, episode, key, table) for key in self._features.cameras]
        images = stack_cameras(where, self._cameras, seen, episode.length)
        vectors = (self._vectors(where, key, table) for key in (state, action))
        return checked(where, episode.task, images, *vectors)

    def _rows(self, episode: Episode, columns: list[str]) -> Any:
        """The episode's rows, as a table; only the row groups that hold them are read."""
        with reading(episode.data, LAYOUT, REMEDY), parquet().ParquetFile(episode.data) as file:
            if missing := set(columns) - set(file.schema_arrow.names):
                raise KeyError(f"column {min(missing)}")
            if self._whose[0] != episode.data:
                self._whose = episode.data, file.read(columns=["episode_index"])["episode_index"].to_numpy()
            rows = np.flatnonzero(self._whose[1] == episode.number)
            if len(rows) != episode.length or (np.diff(rows) != 1).any():
                raise DemoError(
                    f"{episode.data}: {len(rows)} rows of episode {episode.number}, but the metadata declare "
                    f"{episode.length} consecutive ones; {REMEDY}"
                )
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            first, last = np.searchsorted(ends, rows[[0, -1]], side="right")
            table = file.read_row_groups(list(range(first, last + 1)), columns=columns)
            return table.slice(rows[0] - (ends[first] - sizes[first]), episode.length)

    def _check_numbers(self, where: str, episode: Episode, table: Any) -> None:
        numbers, tasks, times = (table[name].to_numpy() for name in _NUMBERS)
        if (numbers != np.arange(episode.length)).any():
            raise DemoError(f"{where}: frame_index does not count from 0 to {episode.length - 1}; {REMEDY}")
        told = {self._meta.tasks.get(int(task)) for task in np.unique(tasks)}
        if told != {episode.task}:
            raise DemoError(f"{where}: frames of {told}, but the metadata say {episode.task!r}; {REMEDY}")
        away = np.abs(times - numbers / self._meta.fps)
        if not (away <= _TIME).all():
            step = int(np.argmax(~(away <= _TIME)))
            raise DemoError(
                f"{where}: frame {step} at {times[step]:.3f} s, expected {step / self._meta.fps:.3f} s at the declared "
                f"{self._meta.fps:g} frames per second; {REMEDY}"
            )

    def _vectors(self, where: str, key: str, table: Any) -> np.ndarray:
        """(T, width) of a column of lists, as wide as declared."""
        feature, column = self._meta.features[key], table[key].combine_chunks()
        kind = getattr(column.type, "value_type", column.type)
        if np.dtype(kind.to_pandas_dtype()) != feature["dtype"]:
            raise DemoError(f"{where}: {key} holds {kind}, but info.json declares {feature['dtype']}; {REMEDY}")
        try:
            values = np.asarray(column.to_pylist(), feature["dtype"])  # an empty cell becomes a NaN
        except (ValueError, TypeError) as error:
            raise DemoError(f"{where}: {key} is not of constant width ({error}); {REMEDY}") from error
        values = values.reshape(len(values), -1)
        if values.shape[1:] != feature["shape"]:
            raise DemoError(f"{where}: {key} has {values.shape[1]} dimensions, info.json declares {feature['shape']}")
        return values

    def _pictures(self, where: str, episode: Episode, key: str, table: Any) -> np.ndarray:
        declared = self._meta.features[key]["shape"]
        shape = declared if declared[-1:] == (3,) else (*declared[1:], declared[0])  # some declare channels first
        if key in episode.videos:
            path, start, alone = episode.videos[key]
            return pictures.video(path, start, episode.length, self._meta.fps, shape, alone)
        out = np.empty((episode.length, *shape), np.uint8)
        for i, cell in enumerate(table[key].to_pylist()):
            if not isinstance(cell, dict) or not cell.get("bytes"):
                raise DemoError(f"{where}: {key} of frame {i} is not in the table; embed the pictures, or use videos")
            picture = pictures.decode(f"{where}: {key} of frame {i}", cell["bytes"])
            if picture.shape != shape:
                raise DemoError(f"{where}: {key} of frame {i} is {picture.shape}, but info.json declares {declared}")
            out[i] = picture
        return out
