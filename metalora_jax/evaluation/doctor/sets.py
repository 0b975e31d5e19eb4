"""What the doctor asks of the readers: what a data set says of itself, and every episode under its own number.

This is the one place that knows how LeRobot's and LIBERO's files are read.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from metalora_jax.data import sources
from metalora_jax.data.demos import DemoError, reading
from metalora_jax.data.sources.lerobot_info import INFO, REMEDY, Feature, Info
from metalora_jax.data.sources.lerobot_meta import LAYOUT, parquet
from metalora_jax.data.sources.names import KNOWN, feature_names
from metalora_jax.types import Demo

_PREFIX, _SUFFIX = "observation.images.", "_rgb"
_USUAL = ("agentview", "eye_in_hand")  # in RLDS, as modified_libero_rlds has them


class Layout(NamedTuple):
    """What a data set says of itself."""

    name: str  # of the file or directory
    cameras: Mapping[str, str] = {}  # camera -> its feature, in order; all of one size
    left_out: tuple[str, ...] = ()  # cameras of another size
    state: tuple[str, ...] = ()  # names of the state's dimensions, where they are given
    action: tuple[str, ...] = ()
    fps: float | None = None
    robot: str = ""
    times: Mapping[int, np.ndarray] = {}  # episode -> (T,) [s]


def layout(path: Path, cameras: Sequence[str], keys: Mapping[str, str]) -> Layout:
    """Of a file or data set.

    Args:
      path: one that `recordings.files` found.
      cameras: which to look at; none means all that have the size of most.
      keys: see `sources.open`.

    Raises:
      DemoError: if its metadata cannot be read.
    """
    if path.suffix in (".hdf5", ".h5"):
        return Layout(path.name, {c: keys.get(c, c + _SUFFIX) for c in cameras} or _in_hdf5(path))
    if not (path / INFO).exists():
        return Layout(path.name, {camera: keys.get(camera, camera) for camera in cameras or _USUAL})
    info = Info(path)
    seen = info.pictures()
    shapes = {key: info.feature(key).shape for key in seen}
    if cameras:
        names = feature_names(info.path, info.features, cameras, keys, seen).cameras
        found, left = dict(zip(cameras, names, strict=True)), []
    else:
        sizes = Counter(shapes.values())
        size = max(sizes, key=lambda shape: sizes[shape]) if sizes else ()
        found = {_camera(key, keys): key for key in seen if shapes[key] == size}
        left = [_camera(key, keys) for key in seen if shapes[key] != size]
    vectors = {part: value for part, value in keys.items() if part in ("state", "action")}
    named = feature_names(info.path, info.features, (), vectors, seen)
    return Layout(
        path.name,
        found,
        tuple(left),
        _names(info.features[named.state], info.feature(named.state)),
        _names(info.features[named.action], info.feature(named.action)),
        info.fps,
        str(info.fields.get("robot_type") or ""),
        _times(path),
    )


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


def _in_hdf5(path: Path) -> dict[str, str]:
    with reading(path, "LIBERO's", "record it again"), h5py.File(path, "r") as file:
        keys = [key for key in file["data/demo_0/obs"] if key.endswith(_SUFFIX)]
    return {key.removesuffix(_SUFFIX): key for key in keys}


def _camera(key: str, keys: Mapping[str, str]) -> str:
    """Its name: as --keys says, as this package calls it, or the last part of the feature's."""
    given = [camera for camera, feature in keys.items() if feature == key]
    known = [camera for camera, features in KNOWN.items() if key in features]
    return (given or known or [key.removeprefix(_PREFIX).rpartition(".")[2]])[0]


def _names(declared: Mapping[str, Any], feature: Feature) -> tuple[str, ...]:
    """Names of a vector's dimensions: a list, a list of lists, or one under some key; none if they do not fit."""
    names: Any = declared.get("names")
    while isinstance(names, dict | list) and len(names) == 1:
        names = next(iter(names.values())) if isinstance(names, dict) else names[0]
    if isinstance(names, dict):
        names = list(names)
    width = feature.shape[-1]
    return tuple(map(str, names)) if isinstance(names, list) and len(names) == width else ()


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
