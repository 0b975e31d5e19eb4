"""Reads pictures from PNG or JPEG files, and from videos."""

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from metalora_jax.data.demos import LFS, DemoError, lfs_pointer

HALF = 0.5 + 1e-4  # of a frame: a time that is no further away says which frame is meant; float32 rounds it
_NEAR = 0.25  # of a frame: a time that says it without doubt, if the video as a whole is as long as it should be
_OTHER_RATE = 0.05  # by which a video's own rate differs if it is another one
_REMEDY = "download or write the dataset again"


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

    def frames(self, where: str, first: int, count: int, fps: float, shape: Sequence[int]) -> np.ndarray:
        """Frames `first` to `first + count`: (count, H, W, 3) uint8.

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
        ticks = (first + np.arange(count)) / fps / self.tick
        found = self._decoded(where, ticks, _NEAR / fps / self.tick, shape) if self.regular(fps) else None
        if found is None:  # a frame's time does not say its number: frames are counted
            times = np.asarray(self.times[first : first + count])
            if len(times) < count:
                raise DemoError(f"{where}: only {len(times)} of {count} frames, damaged or truncated; {_REMEDY}")
            _check_times(where, times * self.tick, fps, self.rate)
            found = self._decoded(where, times, 0, shape)
        if found is None:
            raise DemoError(f"{where}: not all of its {count} frames can be decoded, damaged or truncated; {_REMEDY}")
        if self.rate and abs(self.rate / fps - 1) > _OTHER_RATE:
            what = f"the video runs at {self.rate:g} frames per second, but fps in info.json is {fps:g}"
            raise DemoError(f"{where}: {what}; {_REMEDY}")
        return found

    def _decoded(self, where: str, ticks: np.ndarray, within: float, shape: Sequence[int]) -> np.ndarray | None:
        """One frame at each of these times; None if they are not there, or others are between them."""
        out, found = np.empty((len(ticks), *shape), np.uint8), 0
        av = pyav()
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                if ticks[0] > 0:
                    container.seek(int(ticks[0] - within), stream=stream)
                for frame in container.decode(stream):
                    if frame.pts is None or frame.pts < ticks[0] - within:
                        continue  # from the key frame that decoding starts from
                    if abs(frame.pts - ticks[found]) > within:
                        return None
                    out[found] = frame.to_ndarray(format="rgb24")
                    found += 1
                    if found == len(ticks):
                        return out
        except (av.error.FFmpegError, IndexError) as error:
            what = f"frame {found} of {len(ticks)} cannot be decoded, damaged or truncated"
            raise DemoError(f"{where}: {what}; {_REMEDY}") from error
        return None


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
