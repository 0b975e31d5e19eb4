"""Gemma's layers, once as decoder of the prefix and once as action expert (arXiv:2403.08295), as pi0 uses them."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.transformer import Attention, GatedMlp, attend, linear, rotate, scan_layers, stack_layers

Gate = jax.Array | None


class RMSNorm(nnx.Module):
    """Root-mean-square norm with a learned scale about one; in float32 up to the end."""

    def __init__(self, config: Pi0Config, width: int):
        self.eps = config.rms_norm_eps
        self.scale = nnx.Param(jnp.zeros(width, config.param_dtype))

    def __call__(self, x: jax.Array, condition: jax.Array | None) -> tuple[jax.Array, Gate]:
        """(B, T, width) -> the same, in x's dtype, and no gate; `condition` is that of `AdaptiveRMSNorm`."""
        scale = self.scale[...].astype(jnp.float32)
        return (_normed(x, self.eps) * (1 + scale)[None, None]).astype(x.dtype), None


class AdaptiveRMSNorm(nnx.Module):
    """Root-mean-square norm whose scale, shift and gate are linear in a condition: pi0.5's flow time.

    The gate multiplies the output of the sub-layer that the norm stands before. All three start at zero, so that a
    fresh layer is skipped.
    """

    def __init__(self, config: Pi0Config, width: int, rngs: nnx.Rngs):
        self.eps = config.rms_norm_eps
        self.modulation = linear(config, width, 3 * width, rngs)
        self.modulation.kernel.set_value(jnp.zeros_like(self.modulation.kernel[...]))

    def __call__(self, x: jax.Array, condition: jax.Array | None) -> tuple[jax.Array, Gate]:
        """(B, T, width) under a condition (B, width) -> the same, in x's dtype, and the gate (B, 1, width)."""
        assert condition is not None
        scale, shift, gate = jnp.split(self.modulation(condition)[:, None], 3, axis=-1)
        return (_normed(x, self.eps) * (1 + scale) + shift).astype(x.dtype), gate


def _normed(x: jax.Array, eps: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + eps)


class GemmaLayer(nnx.Module):
    """A pre-norm layer. What it attends to is the caller's affair."""

    def __init__(self, config: Pi0Config, width: int, mlp: int, rngs: nnx.Rngs, adaptive: bool = False):
        norm = partial(AdaptiveRMSNorm, rngs=rngs) if adaptive else RMSNorm
        self.input_layernorm = norm(config, width)
        self.self_attn = Attention(config, width, width, rngs)
        self.post_attention_layernorm = norm(config, width)
        self.mlp = GatedMlp(config, width, mlp, rngs, "gelu")

    def keys_and_values(self, z: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Rotated keys and values (B, T, kv_heads, head_dim) of normed tokens z (B, T, width)."""
        return rotate(self.self_attn.keys(z), positions), self.self_attn.values(z)

    def queries(self, z: jax.Array, positions: jax.Array) -> jax.Array:
        """Rotated queries (B, T, heads, head_dim) of normed tokens z (B, T, width)."""
        return rotate(self.self_attn.queries(z), positions)

    def finish(self, h: jax.Array, attended: jax.Array, gate: Gate, condition: jax.Array | None = None) -> jax.Array:
        """The two residual additions, given the attention's output (B, T, heads * head_dim) and its norm's gate."""
        h = h + _gated(self.self_attn.o_proj(attended), gate)
        z, gate = self.post_attention_layernorm(h, condition)
        return h + _gated(self.mlp(z), gate)


def _gated(y: jax.Array, gate: Gate) -> jax.Array:
    return y if gate is None else y * gate


class Decoder(nnx.Module):
    """Gemma over the prefix, kept for its keys and values.

    Nothing in the policy reads the output of the last layer, which therefore stands apart from the stack of the others:
    of its maps only k_proj and v_proj are computed. The rest of it, and `norm`, are kept for openpi's checkpoints.
    """

    def __init__(self, config: Pi0Config, rngs: nnx.Rngs):
        self.dtype = config.dtype
        self.embed_tokens = nnx.Embed(config.vocab_size, config.text_hidden, param_dtype=config.param_dtype, rngs=rngs)
        build = partial(GemmaLayer, config, config.text_hidden, config.text_mlp)
        self.layers = stack_layers(build, config.layers - 1, rngs)
        self.last = build(rngs)
        self.norm = RMSNorm(config, config.text_hidden)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """(B, L) int -> (B, L, text_hidden), scaled by the root of the width in the table's own dtype."""
        rows = self.embed_tokens(tokens)
        return (rows * jnp.asarray(rows.shape[-1] ** 0.5, rows.dtype)).astype(self.dtype)

    def __call__(self, h: jax.Array, mask: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs the prefix up to the last layer's keys and values.

        Args:
          h: (B, S, text_hidden) prefix embeddings.
          mask: (B, S, S) bool, True where the query (axis 1) may look at the key (axis 2).
          positions: (B, S) int.

        Returns:
          Each layer's rotated keys and its values, both (layers, B, S, kv_heads, head_dim).
        """
        h, before = self.run(h, mask, positions)
        last = self.last.keys_and_values(self.last.input_layernorm(h, None)[0], positions)
        if before is None:
            return last[0][None], last[1][None]
        return jnp.concatenate([before[0], last[0][None]]), jnp.concatenate([before[1], last[1][None]])

    def run(
        self, h: jax.Array, mask: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """All layers but the last: the hidden tokens, and keys and values of each layer (None for no layers)."""

        def step(layer: GemmaLayer, h: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            z, gate = layer.input_layernorm(h, None)
            k, v = layer.keys_and_values(z, positions)
            return layer.finish(h, attend(layer.queries(z, positions), k, v, mask), gate), (k, v)

        return (h, None) if self.layers is None else scan_layers(self.layers, step, h)


class Expert(nnx.Module):
    """Gemma over the suffix, whose every layer also reads the decoder's keys and values of the same layer."""

    def __init__(self, config: Pi0Config, rngs: nnx.Rngs):
        width = config.expert_hidden
        build = partial(GemmaLayer, config, width, config.expert_mlp, adaptive=config.pi05)
        self.layers = stack_layers(lambda rngs: build(rngs=rngs), config.layers, rngs)
        self.norm = AdaptiveRMSNorm(config, width, rngs) if config.pi05 else RMSNorm(config, width)

    def __call__(
        self,
        h: jax.Array,
        k: jax.Array,
        v: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        condition: jax.Array | None,
    ) -> jax.Array:
        """Runs the suffix through all layers.

        Args:
          h: (B, T, expert_hidden) suffix embeddings.
          k, v: (layers, B, S, kv_heads, head_dim), the prefix's rotated keys and its values at each layer.
          mask: (B, T, S + T) bool, True where a token of the suffix may look: at the prefix, and at the suffix.
          positions: (B, T) int, which go on from the prefix's.
          condition: (B, expert_hidden) of the norms, for pi0.5; else None.

        Returns:
          (B, T, expert_hidden), normed.
        """

        def step(layer: GemmaLayer, h: jax.Array, kv: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            z, gate = layer.input_layernorm(h, condition)
            own = layer.keys_and_values(z, positions)
            keys, values = (jnp.concatenate([x, y.astype(x.dtype)], axis=1) for x, y in zip(kv, own, strict=True))
            return layer.finish(h, attend(layer.queries(z, positions), keys, values, mask), gate, condition), None

        h, _ = scan_layers(self.layers, step, h, (k, v))
        return self.norm(h, condition)[0]
