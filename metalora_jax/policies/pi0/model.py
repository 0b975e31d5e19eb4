"""pi0 and pi0.5 as three stages: encode the images, condition on the rest of the prefix, give the action velocity.

openpi trains on prefix and suffix in one pass, but no token of the prefix may look at the suffix. So the prefix's keys
and values do not depend on x_t or t, and the stages below compute the very same function.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.gemma import Decoder, Expert
from metalora_jax.policies.policy import Policy, Stage
from metalora_jax.policies.siglip import VisionTower
from metalora_jax.policies.transformer import block_mask, linear, token_positions
from metalora_jax.types import Array, Sizes


class Prefix(NamedTuple):
    """The tokens before the suffix: images, then the prompt. All see one another."""

    embeddings: jax.Array  # (B, S, text_hidden)
    valid: jax.Array  # (B, S) bool


class Context(NamedTuple):
    """What the action expert reads. Batch comes first in every leaf, so contexts index and stack like frames."""

    k: jax.Array  # (B, layers, S, kv_heads, head_dim), rotated to the token's position
    v: jax.Array  # (B, layers, S, kv_heads, head_dim)
    mask: jax.Array  # (B, S) bool, True on valid prefix tokens
    state: jax.Array | None  # (B, action_dim), for pi0's state token; None in pi0.5


class Suffix(NamedTuple):
    """What the action expert runs on."""

    embeddings: jax.Array  # (B, T, expert_hidden); the last `horizon` tokens are the actions
    block: jax.Array  # (B, T) int, 1 where a new attention block begins (see `block_mask`)
    condition: jax.Array | None  # (B, expert_hidden) of pi0.5's norms; None in pi0


class Pi0(Policy):
    """The vision-language-action policy of Black et al. (arXiv:2410.24164), after openpi's implementation."""

    type: ClassVar[str] = "pi0"
    frozen_below: ClassVar[Mapping[str, Stage]] = {
        "vision": "observation",
        "connector": "observation",
        "text": "features",
        "state_proj": "context",
        "expert": "context",
        "action_in_proj": "context",
        "action_time_mlp_in": "context",
        "action_time_mlp_out": "context",
        "action_out_proj": "context",
    }

    def __init__(self, config: Pi0Config, *, rngs: nnx.Rngs):
        """Raises ValueError where `config.pi05` is that of another type; `build` takes the class that fits."""
        if config.pi05 != (self.type == "pi05"):
            raise ValueError(f"a {self.type} policy cannot have Pi0Config(pi05={config.pi05})")
        self.config = config
        self.vision = VisionTower(config, rngs, embedding_dtype="float32")
        self.connector = linear(config, config.vision_hidden, config.text_hidden, rngs)
        self.text = Decoder(config, rngs)
        self.expert = Expert(config, rngs)
        # The projections work in float32 whatever the backbone's dtype.
        project = partial(linear, config, rngs=rngs, dtype="float32")
        self.action_in_proj = project(config.action_dim, config.expert_hidden)
        self.action_out_proj = project(config.expert_hidden, config.action_dim)
        self._projections(project, config.expert_hidden)

    def _projections(self, project: partial[nnx.Linear], width: int) -> None:
        self.state_proj = project(self.config.action_dim, width)
        self.action_time_mlp_in = project(2 * width, width)
        self.action_time_mlp_out = project(width, width)

    def encode(self, images: Array) -> jax.Array:
        """Vision tower, and its projection to the decoder's width.

        Args:
          images: (B, C, H, W, 3) in [-1, 1], with H = W = config.image_size.

        Returns:
          (B, C, image_tokens, text_hidden).

        Raises:
          ValueError: if the images have another size.
        """
        size = self.config.image_size
        if images.ndim != 5 or images.shape[2:] != (size, size, 3):
            raise ValueError(f"encode: images {images.shape} must be (B, C, {size}, {size}, 3); see prepare_images")
        features = self.connector(self.vision(jnp.asarray(images, jnp.float32).reshape(-1, size, size, 3)))
        return features.reshape(*images.shape[:2], *features.shape[1:])

    def condition(self, features: Array, image_mask: Array, tokens: Array, token_mask: Array, state: Array) -> Context:
        """One pass of the decoder over the prefix.

        Args:
          features, image_mask, tokens, token_mask: see `embed_prefix`.
          state: (B, action_dim), normalised, zero beyond the robot's own dimensions. pi0.5 does not read it.

        Raises:
          ValueError: if the state has another width.
        """
        if state.shape[-1] != self.config.action_dim:
            raise ValueError(f"condition: state {state.shape} must have width {self.config.action_dim}")
        prefix = self.embed_prefix(features, image_mask, tokens, token_mask)
        mask = block_mask(prefix.valid, jnp.zeros_like(prefix.valid, jnp.int32))
        k, v = self.text(prefix.embeddings, mask, token_positions(prefix.valid))
        return Context(jnp.moveaxis(k, 0, 1), jnp.moveaxis(v, 0, 1), prefix.valid, self._kept(jnp.asarray(state)))

    def _kept(self, state: jax.Array) -> jax.Array | None:
        return state

    def velocity(self, context: Context, x_t: jax.Array, t: jax.Array) -> jax.Array:
        """The action expert: velocity of the flow at noisy actions x_t (B, T, D) and flow time t (B,); (B, T, D)."""
        hidden = self.run_suffix(context, self.embed_suffix(context.state, x_t, t))
        return self.action_out_proj(hidden[:, -x_t.shape[1] :].astype(jnp.float32))

    @property
    def sizes(self) -> Sizes:
        """See `Policy.sizes`."""
        config = self.config
        return Sizes(
            state=config.action_dim,
            action=config.action_dim,
            chunk=config.horizon,
            image=config.image_size,
            cameras=config.cameras,
            tokens=config.max_tokens,
            vocabulary=config.vocab_size,
        )

    @property
    def num_steps(self) -> int:
        """See `Policy.num_steps`."""
        return self.config.num_steps

    def embed_prefix(self, features: Array, image_mask: Array, tokens: Array, token_mask: Array) -> Prefix:
        """Lays out the prefix: cameras in the order of `config.CAMERAS`, then the prompt.

        Args:
          features: (B, C, N, text_hidden) from `encode`.
          image_mask: (B, C) bool, False where a camera is absent.
          tokens: (B, L) int token ids.
          token_mask: (B, L) bool, False on padding.
        """
        features, image_mask = jnp.asarray(features), jnp.asarray(image_mask)
        batch, _, image_tokens, width = features.shape
        words = self.text.embed(jnp.asarray(tokens))
        embeddings = jnp.concatenate([features.reshape(batch, -1, width), words], axis=1)
        seen = jnp.repeat(image_mask, image_tokens, axis=1)
        return Prefix(embeddings, jnp.concatenate([seen, jnp.asarray(token_mask)], axis=1))

    def embed_suffix(self, state: jax.Array | None, x_t: jax.Array, t: jax.Array) -> Suffix:
        """One token of state, then the actions, each with the flow time mixed in.

        Args:
          state: (B, action_dim).
          x_t: (B, T, action_dim) noisy actions.
          t: (B,) flow time.

        Raises:
          ValueError: if the actions have another width.
        """
        assert state is not None
        actions, time = self._embed_actions(x_t, t)
        time = jnp.broadcast_to(time[:, None], actions.shape)
        hidden = jax.nn.silu(self.action_time_mlp_in(jnp.concatenate([actions, time], axis=2)))
        known = self.state_proj(state.astype(jnp.float32))[:, None]
        embeddings = jnp.concatenate([known, self.action_time_mlp_out(hidden)], axis=1)
        # The state sees the prefix and itself; the actions see all of that, and one another.
        block = jnp.zeros(embeddings.shape[:2], jnp.int32).at[:, :2].set(1)
        return Suffix(embeddings.astype(self.config.dtype), block, None)

    def _embed_actions(self, x_t: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Projected actions (B, T, expert_hidden) and the embedding of the flow time (B, expert_hidden)."""
        config = self.config
        if x_t.ndim != 3 or x_t.shape[-1] != config.action_dim:
            raise ValueError(f"embed_suffix: x_t {x_t.shape} must be (B, T, {config.action_dim}); see pad_width")
        time = time_embedding(t, config.expert_hidden, config.min_period, config.max_period)
        return self.action_in_proj(x_t.astype(jnp.float32)), time

    def run_suffix(self, context: Context, suffix: Suffix) -> jax.Array:
        """The expert over the suffix, (B, T, expert_hidden)."""
        own = block_mask(jnp.ones_like(suffix.block, bool), suffix.block)
        batch, tokens = suffix.block.shape
        to_prefix = jnp.broadcast_to(context.mask[:, None], (batch, tokens, context.mask.shape[1]))
        positions = context.mask.sum(axis=1, keepdims=True) + jnp.arange(tokens)[None]
        k, v = jnp.moveaxis(context.k, 1, 0), jnp.moveaxis(context.v, 1, 0)
        mask = jnp.concatenate([to_prefix, own], axis=2)
        return self.expert(suffix.embeddings, k, v, mask, positions, suffix.condition)


class Pi05(Pi0):
    """pi0.5 (arXiv:2504.16054): the state is in the prompt, and the flow time modulates the expert's norms."""

    type: ClassVar[str] = "pi05"
    frozen_below: ClassVar[Mapping[str, Stage]] = {
        "vision": "observation",
        "connector": "observation",
        "text": "features",
        "expert": "context",
        "action_in_proj": "context",
        "time_mlp_in": "context",
        "time_mlp_out": "context",
        "action_out_proj": "context",
    }

    def _projections(self, project: partial[nnx.Linear], width: int) -> None:
        self.time_mlp_in = project(width, width)
        self.time_mlp_out = project(width, width)

    def _kept(self, state: jax.Array) -> None:
        return None

    def embed_suffix(self, state: jax.Array | None, x_t: jax.Array, t: jax.Array) -> Suffix:
        """The actions alone, and a condition made of the flow time; arguments as in `Pi0.embed_suffix`."""
        actions, time = self._embed_actions(x_t, t)
        condition = jax.nn.silu(self.time_mlp_out(jax.nn.silu(self.time_mlp_in(time))))
        block = jnp.zeros(actions.shape[:2], jnp.int32).at[:, 0].set(1)
        return Suffix(actions.astype(self.config.dtype), block, condition)


def time_embedding(t: jax.Array, width: int, min_period: float, max_period: float) -> jax.Array:
    """[sin | cos] of 2 pi t / period, with periods from min to max on a log scale; (B,) -> (B, width) float32.

    In float32 throughout, as openpi has it: its rounding, 1e-4 at the shortest period, is what the published weights
    were trained with.
    """
    period = min_period * (max_period / min_period) ** jnp.linspace(0.0, 1.0, width // 2)
    angle = t.astype(jnp.float32)[:, None] * (1.0 / period * 2 * jnp.pi)[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


def build(config: Pi0Config, *, rngs: nnx.Rngs) -> Pi0:
    """A policy of the type that `config.pi05` says, with fresh weights."""
    return (Pi05 if config.pi05 else Pi0)(config, rngs=rngs)
