"""Reads pictures from PNG or JPEG files, and from videos."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from metalora_jax.data.demos import DemoError

_NEAR = 0.1  # of a frame's duration: how far a frame's time may be from where it belongs


def decode(where: str, content: bytes) -> np.ndarray:
    """A PNG or JPEG file's content -> (H, W, 3) uint8; raises DemoError, prefixed with `where`, if damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            if picture.mode != "RGB":
                raise DemoError(f"{where}: a picture of mode {picture.mode}, expected RGB; write the dataset again")
            return np.asarray(picture)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DemoError(f"{where}: not a valid PNG or JPEG ({error}); download or write the dataset again") from error


def video(path: Path, start: float, count: int, fps: float, shape: Sequence[int], alone: bool) -> np.ndarray:
    """The `count` frames of a video starting at `start` [s]: (count, H, W, 3) uint8.

    Args:
      path: any video that FFmpeg can read.
      start: time of the first frame [s].
      count: how many.
      fps: frames per second, as the dataset declares them.
      shape: (H, W, 3), as the dataset declares it.
      alone: whether the video holds only these frames.

    Raises:
      DemoError: if it is missing or damaged, or its size, frame times or number of frames differ from those declared.
    """
    av = pyav()
    if not path.exists():
        raise DemoError(f"{path}: no such file; download or write the dataset again")
    frames = np.empty((count, *shape), np.uint8)
    found = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if (stream.height, stream.width, 3) != tuple(shape):
                raise DemoError(f"{path}: {stream.height}x{stream.width} pixels, but info.json declares {tuple(shape)}")
            if start > 0:
                container.seek(int((start - 0.5 / fps) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                number = (frame.time - start) * fps
                if number < -0.5:
                    continue  # the key frame that decoding starts from
                if found == count:
                    if alone:
                        raise DemoError(f"{path}: more than the {count} frames declared; write the dataset again")
                    break
                if abs(number - found) > _NEAR:
                    raise DemoError(
                        f"{path}: frame {found} is at {frame.time:.3f} s, expected {start + found / fps:.3f} s at "
                        f"{fps:g} frames per second; write the dataset again"
                    )
                frames[found] = frame.to_ndarray(format="rgb24")
                found += 1
    except (av.error.FFmpegError, IndexError) as error:
        raise DemoError(f"{path}: damaged or truncated ({error}); download or write the dataset again") from error
    if found < count:
        raise DemoError(f"{path}: only {found} of {count} frames from {start:g} s; download or write the dataset again")
    return frames


def pyav() -> Any:
    """PyAV, imported when a video is read or written."""
    try:
        import av
    except ImportError as error:
        raise ImportError("videos of LeRobot datasets need av; pip install 'metalora_jax[lerobot]'") from error
    return av
