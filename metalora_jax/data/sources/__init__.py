"""Demonstrations in the common formats: LIBERO's HDF5, RLDS (through TFDS), LeRobot v2.1 and v3.

`open` recognises the format from the files. The same demonstration gives the same `Demo` in any of them: pictures as
policies see them, state and actions in float32, in the robot's own units.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from metalora_jax.data import libero_reader
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.data.sources.hdf5 import Hdf5
from metalora_jax.data.sources.hub import local
from metalora_jax.data.sources.lerobot import LeRobot
from metalora_jax.data.sources.lerobot_info import INFO, Info
from metalora_jax.data.sources.names import WORDS, check_names, part_of, plain_camera, read_keys
from metalora_jax.data.sources.rlds import Rlds
from metalora_jax.data.sources.selection import Episode, Fault, Selection, selection
from metalora_jax.data.sources.source import Source
from metalora_jax.data.text import named
from metalora_jax.types import Demo

__all__ = [
    "Embodiment",
    "Episode",
    "Fault",
    "Source",
    "cameras_of",
    "choose_cameras",
    "counts",
    "local",
    "open",
    "read",
    "read_keys",
]

_KINDS: dict[str, Callable[[Path, tuple[str, ...], dict[str, str], Selection], Source]] = {
    "*.hdf5": Hdf5,
    INFO: LeRobot,
    "dataset_info.json": Rlds,
    "*/dataset_info.json": Rlds,
}


def open(
    path: str | Path,
    cameras: Sequence[str],
    keys: Mapping[str, str] | None = None,
    *,
    episodes: Sequence[int | str] | None = None,
    drop: Sequence[int | str] = (),
    skip_bad: bool = False,
) -> Source:
    """The demonstrations at `path`.

    Args:
      path: an HDF5 file, a directory of `<task>_demo.hdf5`, a LeRobot dataset, a TFDS dataset or version of one; or the
        name of a LeRobot dataset on the hub, see `local`.
      cameras: which go into `Demo.images`, in this order; with none, pictures are not read.
      keys: camera, "state" or "action" -> its name in the dataset, if `names.KNOWN` does not list it. In an annotated
        LeRobot dataset "instruction" -> the style of the remarks that are said in its place, frame by frame
        ("subtask"), and "paraphrases" -> that of its other wordings ("task_aug").
      episodes: the only ones to read, by the dataset's own numbers; "task:3" where every task counts anew. None: all.
      drop: those not to read, in the same way.
      skip_bad: leave out demonstrations that cannot be used, with a warning that names them; else they are errors.

    Raises:
      DemoError: if nothing is there, it is in none of these formats, or metadata and files disagree.
    """
    if not isinstance(path, str | Path):
        raise DemoError(f"the demonstrations are at {named(path)}, expected a path")
    path, (cameras, keys), selected = local(path), check_names(cameras, keys), selection(episodes, drop, skip_bad)
    if not path.exists():
        near = difflib.get_close_matches(path.name, sorted(other.name for other in path.parent.glob("*")))
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise DemoError(f"{path}: no such demonstration file or directory{hint}; check the path")
    if (asked := [part for part in WORDS if part in keys]) and not (path / "meta" / "info.json").is_file():
        raise DemoError(f"{path}: keys name {asked[0]}, which only annotated LeRobot datasets give; leave it out")
    if path.is_file():
        return Hdf5(path, cameras, keys, selected)
    for pattern, kind in _KINDS.items():
        if any(path.glob(pattern)):
            return kind(path, cameras, keys, selected)
    inner = sorted({str(path / found.relative_to(path).parts[0]) for p in _KINDS for found in path.glob(f"*/{p}")})
    raise DemoError(
        f"{path}: not a known demonstration format; looked for *.hdf5 (LIBERO), meta/info.json (LeRobot) and "
        "dataset_info.json (TFDS)" + (f"; did you mean {' or '.join(inner[:4])}" if inner else "")
    )


def cameras_of(path: str | Path, keys: Mapping[str, str] | None = None) -> dict[str, str]:
    """Camera, as `open` takes it -> its feature, of all cameras at `path`, in its order; {} where it does not say.

    Raises:
      DemoError: the metadata cannot be read.
    """
    path, given = local(path), {feature: camera for camera, feature in (keys or {}).items()}
    file = path if path.is_file() else next(iter(sorted(path.glob("*.hdf5"))), None)
    if file is not None:
        features = {f"{camera}_rgb": camera for camera in libero_reader.cameras(file)}
    elif (path / INFO).exists():
        features = {key: part_of(plain_camera(key)) for key in Info(path).pictures()}
    else:
        features = {}
    return {given.get(feature, camera): feature for feature, camera in features.items()}


def choose_cameras(
    path: str | Path, known: Sequence[str] | None, keys: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The cameras to read where none are named: those that the policy was trained with, else the only one there is.

    Args:
      path: of the demonstrations.
      known: `Embodiment.cameras` of the policy.
      keys: see `open`.

    Raises:
      DemoError: the policy's are not known, and there are several, or none.
    """
    if known:
        return tuple(part_of(camera) for camera in known)
    if not (path := local(path)).exists():
        open(path, ())  # says what is wrong with the path
    there = tuple(cameras_of(path, keys))
    if len(there) == 1:
        return there
    raise DemoError(
        f"{path}: the base does not record its cameras; name those that it was trained with, in its order, with "
        f"cameras; there are {', '.join(there) or 'none that metadata list'}"
    )


def read(source: Source, tasks: Sequence[str], limit: int | Mapping[str, int] | None = None) -> dict[str, list[Demo]]:
    """The first `limit` demonstrations of each task (or as many as `limit` has for it; None: all), by the names given.

    Raises:
      DemoError: see `Source.demos`; or if two names mean one task, or demonstrations differ in width or picture size.
    """
    limits = counts(source, tasks, limit)
    found = {task: list(source.demos(task, limits[task])) for task in tasks}
    shapes: dict[tuple[int, ...], str] = {}
    for task, demos in found.items():
        for i, demo in enumerate(demos):
            shapes.setdefault((*demo.images.shape[1:], demo.state.shape[1], demo.actions.shape[1]), f"{task} {i}")
    if len(shapes) > 1:
        listed = "; ".join(f"{where}: {shape}" for shape, where in shapes.items())
        raise DemoError(f"{source.path}: (cameras, height, width, 3, state, action) differ: {listed}")
    return found


def counts(source: Source, tasks: Sequence[str], limit: int | Mapping[str, int] | None = None) -> dict[str, int | None]:
    """How many demonstrations `read` would read of each task (None: all), found without reading one.

    Raises:
      DemoError: a task is not there, two names mean one task, or there are fewer demonstrations than `limit`.
    """
    if isinstance(tasks, str) or not isinstance(tasks, Iterable):
        raise DemoError(f"tasks are {named(tasks)}, expected a list of names or instructions")
    names: dict[str, str] = {}
    for task in tasks:
        if (other := names.setdefault(source.find(task), task)) != task:
            raise DemoError(f"{source.path}: {task!r} and {other!r} are the same task there; leave one out")
    limits = {task: limit.get(task) if isinstance(limit, Mapping) else limit for task in tasks}
    there = source.tasks()
    for name, task in names.items():
        source.enough(task, there[name], limits[task])
    return limits
