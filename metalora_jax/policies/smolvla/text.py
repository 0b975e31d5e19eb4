"""The language model: Llama layers over the prefix, kept for their keys and values."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.layers import LlamaLayer
from metalora_jax.policies.transformer import attend, rotate, scan_layers, stack_layers


class TextModel(nnx.Module):
    """SmolLM2's first layers. Its final norm and head are not here: nothing in the policy reads them.

    The last layer stands apart from the stack of the others, because nothing reads its output either: of all its maps
    only k_proj and v_proj act on the policy, so only they are computed and only they can learn.
    """

    def __init__(self, config: SmolVLAConfig, rngs: nnx.Rngs):
        self.embed_tokens = nnx.Embed(
            config.vocab_size, config.text_hidden, dtype=config.dtype, param_dtype=config.param_dtype, rngs=rngs
        )
        build = partial(LlamaLayer, config, config.text_hidden, config.text_mlp)
        self.layers = stack_layers(build, config.layers - 1, rngs)
        self.last = build(rngs)

    def __call__(self, h: jax.Array, mask: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs the prefix through all layers.

        Args:
          h: (B, S, text_hidden) prefix embeddings.
          mask: (B, S, S) bool, True where the query (axis 1) may look at the key (axis 2).
          positions: (B, S) int.

        Returns:
          Each layer's rotated keys and its values, both (layers, B, S, kv_heads, head_dim).
        """

        def keys_and_values(layer: LlamaLayer, z: jax.Array) -> tuple[jax.Array, jax.Array]:
            return rotate(layer.self_attn.keys(z), positions), layer.self_attn.values(z)

        def step(layer: LlamaLayer, h: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            z = layer.input_layernorm(h)
            q = rotate(layer.self_attn.queries(z), positions)
            k, v = keys_and_values(layer, z)
            return layer.finish(h, attend(q, k, v, mask)), (k, v)

        before: tuple[jax.Array, ...] = ()
        if self.layers is not None:
            h, before = scan_layers(self.layers, step, h)
        last = keys_and_values(self.last, self.last.input_layernorm(h))
        if not before:
            return last[0][None], last[1][None]
        return jnp.concatenate([before[0], last[0][None]]), jnp.concatenate([before[1], last[1][None]])
