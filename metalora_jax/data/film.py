"""Pictures that stay in their files, and are decoded when they are looked at: in memory, a frame takes megabytes."""

import functools
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

_NEAR = 64  # frames to be skipped by going on; beyond, decoding starts anew nearer to the wanted one


class Camera(Protocol):
    """The pictures of one camera in one episode."""

    def play(self, first: int) -> Iterator[Any]:
        """The frames from number `first` on, not yet converted; raises DemoError where one cannot be decoded."""

    def picture(self, frame: Any) -> np.ndarray:
        """What `play` gave, as (H, W, 3) uint8."""


@functools.cache
def decoders() -> ThreadPoolExecutor:
    """Threads that decode, one for each core; nothing that they run waits for another of them."""
    return ThreadPoolExecutor(os.cpu_count() or 1, "decoder")


class Film:
    """Reads like an array (T, C, H, W, 3) of uint8 that is in memory only where it is indexed.

    A slice is a film again; numbers of frames give an array, and so does `np.asarray`. Reading frames in their order is
    fast for every encoding; at random, only for videos with frequent key frames, such as lerobot's.
    """

    dtype, ndim = np.dtype(np.uint8), 5

    def __init__(self, key: str, cameras: Sequence[Camera], shape: Sequence[int]):
        """`key`: equal for equal pictures; `shape`: (T, C, H, W, 3)."""
        self._key, self._reel = key, _Reel(cameras, shape[0], shape[-3:])
        self._rows = np.arange(shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, C, H, W, 3)."""
        return (len(self._rows), *self._reel.shape)

    @property
    def nbytes(self) -> int:
        """That it would take as an array."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._part(self._rows[key])
        if isinstance(key, tuple) or key is Ellipsis:
            return np.asarray(self)[key]
        rows = self._rows[key]
        return self._reel.read(np.atleast_1d(rows)).reshape(*np.shape(rows), *self._reel.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._reel.read(self._rows).astype(dtype or self.dtype, copy=bool(copy))

    def __reduce__(self) -> Any:
        return np.array, (np.asarray(self),)  # to another process it goes as an array

    def astype(self, dtype: Any) -> np.ndarray:
        """All of it in memory, in another type."""
        return self.__array__(dtype)

    def part(self, rows: np.ndarray) -> "Film":
        """The film of these frames alone."""
        return self._part(self._rows[rows])

    def _part(self, rows: np.ndarray) -> "Film":
        film = object.__new__(Film)
        film._key, film._reel, film._rows = self._key, self._reel, rows
        return film

    def identity(self, rows: np.ndarray | None = None) -> bytes:
        """Equal only for equal pictures: what stands for them in a digest, without one decoded. None: all frames."""
        numbers = self._rows if rows is None else self._rows[rows]
        return hashlib.sha256(self._key.encode() + numbers.astype(np.int64).tobytes()).digest()


class _Reel:
    """The decoders of one episode's cameras: while frames are read in order, each goes on where it stopped."""

    _recent: tuple["_Reel", np.ndarray, np.ndarray] | None = None  # of all: variants of frames are made in a row

    def __init__(self, cameras: Sequence[Camera], length: int, picture: Sequence[int]):
        self._cameras, self._length, self.shape = cameras, length, (len(cameras), *picture)
        self._lock = threading.Lock()
        self._playing: list[Iterator[Any]] = []
        self._next = 0  # the frame that they give next

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Frames (n,), in any order, of any repetition -> (n, C, H, W, 3), not to be written to."""
        order, back = np.unique(rows, return_inverse=True)
        recent = _Reel._recent
        if recent is not None and recent[0] is self and np.array_equal(recent[1], order):
            seen = recent[2]
        else:
            with self._lock:
                seen = self._decoded(order)
            _Reel._recent = (self, order, seen) if len(order) <= _NEAR else None
        return seen if np.array_equal(order, rows) else seen[back]

    def _decoded(self, order: np.ndarray) -> np.ndarray:
        out = np.empty((len(order), *self.shape), np.uint8)
        if not len(order):
            return out
        first, last = int(order[0]), int(order[-1])
        playing, self._playing = self._playing, []  # an error leaves none half way
        going_on = bool(playing) and 0 <= first - self._next <= _NEAR
        if not going_on:
            playing, self._next = [camera.play(first) for camera in self._cameras], first
        skip, wanted = self._next, set(order.tolist())

        def fill(c: int) -> None:
            at = 0
            for number in range(skip, last + 1):
                frame = next(playing[c])
                if number in wanted:
                    out[at, c] = self._cameras[c].picture(frame)
                    at += 1

        list(decoders().map(fill, range(len(self._cameras))))
        self._next = last + 1
        if self._next < self._length and (going_on or first == 0):  # at random, an open video for each would add up
            self._playing = playing
        out.flags.writeable = False
        return out
