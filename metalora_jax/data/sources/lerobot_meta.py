"""The metadata of a LeRobot dataset, versions 2.x and 3.0, checked against itself.

version 2.x                                       version 3.0
meta/info.json                                    meta/info.json
meta/tasks.jsonl                                  meta/tasks.parquet
meta/episodes.jsonl                               meta/episodes/chunk-000/file-000.parquet, ...
data/chunk-000/episode_000000.parquet, ...        data/chunk-000/file-000.parquet, ... of many episodes
videos/chunk-000/<key>/episode_000000.mp4, ...    videos/<key>/chunk-000/file-000.mp4, ... of many episodes
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metalora_jax.data.demos import DemoError, reading

LAYOUT, REMEDY = "LeRobot's", "download or write the dataset again"
INFO = "meta/info.json"


class Part(NamedTuple):
    """Where an episode's frames are in a video."""

    path: Path
    start: float  # [s]
    alone: bool  # the video holds nothing else


class Episode(NamedTuple):
    """One episode, according to the metadata."""

    number: int
    task: str
    length: int  # frames
    data: Path
    videos: dict[str, Part]  # by feature


class Dataset(NamedTuple):
    """A dataset's metadata."""

    fps: float
    features: dict[str, dict[str, Any]]  # key -> dtype, shape, names
    tasks: dict[int, str]
    episodes: tuple[Episode, ...]  # episode i at position i


def load(root: Path) -> Dataset:
    """Reads and checks the metadata below `root`.

    Raises:
      DemoError: if a file is missing, damaged or of another version, an episode is missing or has several tasks, or the
        totals in info.json do not match the files.
    """
    path = root / INFO
    with reading(path, LAYOUT, REMEDY):
        info = json.loads(path.read_text())
        version = str(info["codebase_version"])
        if not version.startswith(("v2.", "v3.")):
            raise DemoError(f"{path}: codebase_version {version} is unknown; known: v2.0, v2.1, v3.0")
        fps, shown = float(info["fps"]), info["features"]
        features = {key: {**shown[key], "shape": tuple(shown[key]["shape"])} for key in shown}
        videos = [key for key, feature in features.items() if feature["dtype"] == "video"]
        if fps <= 0:
            raise DemoError(f"{path}: fps is {fps}, expected a positive number; {REMEDY}")
        totals = tuple(int(info[f"total_{name}"]) for name in ("episodes", "frames", "tasks"))
    tasks, rows = (_tasks_v2(root), _rows_v2(root)) if version < "v3" else (_tasks_v3(root), _rows_v3(root, videos))
    episodes = tuple(_episode(root, info, row, tasks, videos, fps) for row in rows)
    _check(path, totals, episodes, tasks)
    return Dataset(fps, features, tasks, episodes)


def _check(path: Path, totals: tuple[int, ...], episodes: tuple[Episode, ...], tasks: Mapping[int, str]) -> None:
    found = (len(episodes), sum(episode.length for episode in episodes), len(tasks))
    for name, declared, there in zip(("episodes", "frames", "tasks"), totals, found, strict=True):
        if declared != there:
            raise DemoError(f"{path}: total_{name} is {declared}, but the metadata list {there}; {REMEDY}")
    for i, episode in enumerate(episodes):
        if episode.number != i:
            raise DemoError(f"{path}: episode {i} is missing from the metadata; {REMEDY}")


def _episode(
    root: Path, info: Mapping[str, Any], row: Mapping[str, Any], tasks: Mapping[int, str], videos: list[str], fps: float
) -> Episode:
    """One row of the episodes' table. The path patterns come from the dataset, and must not lead out of it."""
    with reading(root / INFO, LAYOUT, REMEDY):
        index, length, told = int(row["episode_index"]), int(row["length"]), list(row["tasks"])
        if len(told) != 1:
            raise DemoError(f"{root}: episode {index} has {len(told)} tasks, expected one; split or drop it")
        if told[0] not in tasks.values():
            raise DemoError(f"{root}: episode {index} is of task {told[0]!r}, not in the table of tasks; {REMEDY}")
        if "data/chunk_index" not in row:
            place = {"episode_chunk": index // int(info["chunks_size"]), "episode_index": index}
            data = _inside(root, info["data_path"], place)
            paths = {key: _inside(root, info["video_path"], {**place, "video_key": key}) for key in videos}
            parts = {key: Part(path, 0.0, alone=True) for key, path in paths.items()}
            return Episode(index, told[0], length, data, parts)
        data = _inside(root, info["data_path"], _place(row, "data"))
        parts = {}
        for key in videos:
            start, end = (float(row[f"videos/{key}/{side}_timestamp"]) for side in ("from", "to"))
            if abs((end - start) * fps - length) > 0.5:
                raise DemoError(f"{root}: episode {index} has {length} frames but {end - start:g} s of {key}; {REMEDY}")
            path = _inside(root, info["video_path"], {**_place(row, f"videos/{key}"), "video_key": key})
            parts[key] = Part(path, start, alone=False)
        return Episode(index, told[0], length, data, parts)


def _place(row: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {f"{name}_index": int(row[f"{part}/{name}_index"]) for name in ("chunk", "file")}


def _inside(root: Path, pattern: str, fields: Mapping[str, Any]) -> Path:
    path = Path(os.path.normpath(root / pattern.format(**fields)))  # the hub's cache consists of links: not followed
    if not path.is_relative_to(os.path.normpath(root)):
        raise DemoError(f"{root / INFO}: {pattern!r} leads out of the dataset; {REMEDY}")
    return path


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with reading(path, LAYOUT, REMEDY):
        for line in path.read_text().splitlines():
            if line.strip():
                yield json.loads(line)


def _tasks_v2(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.jsonl"
    with reading(path, LAYOUT, REMEDY):
        return {int(row["task_index"]): str(row["task"]) for row in _lines(path)}


def _rows_v2(root: Path) -> list[dict[str, Any]]:
    return list(_lines(root / "meta" / "episodes.jsonl"))


def _tasks_v3(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.parquet"
    with reading(path, LAYOUT, REMEDY):
        table = parquet().read_table(path)
        text = "task" if "task" in table.column_names else "__index_level_0__"  # a pandas table's index without a name
        return dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))


def _rows_v3(root: Path, videos: list[str]) -> list[dict[str, Any]]:
    columns = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    for key in videos:
        parts = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        columns += [f"videos/{key}/{part}" for part in parts]
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        with reading(path, LAYOUT, REMEDY):
            rows += parquet().read_table(path, columns=columns).to_pylist()
    return rows


def parquet() -> Any:
    """pyarrow.parquet, imported when a LeRobot dataset is read."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("LeRobot datasets need pyarrow and av; pip install 'metalora_jax[lerobot]'") from error
    return pyarrow.parquet
