"""From a camera's pixels and a person's words to what pi0 and pi0.5 read.

A policy was trained by openpi's rules or by lerobot's, which its config calls its style:

    openpi       pictures are smoothed where they shrink; the prompt's text is cleaned
    lerobot      pictures are not smoothed; pi0's text is taken as it is
    lerobot_0.4  the same, but pi0.5's prompt has a state of `action_dim` numbers, zeros last (bin 128), and not of the
                 robot's own; and the border of a picture that is not square is -3, outside the range of pictures (an
                 oversight there, since corrected)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from metalora_jax.policies import tokens
from metalora_jax.policies.pi0.config import LEROBOT_0_4, OPENPI, Pi0Config

PAD = 0  # token behind a prompt; it is masked
_REMEDY = (
    "shorten it, or make the base with room for it (metalora convert --max_tokens, config.model.max_tokens) or with "
    "leave to cut it, as openpi does (--cut_prompts, config.model.cut_prompts=True)"
)
_EDGES = np.linspace(-1, 1, 257)[:-1]  # of the bins that a state is written in


def prepare_image(images: jax.Array, size: int, style: str = OPENPI) -> jax.Array:
    """Resizes with the aspect kept, pads evenly with black, and changes the range.

    openpi resizes with PIL, which rounds to bytes in between; this does not, and differs by two levels of 255 at most.

    Args:
      images: (..., H, W, 3) float32 in [0, 1].
      size: side of the result [px].
      style: see above.

    Returns:
      (..., size, size, 3) float32 in [-1, 1]; padding is -1.
    """
    *batch, height, width, channels = images.shape
    ratio = max(height, width) / size
    resized = int(height / ratio), int(width / ratio)
    if resized != (height, width):
        images = jax.image.resize(images, (*batch, *resized, channels), "linear", antialias=style == OPENPI)
    before = [(size - length) // 2 for length in resized]
    pad = [(start, size - length - start) for start, length in zip(before, resized, strict=True)]
    border = -1.0 if style == LEROBOT_0_4 else 0.0
    return jnp.pad(images, [(0, 0)] * len(batch) + pad + [(0, 0)], constant_values=border) * 2 - 1


def prepare_frames(images: np.ndarray, size: int, style: str = OPENPI) -> np.ndarray:
    """Pictures (..., H, W, 3) uint8 -> (..., size, size, 3) float32 in [-1, 1], as `prepare_image` does."""
    if images.shape[-3:-1] == (size, size):
        return images.astype(np.float32) / 127.5 - 1.0
    return np.asarray(_prepared(images, size, style))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _prepared(images: np.ndarray, size: int, style: str) -> jax.Array:
    return prepare_image(jnp.asarray(images, jnp.float32) / 255.0, size, style)


def tokenize(
    config: Pi0Config, tokenizer: Tokenizer, instruction: str, states: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The prompts of n frames.

    Without the state in the prompt: the instruction, and a newline of its own. With it, "Task: <instruction>, State:
    <numbers>;" and a second line "Action: ", where each number is one of 256 even bins of [-1, 1]; a value below is -1.
    Both begin with the token `bos_token_id`. By lerobot's rules, one without the state is the instruction as it is, and
    a newline where it has none. With `cut_prompts`, what is beyond `max_tokens` is left out at the end, as in openpi:
    first the newline or "Action: ", then the state, then words.

    Args:
      config: of the policy.
      tokenizer: the policy's; what it adds by itself is left out.
      instruction: what the robot is told; underscores and line breaks become spaces.
      states: (n, state_dim) float32, normalised to [-1, 1].

    Returns:
      token ids (n, max_tokens) int32; mask (n, max_tokens) bool, True on real tokens.

    Raises:
      ValueError: the prompt is too long and may not be cut, or holds a token that the policy has no embedding for.
    """
    texts, ids = _prompts(config, tokenizer, instruction, states)
    if config.cut_prompts:
        ids = [known[: config.max_tokens] for known in ids]
    row, mask = tokens.rows(texts, ids, config.max_tokens, PAD, config.vocab_size, _REMEDY)
    shape = len(states), config.max_tokens
    return np.broadcast_to(row, shape), np.broadcast_to(mask, shape)


def excess(config: Pi0Config, tokenizer: Tokenizer, instruction: str, states: np.ndarray) -> np.ndarray:
    """By how many tokens the prompts of n frames are too long and will be cut: (n,) int; arguments as in `tokenize`."""
    if not config.cut_prompts:
        return np.zeros(len(states), int)
    _, ids = _prompts(config, tokenizer, instruction, states)
    return np.broadcast_to([max(0, len(known) - config.max_tokens) for known in ids], len(states))


def _prompts(
    config: Pi0Config, tokenizer: Tokenizer, instruction: str, states: np.ndarray
) -> tuple[list[str], list[list[int]]]:
    """Texts and tokens of every frame; a single one where it is the same for all."""
    text = instruction.strip().replace("_", " ").replace("\n", " ")
    begin = [] if config.bos_token_id is None else [config.bos_token_id]

    def encode(part: str) -> list[int]:
        return list(tokenizer.encode(part, add_special_tokens=False).ids)

    if config.state_in_prompt:
        if config.style == LEROBOT_0_4:
            states = np.pad(states, [(0, 0), (0, config.action_dim - states.shape[1])])
        bins = np.digitize(states, _EDGES) - 1
        texts = [f"Task: {text}, State: {' '.join(map(str, row))};\nAction: " for row in bins]
        return texts, [begin + encode(t) for t in texts]
    if config.style == OPENPI:
        return [text], [begin + encode(text) + encode("\n")]
    text = instruction.removesuffix("\n") + "\n"
    return [text], [begin + encode(text)]
