"""Episodes as moving pictures: replayed with a larger picture, captioned, side by side, as an MP4 or a GIF."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metalora_jax.envs.control import Control
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.rollout import Rollout
from metalora_jax.machine import files

SIZE = 224  # [px] each panel
EVERY = 2  # control steps between two frames
RATE = 20  # frames per second
GIF_EVERY = 2  # frames of the film to one of the GIF
GIF_SCALES = (1.0, 0.85, 0.7, 0.5)  # of the film's width, tried in this order
GIF_COLOURS = 256
GIF_BYTES = 2_000_000


def check_encoder(otherwise: str = "") -> None:
    """Checks that what writes films is installed.

    Raises:
      ValueError: if not; the message ends with what else can be done.
    """
    if not all(importlib.util.find_spec(name) for name in ("imageio", "imageio_ffmpeg")):
        raise ValueError(f"films need imageio and imageio-ffmpeg: install both{otherwise}")


def panels(control: Control, task: str, takes: Sequence[tuple[str, Rollout, np.ndarray]]) -> list[np.ndarray]:
    """Episodes of one task, replayed with a larger picture and captioned.

    Args:
      control: how they were run.
      task: of all of them.
      takes: a caption, the episode, and its commands (T, action_dim), for each.

    Returns:
      For each, frames (n, SIZE, SIZE, 3) uint8, one in EVERY control steps.
    """
    return [
        captioned(rollout.replay(control, task, take, commands, "agentview", SIZE, EVERY), text)
        for text, take, commands in takes
    ]


def captioned(frames: np.ndarray, text: str) -> np.ndarray:
    """The same frames (n, SIZE, SIZE, 3) uint8 with `text` in their upper left corner."""
    from PIL import Image, ImageDraw

    caption = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(caption).text((8, 8), text, fill=255, font_size=16)
    return np.where(np.asarray(caption)[..., None] > 127, np.uint8(255), frames)


def beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Films (n, H, W, 3) of several lengths side by side: each holds its last picture until half a second after all."""
    length = max(len(part) for part in parts) + RATE // 2
    held = [np.concatenate([part, np.repeat(part[-1:], length - len(part), axis=0)]) for part in parts]
    return np.concatenate(held, axis=2)


def write(path: Path, parts: Sequence[np.ndarray]) -> Path:
    """Writes films (n, H, W, 3) uint8 side by side as an MP4.

    The encoder forks: call this in a process in which JAX runs no threads.
    """
    import imageio.v3 as iio

    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_file(path) as staging:
        staging.write_bytes(iio.imwrite("<bytes>", beside(parts), extension=".mp4", fps=RATE, codec="libx264"))
    return path


def write_gif(path: Path, parts: Sequence[np.ndarray], limit: int = GIF_BYTES) -> Path:
    """Writes films (n, H, W, 3) uint8 side by side as a GIF that repeats, for pages that play no MP4.

    It has half of the pictures at the same pace, and is made smaller until it fits.

    Args:
      path: the file.
      parts: the films.
      limit: its largest size [bytes].

    Raises:
      ValueError: no size fits.
    """
    from PIL import Image

    pictures = [Image.fromarray(picture) for picture in beside(parts)[::GIF_EVERY]]
    width, height = pictures[0].size
    for scale in GIF_SCALES:
        size = round(width * scale), round(height * scale)
        # One palette for all pictures, and no dithering: what does not move is the same in each, and costs nothing.
        palette = pictures[0].resize(size).quantize(GIF_COLOURS)
        small = [picture.resize(size).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
        memory = io.BytesIO()
        small[0].save(memory, "gif", save_all=True, append_images=small[1:], duration=1000 * GIF_EVERY // RATE, loop=0)
        if memory.tell() <= limit:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_file(path) as staging:
                staging.write_bytes(memory.getvalue())
            return path
    raise ValueError(f"{path} would have {memory.tell()} bytes at its smallest, allowed are {limit}; film less")
