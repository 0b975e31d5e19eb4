"""Reads pictures from PNG or JPEG files, and from videos."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from metalora_jax.data.demos import DemoError

HALF = 0.5 + 1e-4  # of a frame: a time that is no further away says which frame is meant; float32 rounds it
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


class Video(NamedTuple):
    """What a video says about itself, without a picture decoded."""

    path: Path
    length: int  # frames, as its header declares them, or as they are there
    times: list[int]  # of the frames that are there, in order, in ticks
    tick: float  # [s]
    rate: float | None  # frames per second on average
    sides: tuple[int, int]  # height, width

    def at(self, frame: int, fps: float) -> float:
        """The time [s] of a frame; of the one after the last, too."""
        if frame < len(self.times):
            return self.times[frame] * self.tick
        last = len(self.times) - 1
        return (self.times[last] * self.tick if self.times else 0.0) + (frame - max(last, 0)) / fps


def probe(path: Path) -> Video:
    """Reads the header of a video, and the times of its frames.

    Raises:
      DemoError: if it is missing or damaged.
    """
    av = pyav()
    if not path.exists():
        raise DemoError(f"{path}: no such file; {_REMEDY}")
    try:
        with av.open(str(path)) as container:
            stream = _stream(path, container)
            times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
            rate = float(stream.average_rate) if stream.average_rate else None
            sides = stream.height, stream.width
            return Video(path, stream.frames or len(times), times, float(stream.time_base), rate, sides)
    except (av.error.FFmpegError, IndexError) as error:
        raise DemoError(f"{path}: damaged or truncated, no video can be read; {_REMEDY}") from error


def frames(where: str, video: Video, first: int, count: int, fps: float, shape: Sequence[int]) -> np.ndarray:
    """Frames `first` to `first + count` of a video: (count, H, W, 3) uint8.

    Args:
      where: prefix of error messages.
      video: see `probe`.
      first: number of the first frame.
      count: how many.
      fps: frames per second, as the dataset declares them.
      shape: (H, W, 3), as the dataset declares it.

    Raises:
      DemoError: if it is damaged, its size is not that declared, or a frame's time is more than half a frame away.
    """
    if (*video.sides, 3) != tuple(shape):
        sides = "x".join(map(str, video.sides))
        raise DemoError(f"{where}: {sides} pixels, but info.json declares {tuple(shape)}; {_REMEDY}")
    times = video.times[first : first + count]
    if len(times) < count:
        raise DemoError(f"{where}: only {len(times)} of {count} frames are there, damaged or truncated; {_REMEDY}")
    _check_times(where, video, np.asarray(times) * video.tick, fps)
    av, found, out = pyav(), 0, np.empty((count, *shape), np.uint8)
    try:
        with av.open(str(video.path)) as container:
            stream = _stream(video.path, container)
            if first > 0:
                container.seek(times[0], stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts < times[0]:
                    continue  # from the key frame that decoding starts from
                if found == count or frame.pts != times[found]:
                    break
                out[found] = frame.to_ndarray(format="rgb24")
                found += 1
    except (av.error.FFmpegError, IndexError) as error:
        what = f"frame {found} of {count} cannot be decoded, damaged or truncated"
        raise DemoError(f"{where}: {what}; {_REMEDY}") from error
    if found < count:
        raise DemoError(f"{where}: frame {found} of {count} cannot be decoded, damaged or truncated; {_REMEDY}")
    return out


def _check_times(where: str, video: Video, times: np.ndarray, fps: float) -> None:
    """Times [s] of an episode's frames must say which frame is meant."""
    steps = np.arange(len(times))
    near = np.abs((times - times[0]) * fps - steps) <= HALF
    if not near.all():
        step, own = int(np.argmin(near)), ""
        if video.rate and abs(video.rate / fps - 1) > 1e-3:
            own = f" (the video runs at {video.rate:g})"
        what = f"frame {step} is at {times[step]:.3f} s, expected {times[0] + step / fps:.3f} s at {fps:g} frames"
        raise DemoError(f"{where}: {what} per second{own}; {_REMEDY}")
    if video.rate and abs(video.rate / fps - 1) > _OTHER_RATE:
        what = f"the video runs at {video.rate:g} frames per second, but fps in info.json is {fps:g}"
        raise DemoError(f"{where}: {what}; {_REMEDY}")


def _stream(path: Path, container: Any) -> Any:
    if not container.streams.video:
        raise DemoError(f"{path}: holds no video; {_REMEDY}")
    return container.streams.video[0]


def pyav() -> Any:
    """PyAV, imported when a video is read or written."""
    try:
        import av
    except ImportError as error:
        raise ImportError("videos of LeRobot datasets need av; pip install 'metalora_jax[lerobot]'") from error
    return av
