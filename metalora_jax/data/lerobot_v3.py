"""Writes LeRobot datasets, version 3.0, readable by lerobot: tables in Parquet, pictures inside them or in videos.

`sources.lerobot_meta` lists the files.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.lerobot_meta import INFO, parquet
from metalora_jax.data.sources.names import known_names
from metalora_jax.data.sources.pictures import pyav
from metalora_jax.machine import files
from metalora_jax.types import Demo
from metalora_jax.words import plural

_FILES_A_CHUNK, _MIB = 1000, 2**20
_DATA_MIB, _VIDEO_MIB = 100, 200  # above which the next episode starts new files; lerobot's own limits
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_COUNTERS = ("frame_index", "episode_index", "index", "task_index")
_QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)


class Codec(NamedTuple):
    """How a video is encoded."""

    name: str
    pixels: str
    options: dict[str, str]


_FETCH = {"g": "2", "bf": "0"}  # a key frame every other frame, as in lerobot: frames are fetched at random
PICTURES = {
    "png": None,  # in the tables, exactly
    "h264": Codec("libx264", "yuv420p", {"crf": "18", **_FETCH}),
    "h264-lossless": Codec("libx264rgb", "rgb24", {"qp": "0", **_FETCH}),
}


def write(
    root: Path,
    demos: Iterable[Demo],
    cameras: Sequence[str],
    fps: int,
    robot_type: str | None = None,
    pictures: str = "png",
    keys: Mapping[str, str] | None = None,
    joints: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes a dataset directory atomically; one demonstration is in memory at a time.

    Args:
      root: the directory to create; it must not exist.
      demos: one episode each, of any tasks, all with the same widths and picture sizes.
      cameras: the names of the cameras in `Demo.images`.
      fps: frames per second.
      robot_type: recorded in lerobot's metadata.
      pictures: one of PICTURES; "h264" needs even side lengths, and is slightly lossy.
      keys: camera, "state" or "action" -> its feature's name, if it is not the first of `source.known_names`.
      joints: "state" or "action" -> names of its dimensions.

    Raises:
      DemoError: if there is no demonstration, shapes differ, or `root` exists or cannot be written.
    """
    if pictures not in PICTURES:
        raise DemoError(f"pictures={pictures!r} is unknown; known: {', '.join(PICTURES)}")
    if root.exists():
        raise DemoError(f"{root} exists; choose another directory")
    parquet()  # says what to install, before anything is created
    names = {part: (keys or {}).get(part, known_names(part)[0]) for part in (*cameras, "state", "action")}
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_directory(root) as staging:
            writer = _Writer(staging, names, cameras, fps, PICTURES[pictures], joints or {})
            for demo in demos:
                writer.add(demo)
            writer.finish(robot_type)
    except OSError as error:
        raise DemoError(
            f"{root}: cannot be written ({error.strerror or error}); free some space and try again"
        ) from error


class _Writer:
    """Writes episodes one after another: one row group each, frames appended to each camera's video."""

    def __init__(
        self,
        root: Path,
        names: Mapping[str, str],
        cameras: Sequence[str],
        fps: int,
        codec: Codec | None,
        joints: Mapping[str, Sequence[str]],
    ):
        self._root, self._fps, self._codec = root, fps, codec
        self._state, self._action = names["state"], names["action"]
        self._cameras = [names[camera] for camera in cameras]
        self._joints = {names[part]: list(each) for part, each in joints.items()}
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._features: dict[str, dict[str, Any]] = {}
        self._vectors: dict[str, list[np.ndarray]] = {self._state: [], self._action: []}
        self._moments = {key: _Moments() for key in self._cameras}
        self._number, self._frames = -1, 0  # of files started, of frames written
        self._table: Any = None
        self._videos: dict[str, _Video] = {}

    def add(self, demo: Demo) -> None:
        import pyarrow as pa

        features = self._described(demo)
        if self._features and features != self._features:
            raise DemoError(f"demonstration {len(self._episodes)} has {features}, earlier ones have {self._features}")
        self._features = features
        steps, index = len(demo.actions), len(self._episodes)
        task = self._tasks.setdefault(demo.instruction, len(self._tasks))
        columns: dict[str, Any] = {}
        for key, values in ((self._state, demo.state), (self._action, demo.actions)):
            self._vectors[key].append(values)
            columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.shape[1])
        for key, images in zip(self._cameras, np.moveaxis(np.asarray(demo.images), 1, 0), strict=True):
            self._moments[key].add(images)
            if self._codec is None:
                cells = [{"bytes": _png(image), "path": f"frame-{i:06d}.png"} for i, image in enumerate(images)]
                columns[key] = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        numbers = np.arange(steps)
        columns["timestamp"] = pa.array((numbers / self._fps).astype(np.float32))
        counters = (numbers, np.full(steps, index), self._frames + numbers, np.full(steps, task))
        columns |= dict(zip(_COUNTERS, map(pa.array, counters), strict=True))
        table = pa.table(columns)
        if self._table is None or self._full():
            self._begin_files(table.schema)
        place = dict(zip(("chunk_index", "file_index"), divmod(self._number, _FILES_A_CHUNK), strict=True))
        row = {"episode_index": index, "tasks": [demo.instruction], "length": steps}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + steps}
        row |= {f"data/{name}": value for name, value in place.items()}
        self._table.write_table(table)
        for c, (key, video) in enumerate(self._videos.items()):
            start = video.frames
            video.add(demo.images[:, c])
            times = {"from_timestamp": start / self._fps, "to_timestamp": video.frames / self._fps}
            row |= {f"videos/{key}/{name}": value for name, value in {**place, **times}.items()}
        self._episodes.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._frames += steps

    def finish(self, robot_type: str | None) -> None:
        import pyarrow as pa

        if not self._episodes:
            raise DemoError("no demonstration to write; record at least one")
        self._end_files()
        meta = self._root / "meta"
        episodes = meta / "episodes" / "chunk-000" / "file-000.parquet"
        episodes.parent.mkdir(parents=True)
        parquet().write_table(pa.Table.from_pylist(self._episodes), episodes)
        parquet().write_table(_pandas_table(self._tasks), meta / "tasks.parquet")
        stats = {key: _vector_statistics(np.concatenate(parts)) for key, parts in self._vectors.items()}
        stats |= {key: moments.statistics() for key, moments in self._moments.items()}
        files.write_json(meta / "stats.json", stats, indent=4, allow_nan=False)
        info = {
            "codebase_version": "v3.0",
            "robot_type": robot_type,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": _FILES_A_CHUNK,
            "data_files_size_in_mb": _DATA_MIB,
            "video_files_size_in_mb": _VIDEO_MIB,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": _DATA,
            "video_path": _VIDEO if self._codec else None,
            "features": self._features,
        }
        files.write_json(self._root / INFO, info, indent=4, allow_nan=False)

    def _described(self, demo: Demo) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for key in self._cameras:
            shape, names = list(demo.images.shape[2:]), ["height", "width", "channel"]
            found[key] = {"dtype": "video" if self._codec else "image", "shape": shape, "names": names}
            if self._codec:
                sides = {"video.height": shape[0], "video.width": shape[1], "video.channels": 3}
                kind = {"video.codec": "h264", "video.pix_fmt": self._codec.pixels, "video.is_depth_map": False}
                found[key]["info"] = {**sides, **kind, "video.fps": self._fps, "has_audio": False}
        for key, values in ((self._state, demo.state), (self._action, demo.actions)):
            own = self._joints.get(key, [key.split(".")[-1]])
            if key in self._joints and len(own) != values.shape[1]:
                raise DemoError(f"{key} has {plural(values.shape[1], 'dimension')}, and {len(own)} joints are named")
            found[key] = {"dtype": "float32", "shape": [values.shape[1]], "names": own}
        found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        return found | {key: {"dtype": "int64", "shape": [1], "names": None} for key in _COUNTERS}

    def _full(self) -> bool:
        videos = (video.path.stat().st_size / _MIB > _VIDEO_MIB for video in self._videos.values())
        return self._table_path.stat().st_size / _MIB > _DATA_MIB or any(videos)

    def _begin_files(self, schema: Any) -> None:
        self._end_files()
        self._number += 1
        chunk, file = divmod(self._number, _FILES_A_CHUNK)
        self._table_path = self._root / _DATA.format(chunk_index=chunk, file_index=file)
        self._table_path.parent.mkdir(parents=True, exist_ok=True)
        self._table = parquet().ParquetWriter(self._table_path, schema)
        if self._codec is not None:
            for key in self._cameras:
                path = self._root / _VIDEO.format(video_key=key, chunk_index=chunk, file_index=file)
                self._videos[key] = _Video(path, self._fps, self._codec, self._features[key]["shape"])

    def _end_files(self) -> None:
        if self._table is not None:
            self._table.close()
        for video in self._videos.values():
            video.close()


class _Video:
    """A video to which frames (T, H, W, 3) uint8 are appended."""

    def __init__(self, path: Path, fps: int, codec: Codec, shape: Sequence[int]):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames, self._av = path, 0, pyav()
        self._container = self._av.open(str(path), "w")
        self._stream = self._container.add_stream(codec.name, rate=fps, options=codec.options)
        self._stream.height, self._stream.width = shape[:2]
        self._stream.pix_fmt = codec.pixels
        self._tick = Fraction(1, fps)

    def add(self, images: np.ndarray) -> None:
        for image in images:
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = self.frames, self._tick
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


class _Moments:
    """Statistics of each channel over all pixels, as shares of 255."""

    def __init__(self):
        self._count, self._sum, self._squares = 0, np.zeros(3), np.zeros(3)
        self._low, self._high = np.full(3, 255), np.zeros(3)

    def add(self, images: np.ndarray) -> None:
        pixels = images.reshape(-1, 3)
        self._count += len(images)
        self._sum += pixels.mean(0, np.float64) * len(images)
        self._squares += np.square(pixels, dtype=np.float64).mean(0) * len(images)
        self._low, self._high = np.minimum(self._low, pixels.min(0)), np.maximum(self._high, pixels.max(0))

    def statistics(self) -> dict[str, Any]:
        mean = self._sum / self._count
        std = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))
        values = {"min": self._low, "max": self._high, "mean": mean, "std": std}
        shares = {name: (value / 255).reshape(3, 1, 1).tolist() for name, value in values.items()}
        return shares | {"count": [self._count]}


def _vector_statistics(values: np.ndarray) -> dict[str, Any]:
    quantiles = {f"q{round(100 * q):02d}": np.quantile(values, q, axis=0) for q in _QUANTILES}
    plain = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0, np.float64), "std": values.std(0)}
    return {name: value.tolist() for name, value in (plain | quantiles).items()} | {"count": [len(values)]}


def _pandas_table(tasks: Mapping[str, int]) -> Any:
    """What pandas reads back as a table with the column task_index and the tasks as its index."""
    import pyarrow as pa

    index = "__index_level_0__"
    number = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    described = {
        "index_columns": [index],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **number},
            {"name": None, "field_name": index, **text},
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()), index: pa.array(list(tasks))})
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def _png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()
