"""The parts that SmolVLA's language model and its expert share: the norm and the Llama layer."""

import jax
import jax.numpy as jnp
from flax import nnx

from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.transformer import Attention, GatedMlp


class RMSNorm(nnx.Module):
    """Root-mean-square norm: normalised in float32, cast back, then scaled."""

    def __init__(self, config: SmolVLAConfig, width: int):
        self.eps = config.rms_norm_eps
        self.scale = nnx.Param(jnp.ones(width, config.param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., width) -> (..., width), in x's dtype."""
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        scale = self.scale[...].astype(x.dtype)
        return wide.astype(x.dtype) * scale.reshape((1,) * (x.ndim - 1) + (-1,))


class LlamaLayer(nnx.Module):
    """A pre-norm Llama layer. What it attends to is the caller's affair: the three uses in SmolVLA differ in that."""

    def __init__(self, config: SmolVLAConfig, width: int, mlp: int, rngs: nnx.Rngs, kv_input: int | None = None):
        self.input_layernorm = RMSNorm(config, width)
        self.self_attn = Attention(config, width, kv_input or width, rngs)
        self.post_attention_layernorm = RMSNorm(config, width)
        self.mlp = GatedMlp(config, width, mlp, rngs, "silu")

    def finish(self, h: jax.Array, attended: jax.Array) -> jax.Array:
        """The two residual additions, given the attention's output (B, T, heads * head_dim)."""
        h = h + self.self_attn.o_proj(attended)
        return h + self.mlp(self.post_attention_layernorm(h))
