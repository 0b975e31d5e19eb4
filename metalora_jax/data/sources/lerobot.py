"""LeRobot datasets, versions 2.x and 3.0: tables in Parquet, pictures inside them or in videos.

An episode is read only if everything that is said about it agrees: its row in the metadata, its rows in the data, and
its frames in the videos. What is wrong with one does not concern the others, unless frames cannot be told apart.
"""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from metalora_jax.data import text
from metalora_jax.data.demos import DemoError, checked, same_shape
from metalora_jax.data.film import Film, decoders
from metalora_jax.data.sources import lerobot_language, pictures
from metalora_jax.data.sources.embodiment import Embodiment, recorded_cameras
from metalora_jax.data.sources.lerobot_info import ANNOTATIONS, REMEDY, Info
from metalora_jax.data.sources.lerobot_meta import Row, load
from metalora_jax.data.sources.lerobot_tables import Tables, check_counters, vectors
from metalora_jax.data.sources.lerobot_videos import Videos
from metalora_jax.data.sources.names import WORDS, feature_names
from metalora_jax.data.sources.selection import EVERYTHING, Episode, Selection, check, listed
from metalora_jax.data.sources.source import Source
from metalora_jax.types import Demo, Pictures

_NUMBERS = ("frame_index", "task_index", "timestamp")


class LeRobot(Source):
    """See `sources.open`. The pictures of public LIBERO datasets are already as policies see them."""

    def __init__(self, path: Path, cameras: Sequence[str], keys: Mapping[str, str], selection: Selection = EVERYTHING):
        """Reads the metadata; of the features only those that are requested."""
        self.path, self.selection, self._keys = path, selection, keys
        self._cameras = tuple(cameras)
        self._info = info = Info(path)
        self._features = feature_names(info.path, info.features, cameras, keys, info.pictures())
        self._declared = {key: info.picture(key) for key in self._features.cameras}
        self._declared |= {key: info.vector(key) for key in self._features[1:]}
        videos = [key for key in self._features.cameras if self._declared[key].dtype == "video"]
        self._meta = load(info, videos)
        self._rows = self._with_tasks(self._held_against_data())
        check(path, selection, [(None, row.number) for row in self._rows])
        self._tables = Tables(self._rows)
        self._videos = {key: Videos(key, self._rows, info.fps, self._counted) for key in videos}
        self._spoken = lerobot_language.COLUMNS if any(part in keys for part in WORDS) else ()
        for why, left_out in info.left_out().items():
            if left_out and not (why == ANNOTATIONS and self._spoken):
                logging.info("%s: left out %s: %s", path, why, ", ".join(left_out))
        for oddity in text.oddities(row.task for row in self._rows if row.task):
            logging.warning("%s: %s", path, oddity)

    @property
    def embodiment(self) -> Embodiment:
        """See `Source`; from info.json."""
        cameras, state, action = self._features
        return Embodiment(
            recorded_cameras(cameras, None) or None,
            self._info.names(state),
            self._info.names(action),
            fps=self._info.fps,
            robot_type=self._info.robot_type,
        )

    def listing(self, task: str | None = None) -> list[Episode]:
        """See `Source`."""
        return [
            Episode(row.task or "", row.data, row.number)
            for row in self._rows
            if task is None or row.task in (task, "")
            if self.selection.keeps(row.task or "", row.number)
        ]

    def stream(self, episodes: Sequence[Episode]) -> Iterator[Demo | DemoError]:
        """See `Source`."""
        rows = {row.number: row for row in self._rows}
        ahead: deque[Callable[[], Demo | DemoError]] = deque()
        for episode in episodes:
            assert episode.number is not None
            ahead.append(self._begun(rows[episode.number]))
            if len(ahead) > (os.cpu_count() or 1):  # so that every core decodes
                yield ahead.popleft()()
        while ahead:
            yield ahead.popleft()()

    def _begun(self, row: Row) -> Callable[[], Demo | DemoError]:
        """Begins to read an episode; what it returns waits for the rest, and gives it or what is wrong with it."""
        try:
            finish = self._read(row)
        except DemoError as error:
            wrong = error
            return lambda: wrong

        def rest() -> Demo | DemoError:
            try:
                return finish()
            except DemoError as error:
                return error

        return rest

    def _held_against_data(self) -> tuple[Row, ...]:
        """The rows of the metadata; where their lengths do not add up, those that are wrong say so."""
        rows, said = self._meta.rows, sum(row.length for row in self._meta.rows)
        if said == self._meta.frames or any(row.fault for row in rows):
            return rows
        counts = self._counted(rows)
        wrong = [row.number for row, count in zip(rows, counts, strict=True) if count != row.length]
        if sum(counts) != self._meta.frames or not wrong:
            what = f"total_frames is {self._meta.frames}, but the metadata list {said}"
            more = f"; wrong is the length of {listed(wrong)}" if wrong else ""
            raise DemoError(f"{self._info.path}: {what}{more}; {REMEDY}")
        fault = "{}: episode {}: length is {}, but the data hold {} rows of it; {}"
        return tuple(
            row._replace(fault=fault.format(row.data, row.number, row.length, count, REMEDY))
            if count != row.length
            else row
            for row, count in zip(rows, counts, strict=True)
        )

    @staticmethod
    def _counted(rows: Sequence[Row]) -> list[int]:
        """How many rows the data hold of each; 0 where they cannot be read."""
        found: dict[Path, dict[int, int]] = {}
        for row in rows:
            if row.data not in found:
                try:
                    found[row.data] = Tables.counts(row.data)
                except DemoError:
                    found[row.data] = {}
        return [found[row.data].get(row.number, 0) for row in rows]

    def _with_tasks(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The rows; where the metadata name no task, it is that of the data."""
        found: dict[Path, dict[int, set[int]] | DemoError] = {}
        out = []
        for row in rows:
            if row.task is None:
                if row.data not in found:
                    try:
                        found[row.data] = Tables.tasks(row.data)
                    except DemoError as error:
                        found[row.data] = error
                row = self._with_task(row, found[row.data])
            out.append(row)
        return tuple(out)

    def _with_task(self, row: Row, there: dict[int, set[int]] | DemoError) -> Row:
        if isinstance(there, DemoError):
            return row._replace(task="", fault=row.fault or str(there))
        named = {self._meta.tasks.get(index) for index in there.get(row.number, ())}
        task = named.pop() if len(named) == 1 else None
        what = f"{row.data}: episode {row.number}: its rows name {len(named) or 'no'} tasks (task_index)"
        fault = "" if task is not None else f"{what}, expected one of the table of tasks; {REMEDY}"
        return row._replace(task=task or "", fault=row.fault or fault)

    def _read(self, row: Row) -> Callable[[], Demo]:
        """Checks the tables; the pictures are checked by other threads, which what it returns waits for."""
        if row.fault:
            raise DemoError(row.fault)
        where = f"{row.data}: episode {row.number}"
        _, state, action = self._features
        table = self._tables.read(row, [state, action, *_NUMBERS], ["index", *self._spoken])
        if self._info.version == 2 and self._begins_elsewhere(row, table):
            before = self._rows[: self._rows.index(row)]  # a wrong length there is no fault of this one's
            row = row._replace(first=sum(self._counted(before)))
        check_counters(where, row, row.task or "", self._meta.tasks, self._info.fps, table)
        parts = [vectors(where, key, self._declared[key], table) for key in (state, action)]
        opening = [decoders().submit(self._camera(where, row, key)) for key in self._features.cameras]

        def finish() -> Demo:
            film = self._film(where, row, [camera.result() for camera in opening])
            demo = checked(where, row.task or "", film, *parts)
            return lerobot_language.add(where, demo, self._keys, table, self._info.fps)

        return finish

    def _film(self, where: str, row: Row, seen: Sequence[pictures.Shots | pictures.Cells]) -> Pictures:
        sides = [self._declared[key].sides for key in self._features.cameras]
        shape = same_shape(where, dict(zip(self._cameras, sides, strict=True)))
        if not seen:
            return np.zeros((row.length, 0, 0, 0, 3), np.uint8)
        return Film(" ".join(camera.key for camera in seen), seen, (row.length, len(seen), *shape))

    @staticmethod
    def _begins_elsewhere(row: Row, table: Any) -> bool:
        there = table["index"][:1].to_pylist() if "index" in table.column_names else []
        return row.first not in (None, *there)

    def _camera(self, where: str, row: Row, key: str) -> Callable[[], pictures.Shots | pictures.Cells]:
        """What opens the pictures of one camera, and checks them."""
        shape = self._declared[key].sides
        if key in self._videos:
            return self._videos[key].find(row, shape)

        def cells() -> list[Any]:
            return self._tables.read(row, [key])[key].to_pylist()

        return functools.partial(pictures.Cells, f"{where}: {key}", cells, shape)
