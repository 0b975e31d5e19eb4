"""Reads pictures from PNG or JPEG files, and from videos."""

import contextlib
import functools
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from metalora_jax.data.demos import LFS, DemoError, lfs_pointer
from metalora_jax.machine import caches

HALF = 0.5 + 1e-4  # of a frame: a time that is no further away says which frame is meant; float32 rounds it
_NEAR = 0.25  # of a frame: a time that says it without doubt, if the video as a whole is as long as it should be
_OTHER_RATE = 0.05  # by which a video's own rate differs if it is another one
_REMEDY = "download or write the dataset again"
_BY_TIME, _COUNTED = "by time", "counted"  # how the frames of an episode are found in its video


def decode(where: str, content: bytes) -> np.ndarray:
    """A PNG or JPEG file's content -> (H, W, 3) uint8; raises DemoError, prefixed with `where`, if damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            if picture.mode != "RGB":
                raise DemoError(f"{where}: a picture of mode {picture.mode}, expected RGB; {_REMEDY}")
            return np.asarray(picture)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DemoError(f"{where}: not a valid PNG or JPEG; {_REMEDY}") from error


class Video:
    """What a video says about itself, without a picture decoded."""

    def __init__(self, path: Path):
        """Reads the header.

        Raises:
          DemoError: if the file is missing or damaged, or holds no video.
        """
        self.path = path
        if not path.exists():
            raise DemoError(f"{path}: no such file; {_REMEDY}")
        with self._opened() as (_, stream):
            self.rate = float(stream.average_rate) if stream.average_rate else None  # frames per second on average
            self.sides = stream.height, stream.width
            self.tick = float(stream.time_base)  # [s]
            declared, last, start = stream.frames, stream.duration, stream.start_time
        self.length = declared or len(self.times)  # frames
        self._span = (start * self.tick, (start + last) * self.tick) if start is not None and last else None  # [s]

    @functools.cached_property
    def times(self) -> list[int]:
        """When each frame is shown, in ticks. This reads the whole file; most videos keep to the frame rate instead."""
        with self._opened() as (container, stream):
            return sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)

    @functools.cached_property
    def digest(self) -> str:
        """Of the file's content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]

    def regular(self, fps: float) -> bool:
        """Whether it begins and ends where so many frames at this rate do."""
        ends = (0.0, self.length / fps)
        return self._span is not None and all(
            abs(there - end) * fps <= HALF for there, end in zip(self._span, ends, strict=True)
        )

    def at(self, frame: int, fps: float) -> float:
        """The time [s] of a frame; of the one after the last, too."""
        if self.regular(fps):
            return frame / fps
        if frame < len(self.times):
            return self.times[frame] * self.tick
        last = len(self.times) - 1
        return (self.times[last] * self.tick if self.times else 0.0) + (frame - max(last, 0)) / fps

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        av = pyav()
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise DemoError(f"{self.path}: holds no video; {_REMEDY}")
                yield container, container.streams.video[0]
        except (av.error.FFmpegError, IndexError) as error:
            damaged = f"damaged or truncated, no video can be read; {_REMEDY}"
            raise DemoError(f"{self.path}: {LFS if lfs_pointer(self.path) else damaged}") from error

    def shots(self, where: str, first: int, count: int, fps: float, shape: Sequence[int]) -> "Shots":
        """Frames `first` to `first + count`, each found and decoded once; a video that was is not decoded again.

        Args:
          where: prefix of error messages.
          first: number of the first frame.
          count: how many.
          fps: frames per second, as the dataset declares them.
          shape: (H, W, 3), as the dataset declares it.

        Raises:
          DemoError: if the video is damaged, its size is not that declared, or times do not say which frame is meant.
        """
        if (*self.sides, 3) != tuple(shape):
            sides = "x".join(map(str, self.sides))
            raise DemoError(f"{where}: {sides} pixels, but info.json declares shape {tuple(shape)}; {_REMEDY}")
        key = hashlib.sha256(f"{self.digest} {first} {count} {fps}".encode()).hexdigest()
        known = caches.noted("shots", key)
        shots = Shots(where, key, self.path, (first + np.arange(count)) / fps / self.tick, _NEAR / fps / self.tick)
        by_time = self.regular(fps) and (known == _BY_TIME or (known is None and shots.complete()))
        if not by_time:  # a frame's time does not say its number: frames are counted
            times = np.asarray(self.times[first : first + count])
            if len(times) < count:
                raise DemoError(f"{where}: only {len(times)} of {count} frames, damaged or truncated; {_REMEDY}")
            _check_times(where, times * self.tick, fps, self.rate)
            shots = Shots(where, key, self.path, times, 0)
            if known is None and not shots.complete():
                raise shots.incomplete()
        if known is None:
            caches.note("shots", key, _BY_TIME if by_time else _COUNTED)
        if self.rate and abs(self.rate / fps - 1) > _OTHER_RATE:
            what = f"the video runs at {self.rate:g} frames per second, but fps in info.json is {fps:g}"
            raise DemoError(f"{where}: {what}; {_REMEDY}")
        return shots


class Shots:
    """Some consecutive frames of a video, a `film.Camera`; one frame at each of their times."""

    def __init__(self, where: str, key: str, path: Path, ticks: np.ndarray, within: float):
        """Messages begin with `where`, `key` names the pictures; frames are at the times `ticks` (n,), by `within`."""
        self._where, self.key, self._path, self._ticks, self._within = where, key, path, ticks, within
        self._reformat: Any = None

    def play(self, first: int) -> Iterator[Any]:
        """See `film.Camera`."""
        at = first
        for frame in self._frames(first):
            if abs(frame.pts - self._ticks[at]) > self._within:
                break
            at += 1
            yield frame
        if at < len(self._ticks):
            raise self.incomplete()

    def picture(self, frame: Any) -> np.ndarray:
        """See `film.Camera`."""
        if self._reformat is None:  # one for all frames: each frame's own would set up the conversion again
            self._reformat = pyav().video.reformatter.VideoReformatter()
        return self._reformat.reformat(frame, format="rgb24").to_ndarray()

    def complete(self) -> bool:
        """Whether there is one frame at each time, and none between; this decodes them."""
        try:
            return all(True for _ in self.play(0))
        except _Incomplete:
            return False

    def incomplete(self) -> DemoError:
        """What to raise where frames are missing."""
        what = f"not all of its {len(self._ticks)} frames can be decoded, damaged or truncated"
        return _Incomplete(f"{self._where}: {what}; {_REMEDY}")

    def _frames(self, first: int) -> Iterator[Any]:
        """Decoded frames, from number `first` on, as many as there should be."""
        av, number = pyav(), first
        begin = self._ticks[first] - self._within
        try:
            with av.open(str(self._path)) as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1  # videos are decoded side by side
                if self._ticks[first] > 0:
                    container.seek(int(begin), stream=stream)
                for frame in container.decode(stream):
                    if frame.pts is None or frame.pts < begin:
                        continue  # from the key frame that decoding starts from
                    yield frame
                    number += 1
                    if number == len(self._ticks):
                        return
        except (av.error.FFmpegError, IndexError) as error:
            what = f"frame {number} of {len(self._ticks)} cannot be decoded, damaged or truncated"
            raise DemoError(f"{self._where}: {what}; {_REMEDY}") from error


class _Incomplete(DemoError):
    """Frames are missing, or others are between them."""


def _check_times(where: str, times: np.ndarray, fps: float, rate: float | None) -> None:
    """Times [s] of an episode's frames must say which frame is meant."""
    steps = np.arange(len(times))
    near = np.abs((times - times[0]) * fps - steps) <= HALF
    if not near.all():
        step = int(np.argmin(near))
        own = f" (the video runs at {rate:g})" if rate and abs(rate / fps - 1) > 1e-3 else ""
        what = f"frame {step} is at {times[step]:.3f} s, expected {times[0] + step / fps:.3f} s at fps {fps:g}"
        raise DemoError(f"{where}: {what}{own}; {_REMEDY}")


def pyav() -> Any:
    """PyAV, imported when a video is read or written."""
    try:
        import av
    except ImportError as error:
        raise ImportError("videos of LeRobot datasets need av; pip install 'metalora_jax[lerobot]'") from error
    return av


class Cells:
    """Pictures in PNG or JPEG that a table holds, a `film.Camera`."""

    def __init__(self, where: str, read: Callable[[], list[Any]], shape: Sequence[int]):
        """Decodes each once, unless the same were before.

        Args:
          where: prefix of error messages, with the name of the column.
          read: gives the column's cells, one for each frame.
          shape: (H, W, 3), as the dataset declares it.

        Raises:
          DemoError: a cell holds no picture, or one that is damaged or of another size.
        """
        self._where, self._read, self._shape = where, read, tuple(shape)
        sha = hashlib.sha256(f"{self._shape}".encode())
        for i, cell in enumerate(cells := read()):
            if not isinstance(cell, dict) or not cell.get("bytes"):
                raise DemoError(f"{where} of frame {i} is not in the table; embed the pictures, or use videos")
            sha.update(f"{len(cell['bytes'])} ".encode() + cell["bytes"])
        self.key = sha.hexdigest()
        if caches.noted("cells", self.key) is None:
            for frame in enumerate(cells):
                self.picture(frame)
            caches.note("cells", self.key, "sound")

    def play(self, first: int) -> Iterator[Any]:
        """See `film.Camera`."""
        yield from list(enumerate(self._read()))[first:]

    def picture(self, frame: Any) -> np.ndarray:
        """See `film.Camera`."""
        number, cell = frame
        picture = decode(f"{self._where} of frame {number}", cell["bytes"])
        if picture.shape != self._shape:
            what = f"is {picture.shape}, but info.json declares shape {self._shape}"
            raise DemoError(f"{self._where} of frame {number} {what}")
        return picture
