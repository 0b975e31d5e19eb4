"""The metadata of a LeRobot dataset, versions 2.x and 3.0, checked against itself.

version 2.x                                       version 3.0
meta/info.json                                    meta/info.json
meta/tasks.jsonl                                  meta/tasks.parquet
meta/episodes.jsonl                               meta/episodes/chunk-000/file-000.parquet, ...
data/chunk-000/episode_000000.parquet, ...        data/chunk-000/file-000.parquet, ... of many episodes
videos/chunk-000/<key>/episode_000000.mp4, ...    videos/<key>/chunk-000/file-000.mp4, ... of many episodes

What concerns one episode is kept with it, and raised when it is read: the others stay readable.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metalora_jax.data import text
from metalora_jax.data.demos import SHORTEST, DemoError, few, reading
from metalora_jax.data.sources.lerobot_info import INFO, REMEDY, Info, number, whole

LAYOUT = "LeRobot's"
_PLACES = ("chunk_index", "file_index")
_SIDES = ("from_timestamp", "to_timestamp")


class Clip(NamedTuple):
    """Where an episode's frames are in a video, according to the metadata."""

    path: Path
    start: float  # [s]
    end: float | None  # [s]; None: the video holds nothing else


class Row(NamedTuple):
    """One episode, according to the metadata."""

    number: int
    task: str | None  # None: only the data tell
    length: int  # frames
    first: int | None  # `index` of its first frame; None where only the data tell
    data: Path
    clips: Mapping[str, Clip | str]  # by feature; or what is wrong with it
    fault: str = ""  # what contradicts itself about this episode


class Dataset(NamedTuple):
    """A dataset's metadata."""

    tasks: dict[int, str]
    rows: tuple[Row, ...]  # in the order of their numbers, which may have gaps
    frames: int  # as declared


def load(info: Info, videos: Sequence[str]) -> Dataset:
    """Reads and checks the metadata; of the videos only those of the features `videos`.

    Raises:
      DemoError: if a file is missing or damaged, or totals or numbers of episodes contradict each other.
    """
    tasks, listed = (_tasks_v2(info.root), _rows_v2(info)) if info.version == 2 else _version_3(info, videos)
    rows = list[Row]()
    for where, fields in listed:
        row = _row(info, where, fields, tasks, videos)
        if rows and row.number <= rows[-1].number:
            what = f"episode_index {row.number} after {rows[-1].number}, expected each once, in ascending order"
            raise DemoError(f"{where}: {what}; {REMEDY}")
        rows.append(row)
    rows = _joined(info, rows)
    chunks = {len({row.data.parent for row in rows})}
    if info.version == 2:
        size = info.chunk_size()
        chunks = {-(-len(rows) // size), (rows[-1].number // size + 1) if rows else 0}
    info.check_totals([row.number for row in rows], len(tasks), chunks)
    return Dataset(tasks, tuple(rows), info.whole("total_frames"))


def _row(info: Info, where: str, fields: Mapping[str, Any], tasks: Mapping[int, str], videos: Sequence[str]) -> Row:
    """One row of the table of episodes. Only its number must be right; other faults are kept."""
    index = whole(f"{where}: episode_index", fields.get("episode_index"))
    file, where = where, f"{where}: episode {index}"
    length, task, first, faults = 0, None, None, list[str]()
    try:
        length = whole(f"{where}: length", fields.get("length"))
        if length < SHORTEST:
            faults.append(f"{where}: length is {length}, {few(length)}; drop the episode or record it again")
        first = _first(where, fields, length)
    except DemoError as error:
        faults.append(str(error))
    try:
        task = _task(where, fields, tasks)
    except DemoError as error:
        task = ""
        faults.append(str(error))
    if info.version == 2:
        place = {"episode_chunk": index // info.chunk_size(), "episode_index": index}
        data = info.place("data_path", place)
        paths = {key: info.place("video_path", {**place, "video_key": key}) for key in videos}
        clips: dict[str, Clip | str] = {key: Clip(path, 0.0, None) for key, path in paths.items()}
        return Row(index, task, length, first, data, clips, "".join(faults[:1]))
    faults += _own_place(where, numbers(Path(file)), fields)
    data = info.root / "data"
    try:
        data = info.place("data_path", _place(where, fields, "data"))
    except DemoError as error:
        faults.append(str(error))
    clips = {key: _clip(info, where, fields, key) for key in videos}
    return Row(index, task, length, first, data, clips, "".join(faults[:1]))


def _first(where: str, fields: Mapping[str, Any], length: int) -> int | None:
    if "dataset_from_index" not in fields or "dataset_to_index" not in fields:
        return None
    first, end = (whole(f"{where}: {name}", fields[name]) for name in ("dataset_from_index", "dataset_to_index"))
    if end - first != length:
        what = f"length is {length}, but dataset_from_index {first} and dataset_to_index {end} are {end - first} apart"
        raise DemoError(f"{where}: {what}; {REMEDY}")
    return first


def _task(where: str, fields: Mapping[str, Any], tasks: Mapping[int, str]) -> str | None:
    if fields.get("tasks") is None:
        return None
    told = fields["tasks"]
    told = [told] if isinstance(told, str) else told
    if not isinstance(told, list):
        raise DemoError(f"{where}: tasks are {text.named(told)}, expected a list with one text; {REMEDY}")
    if len(told) != 1:
        raise DemoError(f"{where} has {len(told)} tasks, expected one; split or drop it")
    if not isinstance(told[0], str):
        raise DemoError(f"{where}: its task is {text.named(told[0])}, expected text; {REMEDY}")
    if told[0] not in tasks.values():
        raise DemoError(f"{where} is of task {told[0]!r}, not in the table of tasks; {REMEDY}")
    return told[0]


def _place(where: str, fields: Mapping[str, Any], part: str) -> dict[str, int]:
    return {name: whole(f"{where}: {part}/{name}", fields.get(f"{part}/{name}")) for name in _PLACES}


def _clip(info: Info, where: str, fields: Mapping[str, Any], key: str) -> Clip | str:
    part = f"videos/{key}"
    try:
        path = info.place("video_path", {**_place(where, fields, part), "video_key": key})
        start, end = (number(f"{where}: {part}/{side}", fields.get(f"{part}/{side}")) for side in _SIDES)
        return Clip(path, start, end)
    except DemoError as error:
        return str(error)


def _joined(info: Info, rows: Sequence[Row]) -> list[Row]:
    """The rows, with what contradicts about where one ends and the next begins, and where version 2 has its frames."""
    joined, before, gone = list[Row](), 0, False
    for i, row in enumerate(rows):
        gap = row.number != (rows[i - 1].number + 1 if i else 0)
        gone |= gap
        first = row.first if info.version == 3 else None if gone else before
        wrong = first is not None and (first < before if gap else first != before)
        if wrong and not row.fault and not (i and joined[-1].fault):
            what = f"dataset_from_index is {first}, but the episodes before it end at {before}"
            row = row._replace(fault=f"{info.root / 'meta/episodes'}: episode {row.number}: {what}; {REMEDY}")
        joined.append(row._replace(first=first))
        before = (before if first is None else first) + row.length
    return joined


def _tasks_v2(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.jsonl"
    return _table(path, ((row.get("task_index"), row.get("task")) for row in text.read_lines(path, REMEDY)))


def _rows_v2(info: Info) -> Iterator[tuple[str, dict[str, Any]]]:
    path = info.root / "meta" / "episodes.jsonl"
    return ((f"{path}", row) for row in text.read_lines(path, REMEDY))


def _table(path: Path, rows: Iterator[tuple[Any, Any]]) -> dict[int, str]:
    tasks: dict[int, str] = {}
    for index, task in rows:
        index = whole(f"{path}: task_index", index)
        if not isinstance(task, str):
            raise DemoError(f"{path}: task {index} is {text.named(task)}, expected text; {REMEDY}")
        if index in tasks:
            raise DemoError(f"{path}: task_index {index} appears twice; {REMEDY}")
        tasks[index] = task
    return tasks


def _version_3(info: Info, videos: Sequence[str]) -> tuple[dict[int, str], list[tuple[str, dict[str, Any]]]]:
    path = info.root / "meta" / "tasks.parquet"
    with reading(path, LAYOUT, REMEDY):
        table = parquet().read_table(path)
        kept = [name for name in ("task", "__index_level_0__") if name in table.column_names]  # pandas' index, unnamed
        if not kept or "task_index" not in table.column_names:
            shown = ", ".join(table.column_names)
            raise DemoError(f"{path}: has the columns {shown}, expected task_index and task; {REMEDY}")
        tasks = _table(path, zip(table["task_index"].to_pylist(), table[kept[0]].to_pylist(), strict=True))
    columns = ["episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"]
    columns += [f"{part}/{name}" for part in ("data", "meta/episodes") for name in _PLACES]
    columns += [f"videos/{key}/{name}" for key in videos for name in (*_PLACES, *_SIDES)]
    rows: list[tuple[str, dict[str, Any]]] = []
    for path in sorted((info.root / "meta" / "episodes").glob("*/*.parquet"), key=numbers):
        with reading(path, LAYOUT, REMEDY):
            there = set(parquet().read_schema(path).names)
            found = parquet().read_table(path, columns=[name for name in columns if name in there]).to_pylist()
        rows += [(f"{path}", row) for row in found]
    return tasks, rows


def _own_place(where: str, file: tuple[int, ...], row: Mapping[str, Any]) -> list[str]:
    """What a row says about the file that it is in, if that is wrong."""
    told = [(name, row.get(f"meta/episodes/{name}"), number) for name, number in zip(_PLACES, file, strict=True)]
    return [
        f"{where}: meta/episodes/{name} is {said}, but its row is in number {number}; {REMEDY}"
        for name, said, number in told
        if said is not None and said != number
    ]


@functools.lru_cache
def numbers(path: Path) -> tuple[int, ...]:
    """The numbers of the chunk and of the file in a path of version 3."""
    found = [int(digits) for digits in re.findall(r"\d+", "/".join(path.parts[-2:]))]
    return (0, 0, *found)[-2:]


def parquet() -> Any:
    """pyarrow.parquet, imported when a LeRobot dataset is read."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("LeRobot datasets need pyarrow and av; pip install 'metalora_jax[lerobot]'") from error
    return pyarrow.parquet


__all__ = ["INFO", "LAYOUT", "REMEDY", "Clip", "Dataset", "Row", "load", "numbers", "parquet"]
