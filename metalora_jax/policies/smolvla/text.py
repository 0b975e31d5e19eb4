"""The language model: Llama layers over the prefix, kept for their keys and values."""

from functools import partial

import jax
from flax import nnx

from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.layers import LlamaLayer, attend, rotate, scan_layers, stack_layers


class TextModel(nnx.Module):
    """SmolLM2's first layers. Its final norm and head are not here: nothing in the policy reads them."""

    def __init__(self, config: SmolVLAConfig, rngs: nnx.Rngs):
        self.embed_tokens = nnx.Embed(
            config.vocab_size, config.text_hidden, dtype=config.dtype, param_dtype=config.param_dtype, rngs=rngs
        )
        build = partial(LlamaLayer, config, config.text_hidden, config.text_mlp)
        self.layers = stack_layers(build, config.layers, rngs)

    def __call__(self, h: jax.Array, mask: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs the prefix through all layers.

        Args:
          h: (B, S, text_hidden) prefix embeddings.
          mask: (B, S, S) bool, True where the query (axis 1) may look at the key (axis 2).
          positions: (B, S) int.

        Returns:
          Each layer's rotated keys and its values, both (layers, B, S, kv_heads, head_dim). The last hidden state is
          not returned, and nothing in the last layer but its k_proj, v_proj and input norm ever gets a gradient.
        """

        def step(layer: LlamaLayer, h: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            z = layer.input_layernorm(h)
            q = rotate(layer.self_attn.queries(z), positions)
            k = rotate(layer.self_attn.keys(z), positions)
            v = layer.self_attn.values(z)
            return layer.finish(h, attend(q, k, v, mask)), (k, v)

        return scan_layers(self.layers, step, h)[1]
