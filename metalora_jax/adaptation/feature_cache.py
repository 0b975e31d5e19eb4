"""The frozen front's outputs on disk: computed once for equal frames, policy and stage, by the first run to need them.

An entry is a file of a few frames, named by a key (a digest of all inputs) and a digest of its own bytes:

    <root>/<key>-<digest>.npy      a structured array, one field for each leaf, one row for each frame

It appears under its name only once it is complete, so that readers and other writers never see part of one, even after
a kill; an entry whose bytes do not match the digest in its name is dropped, and computed again.
"""

import contextlib
import hashlib
import io
import os
import time
from pathlib import Path

import ml_dtypes
import numpy as np
from absl import logging

from metalora_jax.machine import caches, files

LIMIT = "METALORA_CACHE_GIB"  # environment variable
_DEFAULT_GIB = 50.0
_STAGING, _ABANDONED = ".*.new-*", 3600.0  # [s]
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)  # stored in numpy's files as two raw bytes

Entry = dict[str, np.ndarray]


def limit() -> int:
    """METALORA_CACHE_GIB, in bytes.

    Raises:
      ValueError: if it is not a number, or below zero.
    """
    text = os.environ.get(LIMIT, str(_DEFAULT_GIB))
    try:
        gib = float(text)
    except ValueError:
        gib = -1.0
    if not 0 <= gib < 2**30:
        raise ValueError(f"{LIMIT}={text!r} is not a number of GiB, such as {_DEFAULT_GIB:g}")
    return int(gib * 2**30)


class FeatureCache:
    """Memory-mapped entries below `root`, bounded in bytes: the least recently used ones are removed first."""

    def __init__(self, root: Path, limit: int):
        """`limit` in bytes; one run may exceed it, since it keeps the entries that it has open until it ends."""
        self._root = root
        self._limit = limit
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{root} cannot hold the cache ({error.strerror}); set {caches.FOLDER} to another folder"
            ) from None
        for staging in root.glob(_STAGING):  # of writers that were killed
            with contextlib.suppress(FileNotFoundError):
                if time.time() - staging.stat().st_mtime > _ABANDONED:
                    staging.unlink()
        self._files = {path.name.split("-")[0]: path for path in root.glob("*-*.npy")}
        self._bytes = sum(size for _, size, _ in self._entries())

    @classmethod
    def from_environment(cls) -> "FeatureCache":
        """A cache below the folder METALORA_CACHE, of at most METALORA_CACHE_GIB."""
        return cls(caches.folder("frozen_front"), limit())

    def get(self, key: str) -> Entry | None:
        """The entry, its arrays mapped from the file; None if there is none, or if it cannot be trusted."""
        path = self._files.get(key)
        if path is None:
            return None
        try:
            content = path.read_bytes()
            if _digest(content) != path.stem.split("-")[1]:
                raise ValueError("its bytes do not match the digest in its name")
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)  # used now
            return {name: _typed(rows[name]) for name in rows.dtype.names}
        except FileNotFoundError:  # another process needed the room
            pass
        except (OSError, ValueError, EOFError, TypeError) as error:
            logging.warning("%s is dropped and computed again: %s", path, error)
            with contextlib.suppress(OSError):  # not a file, or not ours to remove: it stays, and is not used
                path.unlink(missing_ok=True)
        self._files.pop(key, None)
        return None

    def put(self, key: str, entry: Entry) -> Entry:
        """Stores an entry, and returns it as `get` would; if the disk is full, it is returned unchanged."""
        fields = [(name, value.dtype, value.shape[1:]) for name, value in entry.items()]
        rows = np.empty(len(next(iter(entry.values()))), np.dtype(fields))
        for name, value in entry.items():
            rows[name] = value
        buffer = io.BytesIO()
        np.save(buffer, rows.view(_raw(rows.dtype)), allow_pickle=False)
        content = buffer.getvalue()
        path = self._root / f"{key}-{_digest(content)}.npy"
        try:
            self._make_room(len(content))
            _write_whole(path, content)
        except OSError as error:
            logging.warning("%s: not cached (%s); it will be computed again next time", self._root, error.strerror)
            return entry
        self._bytes += len(content)
        self._files[key] = path
        return self.get(key) or entry

    def _make_room(self, wanted: int) -> None:
        if self._bytes + wanted <= self._limit:
            return
        entries = sorted(self._entries())  # other processes may have added or dropped some
        self._bytes = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self._bytes + wanted <= self._limit:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # whoever has it mapped keeps its pages
            self._bytes -= size

    def _entries(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._root.glob("*-*.npy"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        return found


def _write_whole(path: Path, content: bytes) -> None:
    with files.atomic_file(path, durable=False) as staging:  # the digest in its name tells what a crash has damaged
        staging.write_bytes(content)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _raw(dtype: np.dtype) -> np.dtype:
    """The same layout in types that numpy's files support."""
    assert dtype.fields is not None
    fields = []
    for name, (field, *_) in dtype.fields.items():
        base, shape = (field.base, field.shape)
        fields.append((name, np.dtype("V2") if base == _BFLOAT16 else base, shape))
    return np.dtype(fields)


def _typed(values: np.ndarray) -> np.ndarray:
    return values.view(_BFLOAT16) if values.dtype == np.dtype("V2") else values
