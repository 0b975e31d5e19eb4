"""Demonstrations as the doctor sees them: each is read once, and damage becomes a finding."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from metalora_jax.data import libero_hdf5, sources
from metalora_jax.data.demos import DemoError, reading
from metalora_jax.envs.conditions import Condition
from metalora_jax.evaluation.doctor import digest, sets
from metalora_jax.evaluation.doctor.digest import Digest
from metalora_jax.evaluation.doctor.findings import Finding
from metalora_jax.types import Demo

NameTask = Callable[[str, str], str]  # (name, instruction) -> the task of the world, or ""

AGAIN = "record it again, or get it from its source again"
MOMENTS = 16  # pictures of a demonstration that are compared with each other


class Start(NamedTuple):
    """What a file says about the start of a demonstration."""

    condition: Condition = Condition()
    noise: float = 0.0  # of the pushes that the expert was exposed to; its actions are then not what was executed
    seed: int | None = None  # the simulator's own name for the start
    state: np.ndarray | None = None  # (n,) MuJoCo's flattened state
    model: str = ""  # the scene in MuJoCo's XML, for what the state lacks
    simulator: Mapping[str, Any] = {}  # what the world's simulator was opened with, besides cameras

    @property
    def known(self) -> bool:
        """Whether a simulator can be set to this start."""
        return self.seed is not None or self.state is not None


class Recording(NamedTuple):
    """A demonstration without most of its pictures."""

    file: str
    name: str  # within the file
    number: int  # the data set's own: episode_index, or the i of demo_i
    task: str  # of the world, or "" where it is not known
    written: str  # the instruction, as written in the file
    told: str  # the instruction, as read: LIBERO's own files have older words for some tasks
    state: np.ndarray  # (T, state_dim) float32
    actions: np.ndarray  # (T, action_dim) float32
    digest: Digest  # of its pictures, as policies see them
    frozen: np.ndarray  # (C,) how far the hand moves, at most, while a picture stays as it is [m]
    start: Start

    @property
    def first(self) -> np.ndarray:
        """(C, h, w, 3) uint8, the first pictures."""
        return self.digest.first

    @property
    def blank(self) -> np.ndarray:
        """(C,) share of the pictures that show one even colour."""
        return self.digest.even.mean(axis=0)

    @property
    def key(self) -> tuple[str, int]:
        """What names it among all recordings."""
        return self.file, self.number


class Header(NamedTuple):
    """The header of an HDF5 file of demonstrations."""

    written: str = ""
    defined: str = ""  # the task that `bddl_file_name` names
    provenance: Mapping[str, Any] = {}


def files(patterns: Sequence[str]) -> tuple[list[Path], list[Finding]]:
    """The files and data sets that flags name: by path, by pattern, or by a directory above them."""
    found: list[Path] = []
    missing = []
    for pattern in patterns:
        try:
            path = sources.local(Path(pattern).expanduser())
        except DemoError as error:
            missing.append(finding(pattern, error))
            continue
        if path.exists():
            inner = sorted(path.rglob("*.hdf5")) if path.is_dir() else []
            found += inner or [path]
        elif matches := sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))):
            found += matches
        else:
            remedy = "name a file, a directory or a pattern in quotes; metalora collect records demonstrations"
            missing.append(Finding(pattern, "no such file", remedy))
    return list(dict.fromkeys(found)), missing


def called(paths: Sequence[Path]) -> dict[Path, str]:
    """What each file or data set is called: its name, with as many folders as tell it from the others."""
    whole = {path: path.absolute().parts for path in paths}

    def name(path: Path) -> str:
        parts = whole[path]
        for length in range(1, len(parts)):
            if sum(other[-length:] == parts[-length:] for other in whole.values()) == 1:
                return str(Path(*parts[-length:]))
        return str(path)

    return {path: name(path) for path in paths}


def read(
    path: Path, cameras: Sequence[str], keys: Mapping[str, str], name_task: NameTask, file: str
) -> Iterator[Recording | Finding]:
    """Every demonstration of a file or data set, in order, and what is wrong with those that cannot be read.

    Args:
      path: one of `files`.
      cameras: which are read, in this order.
      keys: see `sources.open`.
      name_task: see `words.name_task`.
      file: what it is called.
    """
    if path.suffix in (".hdf5", ".h5"):
        yield from _read_hdf5(path, cameras, keys, name_task, file)
        return
    try:
        for task, number, demo in sets.each(path, cameras, keys):
            if isinstance(demo, DemoError):
                yield finding(file, demo)._replace(file=file, episodes=(number,), task=task)
            else:
                yield digested(file, f"episode {number}", number, name_task(task, task), task, demo, Start())
    except (DemoError, ImportError) as error:
        yield finding(file, error)._replace(file=file)


def _read_hdf5(
    path: Path, cameras: Sequence[str], keys: Mapping[str, str], name_task: NameTask, file: str
) -> Iterator[Recording | Finding]:
    damaged: dict[str, list[tuple[int, DemoError]]] = {}  # by what they say, whatever the numbers in it
    try:
        there, head = libero_hdf5.count(path), _header(path)
    except DemoError as error:
        yield finding(file, error)
        return
    named = path.name.removesuffix(".hdf5").removesuffix("_demo")
    task = name_task(named, "") or name_task(head.defined, head.written)
    if head.defined and name_task(head.defined, "") not in ("", task):
        what = f"its name says {task}, but its bddl_file_name says {head.defined}"
        yield Finding(file, what, "give the file the name of the task that it shows")
    for i in range(there):
        try:
            [demo] = libero_hdf5.stream(path, cameras, 1, keys, first=i)
            yield digested(file, f"demo_{i}", i, task, head.written, demo, _start(path, i, head.provenance))
        except DemoError as error:
            damaged.setdefault(re.sub(r"\d+", "", str(error)), []).append((i, error))
    for similar in damaged.values():
        one = finding(file, similar[0][1])
        more = f" (and {len(similar) - 1} similar demonstrations)" if len(similar) > 1 else ""
        yield one._replace(what=f"{one.what}{more}", file=file, episodes=tuple(i for i, _ in similar))
    if there == 0:
        yield Finding(file, "holds no demonstration (num_demos is 0)", "record some with metalora collect")


def demos(path: Path, cameras: Sequence[str], keys: Mapping[str, str], most: int) -> list[Demo]:
    """Up to `most` whole demonstrations of one task; none if the first one is damaged."""
    try:
        source = sources.open(path, cameras, keys)
        task = next(iter(source.tasks()))
        return [demo for demo, _ in zip(source.demos(task), range(most), strict=False)]
    except (DemoError, ImportError, StopIteration):
        return []


def finding(where: str, error: Exception) -> Finding:
    """A finding from a reader's error, which begins with the file, and ends with the remedy after a semicolon."""
    said = str(error).partition(f"{where}: ")[2] or str(error)
    what, _, remedy = said.rpartition("; ")
    return Finding(where, what or remedy, remedy if what else AGAIN)


def digested(file: str, name: str, number: int, task: str, written: str, demo: Demo, start: Start) -> Recording:
    """A demonstration, read, with its pictures reduced to what the checks need."""
    steps = len(demo.actions)
    moments = np.linspace(0, steps - 1, min(steps, MOMENTS)).astype(int)
    images = np.asarray(demo.images)  # decoded once
    frozen = _frozen(digest.thin(images[moments]).astype(np.int16), demo.state[moments, :3])
    seen = digest.of(images)
    return Recording(file, name, number, task, written, demo.instruction, demo.state, demo.actions, seen, frozen, start)


def _frozen(pictures: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(C,) how far the hand moves, at most, while a picture stays as it is: (n, C, H, W, 3) and (n, 3) [m]."""
    same = np.abs(np.diff(pictures, axis=0)).mean(axis=(2, 3, 4)) < digest.STILL
    furthest = np.zeros(pictures.shape[1])
    for c in range(len(furthest)):
        since = 0
        for t in range(1, len(places)):
            since = since if same[t - 1, c] else t
            way = np.linalg.norm(places[since : t + 1] - places[t], axis=1).max()
            furthest[c] = max(furthest[c], way)
    return furthest


def _header(path: Path) -> Header:
    with reading(path, "LIBERO's", AGAIN), h5py.File(path, "r") as file:
        attributes = dict(file["data"].attrs)
        written = "".join(json.loads(attributes["problem_info"])["language_instruction"]).strip('"')
        provenance = json.loads(attributes.get("provenance", "{}"))
        if not isinstance(provenance, dict):
            raise DemoError(f"{path}: provenance is {provenance!r}, expected a JSON object; {AGAIN}")
        defined = Path(str(attributes.get("bddl_file_name", ""))).stem
    return Header(written, defined, provenance)


def _start(path: Path, i: int, provenance: Mapping[str, Any]) -> Start:
    with reading(path, "LIBERO's", AGAIN), h5py.File(path, "r") as file:
        group, seeds = file[f"data/demo_{i}"], provenance.get("seeds", ())
        seed = int(seeds[i]) if i < len(seeds) else None
        state = _first_state(f"{path}: data/demo_{i}", group) if "states" in group else None
        model = str(group.attrs.get("model_file", ""))
        conditions = provenance.get("conditions", ())
        condition = Condition.from_json(conditions[i] if i < len(conditions) else provenance.get("condition", {}))
        noise, simulator = float(provenance.get("noise", 0.0)), provenance.get("simulator", {})
        return Start(condition, noise, seed, state, model, simulator)


def _first_state(where: str, group: h5py.Group) -> np.ndarray:
    states, steps = np.asarray(group["states"][()], np.float64), len(group["actions"])
    if states.ndim != 2 or len(states) != steps:
        raise DemoError(f"{where}: states {states.shape} for {steps} actions, expected as many rows; {AGAIN}")
    if not np.isfinite(states).all():
        raise DemoError(f"{where}: states are not finite; {AGAIN}")
    return states[0]
