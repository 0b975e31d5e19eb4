"""LIBERO's files: suites, tasks, instructions, initial states, scene assets. Nothing here imports LIBERO or PyTorch.

They come from the PyPI package `hf-libero` (Liu et al. 2023, arXiv:2306.03310); see third_party/libero.md.
"""

import difflib
import functools
import hashlib
import importlib.util
import json
import os
import pickletools
import re
import runpy
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from metalora_jax.data import libero_tasks
from metalora_jax.machine import caches, files

ASSETS = "METALORA_LIBERO_ASSETS"  # environment variable: the folder with LIBERO's scene assets
HUB = "lerobot/libero-assets"  # a data set on the hub, the source of the assets if no folder is set
CONFIG = "LIBERO_CONFIG_PATH"  # LIBERO's own environment variable: the folder of its config.yaml
INIT_STATES = 50  # a task's initial states
INSTALL = "make libero (or by hand, see third_party/libero.md)"
# A suite's step cap, without the settling: OpenVLA's, a little above the longest demonstration.
STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
_ASSET_FOLDERS = (
    "articulated_objects",
    "scenes",
    "stable_hope_objects",
    "stable_scanned_objects",
    "turbosquid_objects",
)


class MissingLibero(ImportError):
    """LIBERO, or a part of it, is not installed; the message says how to install it."""


class InitStateError(ValueError):
    """A file of initial states differs from what LIBERO ships."""


def package() -> Path:
    """The folder in which LIBERO is installed.

    Raises:
      MissingLibero: if it is not installed.
    """
    found = importlib.util.find_spec("libero")  # finds it without importing it
    for place in found.submodule_search_locations or () if found is not None else ():
        if (Path(place) / "libero" / "bddl_files").is_dir():  # not just another folder of this name
            return Path(place) / "libero"
    raise MissingLibero(f"LIBERO is not installed; install it with: {INSTALL}")


@functools.cache
def _suites() -> dict[str, tuple[str, ...]]:
    known = runpy.run_path(str(package() / "benchmark" / "libero_suite_task_map.py"))["libero_task_map"]
    return {suite: tuple(known[suite]) for suite in STEPS}


def suite_tasks(suite: str) -> tuple[str, ...]:
    """The tasks of a suite in LIBERO's own order: a task's index is its id.

    Raises:
      ValueError: if there is no such suite.
    """
    if suite not in STEPS:
        raise ValueError(f"no LIBERO suite named {suite!r}; choose from {', '.join(STEPS)}")
    return _suites()[suite]


def tasks() -> tuple[str, ...]:
    """All 130 tasks."""
    return tuple(task for suite in STEPS for task in suite_tasks(suite))


def suite_of(task: str) -> str:
    """The suite that a task belongs to; raises ValueError, naming the closest tasks, if there is no such task."""
    for suite in STEPS:
        if task in suite_tasks(suite):
            return suite
    near = difflib.get_close_matches(task, tasks(), n=3, cutoff=0.4)
    raise ValueError(f"no LIBERO task named {task!r}; " + (f"near: {', '.join(near)}" if near else "see suite_tasks"))


def instruction(task: str) -> str:
    """The instruction: the task's name in words, as LIBERO's benchmark gives it to policies.

    The file that defines the task has a `:language` of its own, worded differently for 29 tasks ("Pick the akita
    black bowl ..."); LIBERO's recorder writes that one into demonstrations, but published VLAs are trained and
    evaluated with the benchmark's.
    """
    suite_of(task)
    return re.sub(r"^[A-Z_]+_SCENE\d+_", "", task).replace("_", " ")


def definition(task: str) -> Path:
    """The BDDL file that defines a task."""
    return package() / "bddl_files" / suite_of(task) / f"{task}.bddl"


def language(task: str) -> str:
    """The `:language` of the file that defines a task; see `instruction`."""
    found = re.search(r"\(:language\s+([^)]*)\)", definition(task).read_text())
    if found is None:
        raise ValueError(f"{definition(task)}: no (:language ...); reinstall LIBERO with: {INSTALL}")
    return found[1].strip()


def facts(task: str) -> dict[str, tuple[str, ...]]:
    """The facts of a task, see `data.libero_tasks.LiberoTask.facts`."""
    return libero_tasks.parse(suite_of(task), task, definition(task).read_text()).facts


def init_states(task: str) -> np.ndarray:
    """A task's initial states (50, 1 + nq + nv) float64: time, positions and velocities of the whole scene.

    Raises:
      InitStateError: if the file differs from the one LIBERO ships.
    """
    path = package() / "init_files" / suite_of(task) / f"{task}.pruned_init"
    states = read_array(path)
    if len(states) != INIT_STATES:
        raise InitStateError(f"{path}: {len(states)} initial states, not {INIT_STATES}; reinstall LIBERO: {INSTALL}")
    return states


# `torch.save` of an array: a zip whose data.pkl is this pickle. No unpickler ever runs it: the file's instructions are
# listed, and must be exactly these. Arguments given as None differ from file to file: rows, columns, and the numbers.
_PICKLED_ARRAY = (
    *(("GLOBAL", "numpy.core.multiarray _reconstruct"), ("GLOBAL", "numpy ndarray"), ("BININT1", 0), ("TUPLE1", None)),
    *(("GLOBAL", "_codecs encode"), ("BINUNICODE", "b"), ("BINUNICODE", "latin1"), ("TUPLE2", None), ("REDUCE", None)),
    *(("TUPLE3", None), ("REDUCE", None)),
    *(("MARK", None), ("BININT1", 1), ("BININT1", None), ("BININT1", None), ("TUPLE2", None)),
    *(("GLOBAL", "numpy dtype"), ("BINUNICODE", "f8"), ("NEWFALSE", None), ("NEWTRUE", None), ("TUPLE3", None)),
    *(("REDUCE", None), ("MARK", None), ("BININT1", 3), ("BINUNICODE", "<"), ("NONE", None), ("NONE", None)),
    *(("NONE", None), ("BININT", -1), ("BININT", -1), ("BININT1", 0), ("TUPLE", None), ("BUILD", None)),
    *(("NEWFALSE", None), ("BINGET", 3), ("BINUNICODE", None), ("BINGET", 5), ("TUPLE2", None), ("REDUCE", None)),
    *(("TUPLE", None), ("BUILD", None), ("STOP", None)),
)
_ROWS, _COLUMNS, _NUMBERS = 13, 14, 35
_MEMO = ("PROTO", "BINPUT")
_LARGEST = 64 << 20  # [bytes]


def read_array(path: Path) -> np.ndarray:
    """The array (rows, columns) float64 in a file that `torch.save` wrote, without unpickling anything.

    Raises:
      InitStateError: if the file is missing or damaged, or holds anything but one finite array.
    """
    refused = f"{path}: not an array of initial states as LIBERO ships it"
    remedy = f"it may have been tampered with; reinstall LIBERO: {INSTALL}"
    try:
        with zipfile.ZipFile(path) as archive:
            [entry] = [info for info in archive.infolist() if info.filename.endswith("data.pkl")]
            if entry.file_size > _LARGEST:
                raise InitStateError(f"{refused} ({entry.file_size} bytes); {remedy}")
            listed: list[tuple[str, Any]] = [
                (op.name, argument)
                for op, argument, _ in pickletools.genops(archive.read(entry))
                if op.name not in _MEMO
            ]
    except InitStateError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InitStateError(f"{refused} ({error}); {remedy}") from error
    for (name, argument), (wanted, fixed) in zip(listed, _PICKLED_ARRAY, strict=False):
        if name != wanted or (fixed is not None and argument != fixed):
            raise InitStateError(f"{refused} ({name} {str(argument)[:60]!r} instead of {wanted}); {remedy}")
    if len(listed) != len(_PICKLED_ARRAY):
        raise InitStateError(f"{refused} ({len(listed)} instructions, expected {len(_PICKLED_ARRAY)}); {remedy}")
    rows, columns = listed[_ROWS][1], listed[_COLUMNS][1]
    try:
        array = np.frombuffer(listed[_NUMBERS][1].encode("latin1"), "<f8").reshape(rows, columns)
    except ValueError as error:
        raise InitStateError(f"{refused} ({error}); {remedy}") from error
    if not np.isfinite(array).all():
        raise InitStateError(f"{refused} (not all numbers are finite); {remedy}")
    return array


def assets() -> Path:
    """The folder of scene assets: METALORA_LIBERO_ASSETS, else LIBERO's own, else the hub's, in its local cache.

    Raises:
      MissingLibero: if they are not available; the message says what to do.
    """
    if named := os.environ.get(ASSETS):
        return _checked(Path(named).expanduser(), f"{ASSETS}={named}")
    if (bundled := package() / "assets").is_dir():
        return _checked(bundled, str(bundled))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    logging.info("loading LIBERO's scene assets from the hub (%s) or its local cache", HUB)
    try:
        return _checked(Path(snapshot_download(HUB, repo_type="dataset")), f"the hub's {HUB}")
    except (OSError, ValueError, HTTPError) as error:
        raise MissingLibero(
            f"cannot get LIBERO's scene assets from the hub ({str(error).splitlines()[0][:120]}). Without a "
            f"network: download the data set {HUB} to a folder elsewhere, and set {ASSETS} to that folder"
        ) from error


def _checked(folder: Path, name: str) -> Path:
    if missing := [part for part in _ASSET_FOLDERS if not (folder / part).is_dir()]:
        raise MissingLibero(f"{name}: not LIBERO's scene assets, {', '.join(missing)}/ is missing; see {HUB}")
    return folder.resolve()


def settle_config() -> None:
    """Makes sure that LIBERO finds a config.yaml: without one, it prompts on standard input when imported.

    The user's own is left unchanged if LIBERO_CONFIG_PATH names it; ~/.libero is neither read nor written.
    """
    root = package()
    paths = {"bddl_files": "bddl_files", "init_states": "init_files", "datasets": "../datasets", "assets": "assets"}
    entries = {"benchmark_root": root} | {key: root / path for key, path in paths.items()}
    text = "".join(f"{key}: {json.dumps(str(path))}\n" for key, path in entries.items())
    if own := not os.environ.get(CONFIG):
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        os.environ[CONFIG] = str(caches.folder(f"libero-{digest}"))
    file = Path(os.environ[CONFIG]) / "config.yaml"
    if file.exists() and not (own and file.read_bytes() != text.encode()):  # ours may have been damaged
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, text)
