"""What every source of demonstrations owes its reader: whole, finite, well-shaped arrays, or an error with a name."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from metalora_jax.types import Demo


class DemoError(ValueError):
    """Demonstrations that cannot be used; the message names the file, the key and the remedy."""


def checked(where: str, instruction: object, images: np.ndarray, state: np.ndarray, actions: np.ndarray) -> Demo:
    """A Demo of arrays as a file holds them, or a DemoError that begins with `where`.

    Args:
      where: the file, and the demonstration within it.
      instruction: what the robot was told.
      images: (T, C, H, W, 3) uint8, as policies see them.
      state: (T, state_dim), any float.
      actions: (T, action_dim), any float.
    """
    if not isinstance(instruction, str) or not instruction.strip():
        raise DemoError(f"{where}: the instruction is {instruction!r}, wanted words; mend it or drop the demonstration")
    for name, values in (("actions", actions), ("state", state)):
        if not np.issubdtype(values.dtype, np.floating) or values.ndim != 2 or values.shape[1] == 0:
            raise DemoError(
                f"{where}: {name} are {values.dtype} {values.shape}, wanted floats (T, dimensions); convert them"
            )
    steps = len(actions)
    if steps == 0 or len(images) != steps or len(state) != steps:
        raise DemoError(f"{where}: {steps} actions, {len(images)} images and {len(state)} states; record it anew")
    if images.dtype != np.uint8 or images.ndim != 5 or images.shape[-1] != 3:
        raise DemoError(
            f"{where}: images are {images.dtype} {images.shape}, wanted uint8 (T, C, H, W, 3), 0 to 255; convert them"
        )
    if images.shape[1] and 0 in images.shape:
        raise DemoError(f"{where}: images have no pixels, {images.shape}; record it anew")
    for name, values in (("actions", actions), ("state", state)):
        sound = np.abs(values.astype(np.float64)) <= _LARGEST  # NaN is not
        if not sound.all():
            step, k = np.argwhere(~sound)[0]
            what = f"{name} at step {step} is not finite, or out of all proportion ({values[step, k]:g})"
            raise DemoError(f"{where}: {what}; drop or record the demonstration anew")
    return Demo(instruction, images, state.astype(np.float32), actions.astype(np.float32))


def stack_cameras(where: str, cameras: Sequence[str], pictures: Sequence[np.ndarray], steps: int) -> np.ndarray:
    """Pictures (T, H, W, 3) of each camera -> (T, C, H, W, 3); (steps, 0, 0, 0, 3) where no camera is wanted."""
    if not cameras:
        return np.zeros((steps, 0, 0, 0, 3), np.uint8)
    shapes = {camera: picture.shape for camera, picture in zip(cameras, pictures, strict=True)}
    if len(set(shapes.values())) > 1:
        raise DemoError(f"{where}: cameras differ in shape: {shapes}; ask for those that agree, or resize them")
    return np.stack(pictures, axis=1)


_LARGEST = 1e9  # beyond any robot's unit; float32, in which demonstrations are kept, ends at 3e38


@contextlib.contextmanager
def reading(path: Path | str, layout: str, remedy: str) -> Iterator[None]:
    """What goes wrong while `path` is read becomes a DemoError that names it.

    Args:
      path: the file or directory that is read, or the place within it.
      layout: whose layout it should be in, such as "LIBERO's".
      remedy: how to get a sound one.
    """
    try:
        yield
    except DemoError:
        raise
    except FileNotFoundError as error:
        raise DemoError(f"{error.filename or path}: no such file; {remedy}") from error
    except KeyError as error:
        raise DemoError(f"{path}: key missing ({str(error)[:120]}), not in {layout} layout; {remedy}") from error
    except (OSError, ValueError, TypeError, AttributeError, IndexError, EOFError) as error:
        raise DemoError(f"{path}: damaged or truncated ({str(error)[:120]}); {remedy}") from error
