"""Files and directories that are there whole or not at all, after a crash too; and JSON in them.

What is written goes into a staging file or directory beside its place, is flushed to the disk, and takes the place in
one step. An exception leaves no staging behind; a process that is killed outright may, under a hidden name of its own.
A directory's, which may be as large as a policy, is removed by the next one that is written in the same place.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a staging path, for the block to write a file to, that becomes `path` when the block ends well.

    Args:
      path: its directory must exist; a file that is there is replaced.
      durable: flush the file before it takes its place, and the directory after; False for what a crash may damage.
    """
    staging = path.with_name(f".{path.name}.new-{secrets.token_hex(4)}")
    try:
        yield staging
        if durable:
            _sync(staging)
        os.replace(staging, path)
        if durable:
            _sync(path.parent)
    finally:
        staging.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """An `atomic_file` of bytes."""
    with atomic_file(path) as staging:
        staging.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """An `atomic_file` of text, in UTF-8."""
    with atomic_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, indent: int = 1, sort_keys: bool = False, allow_nan: bool = True) -> None:
    """An `atomic_file` of JSON, which ends with a line feed; options as those of `json.dumps`."""
    write_text(path, json.dumps(value, indent=indent, sort_keys=sort_keys, allow_nan=allow_nan) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, in UTF-8 with or without a byte order mark; a ValueError that names the file where it is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: not a readable JSON file ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a readable JSON file (it is not UTF-8 text; save it as UTF-8)") from None
    except json.JSONDecodeError as error:
        place = f"no valid JSON from line {error.lineno}, column {error.colno} on"
        raise ValueError(f"{path}: not a readable JSON file (damaged or truncated, {place})") from None
    except RecursionError:
        raise ValueError(f"{path}: not a readable JSON file (nested too deeply)") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return values


@contextlib.contextmanager
def atomic_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a staging directory that becomes `path` when the block ends well, and vanishes when it does not.

    Durable: files, then the directory, then its parent are flushed to the disk. An existing directory is exchanged with
    the new one in one system call, so that there is no moment without either. What writers of the same `path` left
    behind when they were killed is removed first.
    """
    _remove_abandoned(path)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    lock = os.open(staging, os.O_RDONLY)  # held while it is written; the system lets go of it however a process ends
    try:
        with contextlib.suppress(OSError):  # a file system without locks, on which nothing is removed, either
            fcntl.flock(lock, fcntl.LOCK_EX)
        staging.chmod(0o755)  # mkdtemp makes it private to the user
        yield staging
        sync_tree(staging)
        if overwrite and path.exists():
            _exchange(staging, path)
        else:
            os.rename(staging, path)  # onto an existing directory with content this fails, even after a race
        _sync(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(path: Path) -> None:
    """Removes the staging directories of `path` that no process holds."""
    name = re.compile(re.escape(f".{path.name}.new-") + r"[a-z0-9_]{8}")  # as `tempfile.mkdtemp` ends it
    for staging in [entry for entry in path.parent.iterdir() if name.fullmatch(entry.name)]:
        if staging.is_symlink() or staging.with_name(f"{staging.name}.old").exists():  # the latter: see `_exchange`
            continue
        with contextlib.suppress(OSError):  # somebody writes it, it is a file, or another process has removed it
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(staging, ignore_errors=True)
            finally:
                os.close(lock)


def sync_tree(directory: Path) -> None:
    """Flushes every file under a directory, then the directories, deepest first, to the disk."""
    for entry in sorted(directory.rglob("*"), key=lambda p: len(p.parts), reverse=True):
        _sync(entry)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(new: Path, old: Path) -> None:
    """Swaps two directories; in one step where the system can (Linux), else by way of a third name."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if hasattr(libc, "renameat2") and libc.renameat2(here, os.fsencode(new), here, os.fsencode(old), exchange) == 0:
        return
    aside = new.with_name(f"{new.name}.old")  # whatever happens between the renames, both copies are on the disk
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)
