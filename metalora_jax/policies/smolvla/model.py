"""SmolVLA as three stages: encode the images, condition on the rest of the prefix, give the action velocity.

The published forward pass runs prefix and suffix together, but no token of the prefix may look at an action. So the
prefix's keys and values do not depend on x_t or t, and the stages below compute the very same function: a `Context`
serves any number of flow samples, Euler steps and, where the adapters leave the prefix alone, gradient steps.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalora_jax.policies.policy import Policy, Stage
from metalora_jax.policies.siglip import VisionTower
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.expert import Expert
from metalora_jax.policies.smolvla.text import TextModel
from metalora_jax.policies.transformer import block_mask, linear, token_positions
from metalora_jax.types import Array, Sizes


class Prefix(NamedTuple):
    """The token sequence before the actions: images, instruction, state, and padding where `prefix_length` asks."""

    embeddings: jax.Array  # (B, S, text_hidden)
    valid: jax.Array  # (B, S) bool
    block: jax.Array  # (B, S) int, 1 where a new attention block begins (see `block_mask`)


class Context(NamedTuple):
    """What the action expert reads. Batch comes first in every leaf, so contexts index and stack like frames."""

    k: jax.Array  # (B, layers, S, kv_heads, head_dim), rotated to the token's position
    v: jax.Array  # (B, layers, S, kv_heads, head_dim)
    mask: jax.Array  # (B, S) bool, True on valid prefix tokens


class SmolVLA(Policy):
    """The vision-language-action policy of Shukor et al. (arXiv:2506.01844), after lerobot's implementation."""

    type: ClassVar[str] = "smolvla"
    frozen_below: ClassVar[Mapping[str, Stage]] = {
        "vision": "observation",
        "connector": "observation",
        "text": "features",
        "state_proj": "features",
        "expert": "context",
        "action_in_proj": "context",
        "action_time_mlp_in": "context",
        "action_time_mlp_out": "context",
        "action_out_proj": "context",
    }

    def __init__(self, config: SmolVLAConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.vision = VisionTower(config, rngs)
        folded = config.vision_hidden * config.pixel_shuffle**2
        self.connector = linear(config, folded, config.text_hidden, rngs, use_bias=False)
        self.text = TextModel(config, rngs)
        self.expert = Expert(config, rngs)
        # The heads work in float32 whatever the backbone's dtype.
        head = partial(linear, config, rngs=rngs, dtype="float32")
        width = config.expert_hidden
        self.state_proj = head(config.max_state_dim, config.text_hidden)
        self.action_in_proj = head(config.max_action_dim, width)
        self.action_time_mlp_in = head(2 * width, width)
        self.action_time_mlp_out = head(width, width)
        self.action_out_proj = head(width, config.max_action_dim)

    def encode(self, images: Array) -> jax.Array:
        """Vision tower and connector.

        Args:
          images: (B, C, H, W, 3) in [-1, 1], with H = W = config.image_size.

        Returns:
          (B, C, image_tokens, text_hidden) features, not yet scaled for the language model.

        Raises:
          ValueError: if the images have another size.
        """
        size = self.config.image_size
        if images.ndim != 5 or images.shape[2:] != (size, size, 3):
            raise ValueError(f"encode: images {images.shape} must be (B, C, {size}, {size}, 3); see prepare_images")
        hidden = self.vision(jnp.asarray(images).reshape(-1, *images.shape[2:]))
        features = self.connector(pixel_shuffle(hidden, self.config.pixel_shuffle))
        return features.reshape(*images.shape[:2], *features.shape[1:])

    def condition(self, features: Array, image_mask: Array, tokens: Array, token_mask: Array, state: Array) -> Context:
        """One pass of the language model over the prefix; arguments as in `embed_prefix`."""
        prefix = self.embed_prefix(features, image_mask, tokens, token_mask, state)
        mask = block_mask(prefix.valid, prefix.block)
        k, v = self.text(prefix.embeddings, mask, token_positions(prefix.valid))
        return Context(jnp.moveaxis(k, 0, 1), jnp.moveaxis(v, 0, 1), prefix.valid)

    def velocity(self, context: Context, x_t: jax.Array, t: jax.Array) -> jax.Array:
        """The action expert: velocity of the flow at noisy actions x_t (B, T, D) and flow time t (B,); (B, T, D)."""
        k, v = jnp.moveaxis(context.k, 1, 0), jnp.moveaxis(context.v, 1, 0)
        h = self.expert(self.embed_suffix(x_t, t), k, v, context.mask)
        return self.action_out_proj(h.astype(jnp.float32))

    @property
    def sizes(self) -> Sizes:
        """See `Policy.sizes`."""
        config = self.config
        return Sizes(
            state=config.max_state_dim,
            action=config.max_action_dim,
            chunk=config.chunk_size,
            image=config.image_size,
            cameras=config.cameras,
            tokens=config.max_tokens,
            vocabulary=config.vocab_size,
        )

    @property
    def num_steps(self) -> int:
        """See `Policy.num_steps`."""
        return self.config.num_steps

    def embed_prefix(
        self, features: Array, image_mask: Array, tokens: Array, token_mask: Array, state: Array
    ) -> Prefix:
        """Lays out the prefix: cameras in order, then the instruction, then one token of state.

        Args:
          features: (B, C, N, text_hidden) from `encode`.
          image_mask: (B, C) bool, False where a camera is absent.
          tokens: (B, L) int token ids.
          token_mask: (B, L) bool, False on padding.
          state: (B, max_state_dim), normalised, zero beyond the robot's own dimensions.

        Raises:
          ValueError: if the state has another width.
        """
        config = self.config
        features, tokens, state = jnp.asarray(features), jnp.asarray(tokens), jnp.asarray(state)
        image_mask, token_mask = jnp.asarray(image_mask), jnp.asarray(token_mask)
        if state.shape[-1] != config.max_state_dim:
            raise ValueError(f"embed_prefix: state {state.shape} must have width {config.max_state_dim}; see pad_width")
        batch, cameras, image_tokens, width = features.shape
        images = features * width**0.5
        valid = jnp.broadcast_to(image_mask[:, :, None], (batch, cameras, image_tokens))
        if config.add_image_special_tokens:
            # They are neither scaled nor masked, even around an absent camera: so the checkpoints were trained.
            before = self._special(batch, cameras, config.fake_image_token_id, config.global_image_token_id)
            after = self._special(batch, cameras, config.fake_image_token_id)
            images = jnp.concatenate([before, images, after], axis=2)
            valid = jnp.pad(valid, ((0, 0), (0, 0), (2, 1)), constant_values=True)
        words = self.text.embed_tokens(tokens) * width**0.5
        embeddings = jnp.concatenate(
            [images.reshape(batch, -1, width), words, self.state_proj(state)[:, None].astype(words.dtype)], axis=1
        )
        valid = jnp.concatenate([valid.reshape(batch, -1), token_mask, jnp.ones((batch, 1), bool)], axis=1)
        block = jnp.zeros_like(valid, jnp.int32).at[:, -1].set(1)
        missing = ((0, 0), (0, max(0, config.prefix_length - valid.shape[1])))
        return Prefix(jnp.pad(embeddings, (*missing, (0, 0))), jnp.pad(valid, missing), jnp.pad(block, missing))

    def embed_suffix(self, x_t: jax.Array, t: jax.Array) -> jax.Array:
        """Action tokens (B, T, expert_hidden) from noisy actions (B, T, D) and flow time t (B,).

        Raises:
          ValueError: if the actions have another width.
        """
        config = self.config
        if x_t.ndim != 3 or x_t.shape[-1] != config.max_action_dim:
            raise ValueError(f"embed_suffix: x_t {x_t.shape} must be (B, T, {config.max_action_dim}); see pad_width")
        actions = self.action_in_proj(x_t.astype(jnp.float32))
        time = time_embedding(t, config.expert_hidden, config.min_period, config.max_period)
        time = jnp.broadcast_to(time[:, None], actions.shape)
        hidden = jax.nn.silu(self.action_time_mlp_in(jnp.concatenate([actions, time], axis=2)))
        return self.action_time_mlp_out(hidden).astype(config.dtype)

    def _special(self, batch: int, cameras: int, *ids: int) -> jax.Array:
        tokens = self.text.embed_tokens(jnp.array(ids))
        return jnp.broadcast_to(tokens[None, None], (batch, cameras, *tokens.shape))


def time_embedding(t: jax.Array, width: int, min_period: float, max_period: float) -> jax.Array:
    """[sin | cos] of 2 pi t / period, with periods from min to max on a log scale; (B,) -> (B, width) float32."""
    periods = min_period * (max_period / min_period) ** np.linspace(0.0, 1.0, width // 2)
    frequency = 1.0 / periods
    # lerobot computes this in float64. Float32 does as well if whole turns are taken out of an exact product: t and
    # the frequency are cut into a short leading part and a small rest, and 12 bits times 12 bits is exact.
    leading = np.round(frequency * 16) / 16
    f, coarse_f, fine_f = (jnp.asarray(x, jnp.float32)[None] for x in (frequency, leading, frequency - leading))
    t = t.astype(jnp.float32)[:, None]
    coarse_t = jnp.round(t * 4096) / 4096
    exact = coarse_t * coarse_f
    angle = 2 * jnp.pi * ((exact - jnp.round(exact)) + coarse_t * fine_f + (t - coarse_t) * f)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


def pixel_shuffle(x: jax.Array, factor: int) -> jax.Array:
    """(B, n * n, D) -> (B, (n / factor)^2, factor^2 * D): each square of `factor`^2 tokens becomes one."""
    batch, tokens, width = x.shape
    side = round(tokens**0.5)
    x = x.reshape(batch, side // factor, factor, side // factor, factor, width)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, factor * factor * width)
