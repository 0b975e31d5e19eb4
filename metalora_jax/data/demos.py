"""What every source of demonstrations must return: whole, finite, well-shaped arrays, or a clear error."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from metalora_jax.types import Demo, Pictures


class DemoError(ValueError):
    """Demonstrations that cannot be used; the message names the file, the key and the remedy."""


SHORTEST = 2  # frames; one alone shows no motion


def checked(where: str, instruction: object, images: Pictures, state: np.ndarray, actions: np.ndarray) -> Demo:
    """A Demo of arrays as a file holds them, or a DemoError that begins with `where`.

    Args:
      where: the file, and the demonstration within it.
      instruction: what the robot was told.
      images: (T, C, H, W, 3) uint8, as policies see them.
      state: (T, state_dim), any float.
      actions: (T, action_dim), any float.
    """
    if not isinstance(instruction, str) or not instruction.strip():
        raise DemoError(f"{where}: the instruction is {instruction!r}, expected text; fix it or drop the demonstration")
    if any("\ud800" <= letter <= "\udfff" for letter in instruction):
        raise DemoError(f"{where}: the instruction {instruction!r} holds half a character; write the text again")
    for name, values in (("actions", actions), ("state", state)):
        if not np.issubdtype(values.dtype, np.floating) or values.ndim != 2 or values.shape[1] == 0:
            raise DemoError(
                f"{where}: {name} are {values.dtype} {values.shape}, expected floats (T, dimensions); convert them"
            )
    steps = len(actions)
    if len(images) != steps or len(state) != steps:
        raise DemoError(f"{where}: {steps} actions, {len(images)} images and {len(state)} states; record it again")
    if steps < SHORTEST:
        raise DemoError(f"{where}: {few(steps)}; drop the demonstration or record it again")
    if images.dtype != np.uint8 or images.ndim != 5 or images.shape[-1] != 3:
        raise DemoError(
            f"{where}: images are {images.dtype} {images.shape}, expected uint8 (T, C, H, W, 3), 0 to 255; convert them"
        )
    if images.shape[1] and 0 in images.shape:
        raise DemoError(f"{where}: images have no pixels, {images.shape}; record it again")
    for name, values in (("actions", actions), ("state", state)):
        sound = np.abs(values.astype(np.float64)) <= _LARGEST  # NaN is not
        if not sound.all():
            step, k = np.argwhere(~sound)[0]
            kind = "not finite" if not np.isfinite(values[step, k]) else "implausibly large"
            what = f"{name} at step {step} is {kind} ({values[step, k]:g} in dimension {k})"
            raise DemoError(f"{where}: {what}; drop the demonstration or record it again")
    return Demo(instruction, images, state.astype(np.float32), actions.astype(np.float32))


def few(frames: int) -> str:
    """Says that a demonstration is too short."""
    return f"{frames or 'no'} frame{'' if frames == 1 else 's'}, expected {SHORTEST} or more"


def stack_cameras(where: str, cameras: Sequence[str], pictures: Sequence[np.ndarray], steps: int) -> np.ndarray:
    """Pictures (T, H, W, 3) of each camera -> (T, C, H, W, 3); (steps, 0, 0, 0, 3) if no camera is requested."""
    if not cameras:
        return np.zeros((steps, 0, 0, 0, 3), np.uint8)
    same_shape(where, {camera: picture.shape for camera, picture in zip(cameras, pictures, strict=True)})
    return np.stack(pictures, axis=1)


def same_shape(where: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that all cameras' pictures have; () where there is no camera. Raises DemoError where they differ."""
    if len(set(shapes.values())) > 1:
        raise DemoError(f"{where}: cameras differ in shape: {shapes}; request cameras of equal shape, or resize")
    return next(iter(shapes.values()), ())


_LARGEST = 1e9  # beyond any robot's unit; float32, in which demonstrations are kept, ends at 3e38
_NAMED = re.compile(r"(?:object|attribute:?) '([^']*)'")  # what HDF5's own messages say is not there


@contextlib.contextmanager
def reading(path: Path | str, layout: str, remedy: str) -> Iterator[None]:
    """Turns any error while `path` is read into a DemoError that names the path, and what is missing there.

    Args:
      path: the file or directory that is read, or the place within it.
      layout: whose layout it should be in, such as "LIBERO's".
      remedy: how to get an intact one.
    """
    try:
        yield
    except DemoError:
        raise
    except KeyError as error:
        said = str(error.args[0]) if error.args else ""
        key = match[1] if (match := _NAMED.search(said)) else said[:120]
        raise DemoError(f"{path}: key missing ({key}), not in {layout} layout; {remedy}") from error
    except OSError as error:
        raise unreadable(path, error, remedy) from error
    except (ValueError, TypeError, AttributeError, IndexError, EOFError) as error:
        if lfs_pointer(path):
            raise DemoError(f"{path}: {LFS}") from error
        raise DemoError(f"{path}: damaged or truncated, not in {layout} layout; {remedy}") from error


def unreadable(path: Path | str, error: OSError, remedy: str) -> DemoError:
    """What to raise for a file that the system, or a library that calls it, cannot read."""
    if isinstance(error, FileNotFoundError):
        return DemoError(f"{error.filename or path}: no such file; {remedy}")
    if isinstance(error, PermissionError | IsADirectoryError):
        return DemoError(f"{path}: cannot be read ({(error.strerror or 'not permitted').lower()}); see to that first")
    return DemoError(f"{path}: {LFS}" if lfs_pointer(path) else f"{path}: damaged or truncated; {remedy}")


LFS = "only a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"


def lfs_pointer(path: Path | str) -> bool:
    """Whether a file is what Git leaves in place of a large one that was not fetched."""
    try:
        with open(path, "rb") as file:
            return file.read(24).startswith(b"version https://git-lfs")
    except OSError:
        return False
