"""From a camera's pixels and a person's words to what SmolVLA reads; units as in `types.Observation`."""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from metalora_jax.policies import tokens
from metalora_jax.policies.smolvla.config import SmolVLAConfig


def prepare_image(image: jax.Array, size: int) -> jax.Array:
    """Resizes with its aspect kept, pads on the left and on top with black, and changes the range.

    Args:
      image: (..., H, W, 3) float in [0, 1].
      size: side of the result [px].

    Returns:
      (..., size, size, 3) float32 in [-1, 1]; padding is -1.

    Raises:
      ValueError: if it is not a float image with three channels last.
    """
    if image.ndim < 3 or image.shape[-1] != 3:
        raise ValueError(f"prepare_image: image {image.shape} must be (..., H, W, 3); move the channels last")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"prepare_image: image is {image.dtype}; divide by 255 to get floats in [0, 1]")
    *batch, height, width, channels = image.shape
    ratio = max(height, width) / size
    resized = int(height / ratio), int(width / ratio)
    # No antialiasing even when shrinking: that is how the policy was trained.
    image = jax.image.resize(image.astype(jnp.float32), (*batch, *resized, channels), "bilinear", antialias=False)
    pad = [(0, 0)] * len(batch) + [(size - resized[0], 0), (size - resized[1], 0), (0, 0)]
    return jnp.pad(image, pad) * 2 - 1


def prepare_frames(images: np.ndarray, size: int) -> np.ndarray:
    """Pictures (..., H, W, 3) uint8 -> (..., size, size, 3) float32 in [-1, 1], as `prepare_image` does."""
    if images.shape[-3:-1] == (size, size):
        return images.astype(np.float32) / 127.5 - 1.0
    return np.asarray(_prepared(images, size))


@functools.partial(jax.jit, static_argnums=1)
def _prepared(images: np.ndarray, size: int) -> jax.Array:
    return prepare_image(jnp.asarray(images, jnp.float32) / 255.0, size)


def prepare_images(cameras: Sequence[jax.Array | None], size: int) -> tuple[jax.Array, jax.Array]:
    """Stacks the cameras of B frames, which may differ in size and may be absent.

    Args:
      cameras: for each camera (B, H, W, 3) in [0, 1], or None where there is none.
      size: side of the result [px].

    Returns:
      images (B, C, size, size, 3) in [-1, 1], an absent camera all -1; image_mask (B, C) bool, False where absent.

    Raises:
      ValueError: if there is no camera at all.
    """
    present = [image for image in cameras if image is not None]
    if not present:
        raise ValueError("prepare_images: no camera is present; the policy needs at least one image")
    batch = present[0].shape[0]
    blank = jnp.full((batch, size, size, 3), -1.0)
    images = [blank if image is None else prepare_image(image, size) for image in cameras]
    mask = jnp.array([[image is not None for image in cameras]])
    return jnp.stack(images, axis=1), jnp.broadcast_to(mask, (batch, len(cameras)))


def pad_width(x: np.ndarray, width: int, name: str = "state") -> np.ndarray:
    """Zero-pads the last axis of a state or of actions to `width`.

    Raises:
      ValueError: if x is wider than that; `name` says which input it was.
    """
    if x.shape[-1] > width:
        raise ValueError(f"pad_width: {name} has width {x.shape[-1]}, the policy takes at most {width}")
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])


def prepare_text(
    tokenizer: Tokenizer,
    instructions: Sequence[str],
    config: SmolVLAConfig,
    truncate: Literal["left"] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokenizes instructions to a fixed length; each ends in a newline, as in training.

    Args:
      tokenizer: the one that belongs to the weights.
      instructions: B texts.
      config: gives max_tokens, pad_token_id and vocab_size.
      truncate: "left" drops the beginning of a text that is too long, as lerobot does; None refuses it.

    Returns:
      tokens (B, max_tokens) int32, padded on the right; token_mask (B, max_tokens) bool, True on real tokens.

    Raises:
      ValueError: if an instruction is too long, or holds a token that the policy has no embedding for.
    """
    if truncate not in (None, "left"):
        raise ValueError(f'prepare_text: truncate={truncate!r} is unknown; choose "left" or None')
    if tokenizer.truncation or tokenizer.padding:
        raise ValueError("prepare_text: the tokenizer truncates or pads by itself; call no_truncation(), no_padding()")
    ids = [tokenizer.encode(text if text.endswith("\n") else text + "\n").ids for text in instructions]
    if truncate == "left":
        ids = [known[-config.max_tokens :] for known in ids]
    try:
        return tokens.rows(instructions, ids, config.max_tokens, config.pad_token_id, config.vocab_size)
    except ValueError as error:
        raise ValueError(f"prepare_text: {error}") from None
