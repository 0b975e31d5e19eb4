"""What the doctor asks of the readers: what a data set says of itself, and every episode under its own number.

This is the one place that knows how LeRobot's and LIBERO's files are read.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metalora_jax.data import sources
from metalora_jax.data.demos import DemoError, reading
from metalora_jax.data.sources.embodiment import Embodiment, recorded_cameras
from metalora_jax.data.sources.lerobot_info import INFO, REMEDY, Info
from metalora_jax.data.sources.lerobot_meta import LAYOUT, parquet
from metalora_jax.data.sources.names import feature_names
from metalora_jax.types import Demo

_SUFFIX = "_rgb"
_USUAL = ("agentview", "eye_in_hand")  # in RLDS, as modified_libero_rlds has them


class Layout(NamedTuple):
    """What a data set says of itself."""

    name: str  # that `recordings.called` gives the file or directory
    cameras: Mapping[str, str] = {}  # camera -> its feature, in order; all of one size
    left_out: tuple[str, ...] = ()  # cameras of another size
    state: tuple[str, ...] = ()  # names of the state's dimensions, where they are given
    action: tuple[str, ...] = ()
    fps: float | None = None
    robot: str = ""
    times: Mapping[int, np.ndarray] = {}  # episode -> (T,) [s]


def layout(path: Path, cameras: Sequence[str], keys: Mapping[str, str], name: str = "") -> Layout:
    """Of a file or data set.

    Args:
      path: one that `recordings.files` found.
      cameras: which to look at; none means all that have the size of most.
      keys: see `sources.open`.
      name: what the data set is called; by default as its file or directory.

    Raises:
      DemoError: if its metadata cannot be read.
    """
    name = name or path.name
    if path.suffix in (".hdf5", ".h5"):
        return Layout(name, {c: keys.get(c, c + _SUFFIX) for c in cameras} or sources.cameras_of(path))
    if not (path / INFO).exists():
        return Layout(name, {camera: keys.get(camera, camera) for camera in cameras or _USUAL})
    info = Info(path)
    seen = info.pictures()
    shapes = {key: info.feature(key).shape for key in seen}
    if cameras:
        names = feature_names(info.path, info.features, cameras, keys, seen).cameras
        found, left = dict(zip(cameras, names, strict=True)), []
    else:
        sizes = Counter(shapes.values())
        size = max(sizes, key=lambda shape: sizes[shape]) if sizes else ()
        there = sources.cameras_of(path, keys)
        found = {camera: key for camera, key in there.items() if shapes[key] == size}
        left = [camera for camera, key in there.items() if shapes[key] != size]
    vectors = {part: value for part, value in keys.items() if part in ("state", "action")}
    named = feature_names(info.path, info.features, (), vectors, seen)
    return Layout(
        name,
        found,
        tuple(left),
        info.names(named.state) or (),
        info.names(named.action) or (),
        info.fps,
        info.robot_type or "",
        _times(path),
    )


def embodiment(found: Layout, cameras: Sequence[str]) -> Embodiment:
    """What a layout says of the robot, with some of its cameras."""
    seen = recorded_cameras(cameras, found.cameras)
    return Embodiment(seen or None, found.state or None, found.action or None, fps=found.fps)


def reader_keys(found: Layout, keys: Mapping[str, str]) -> dict[str, str]:
    """The keys with which `sources.open` finds the cameras of a layout."""
    return {**dict(found.cameras), **{part: keys[part] for part in ("state", "action") if part in keys}}


def each(path: Path, cameras: Sequence[str], keys: Mapping[str, str]) -> Iterator[tuple[str, int, Demo | DemoError]]:
    """Every episode with its task and the data set's own number, or the reader's error; reading goes on after one.

    Raises:
      DemoError: if the data set cannot be read at all.
    """
    for episode, demo in sources.open(path, cameras, keys).survey():
        if episode.number is None:  # what is wrong concerns the whole file
            assert isinstance(demo, DemoError)
            raise demo
        yield episode.task, episode.number, demo


def widths_and_texts(path: Path, keys: Mapping[str, str]) -> tuple[tuple[int, int], tuple[str, ...], str]:
    """Widths of state and actions, names of the tasks, and one instruction; no picture is read.

    Raises:
      DemoError, ImportError, StopIteration: if nothing can be read.
    """
    source = sources.open(path, (), {part: keys[part] for part in ("state", "action") if part in keys})
    names = source.names()
    demo = next(iter(source.demos(names[0], 1)))
    return (demo.state.shape[1], demo.actions.shape[1]), names, demo.instruction


def _times(root: Path) -> dict[int, np.ndarray]:
    """Of every episode whose table can be read; the others are the reader's to name."""
    found: dict[int, np.ndarray] = {}
    for path in sorted((root / "data").rglob("*.parquet")):
        try:
            with reading(path, LAYOUT, REMEDY):
                table = parquet().read_table(path, columns=["episode_index", "timestamp"])
        except DemoError:
            continue
        whose, times = (table[name].to_numpy().astype(np.float64) for name in ("episode_index", "timestamp"))
        found |= {int(number): times[whose == number] for number in np.unique(whose)}
    return found
