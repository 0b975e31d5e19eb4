"""The action expert: Llama layers over the action tokens that read the language model's keys and values."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.layers import LlamaLayer, RMSNorm
from metalora_jax.policies.transformer import attend, rotate, scan_layers, stack_layers


class Expert(nnx.Module):
    """Self- and cross-attention layers, interleaved.

    The two kinds differ in the shape of k_proj and v_proj, so each kind is a stack of its own. Layers come in groups of
    one self-attention layer and n - 1 cross-attention layers; the scan runs over groups, a last incomplete group
    follows it.
    """

    def __init__(self, config: SmolVLAConfig, rngs: nnx.Rngs):
        self.group = config.group
        build = partial(LlamaLayer, config, config.expert_hidden, config.expert_mlp)
        self.self_layers = stack_layers(build, len(config.self_layers), rngs)
        self.cross_layers = stack_layers(partial(build, kv_input=config.kv_width), len(config.cross_layers), rngs)
        self.norm = RMSNorm(config, config.expert_hidden)

    def __call__(self, h: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
        """Runs the action tokens through all layers.

        Args:
          h: (B, T, expert_hidden) action embeddings.
          k, v: (layers, B, S, kv_heads, head_dim), the prefix's rotated keys and its values at each layer.
          mask: (B, S) bool, True on the valid tokens of the prefix.

        Returns:
          (B, T, expert_hidden), normed.
        """
        batch, tokens = h.shape[:2]
        local = jnp.broadcast_to(jnp.arange(tokens)[None], (batch, tokens))
        positions = mask.sum(axis=1, keepdims=True) + local
        full_mask = suffix_mask(mask, tokens)
        prefix_mask = full_mask[:, :, : mask.shape[1]]

        def self_layer(layer: LlamaLayer, h: jax.Array, kv: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            z = layer.input_layernorm(h)
            q = rotate(layer.self_attn.queries(z), positions)
            keys = jnp.concatenate([kv[0], rotate(layer.self_attn.keys(z), positions).astype(kv[0].dtype)], axis=1)
            values = jnp.concatenate([kv[1], layer.self_attn.values(z).astype(kv[1].dtype)], axis=1)
            return layer.finish(h, attend(q, keys, values, full_mask)), None

        def cross_layer(layer: LlamaLayer, h: jax.Array, kv: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            # Only the query is rotated, by positions that start at 0: the keys carry the prefix's rotation already.
            q = rotate(layer.self_attn.queries(layer.input_layernorm(h)), local)
            keys, values = (x.reshape(*x.shape[:2], -1) for x in kv)
            keys, values = layer.self_attn.keys(keys), layer.self_attn.values(values)
            return layer.finish(h, attend(q, keys, values, prefix_mask)), None

        if self.cross_layers is None:
            return self.norm(scan_layers(self.self_layers, self_layer, h, (k, v))[0])
        if self.self_layers is None:
            return self.norm(scan_layers(self.cross_layers, cross_layer, h, (k, v))[0])

        self_graph, self_state = nnx.split(self.self_layers)
        cross_graph, cross_state = nnx.split(self.cross_layers)

        def self_of(state: Any, h: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return self_layer(nnx.merge(self_graph, state), h, (k, v))[0]

        def cross_of(state: Any, h: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return scan_layers(nnx.merge(cross_graph, state), cross_layer, h, (k, v))[0]

        def one_group(h: jax.Array, group: Any) -> tuple[jax.Array, None]:
            self_state, cross_state, k, v = group
            h = self_of(self_state, h, k[0], v[0])
            if self.group == 2:  # without a loop, which would copy the layer's weights
                return cross_layer(nnx.merge(cross_graph, cross_state), h, (k[1], v[1]))
            return cross_of(cross_state, h, k[1:], v[1:]), None

        groups, rest = divmod(k.shape[0], self.group)
        in_groups = partial(_fold, groups=groups)
        h, _ = jax.lax.scan(
            one_group,
            h,
            (
                jax.tree.map(lambda x: x[:groups], self_state),
                jax.tree.map(partial(in_groups, size=self.group - 1), cross_state),
                in_groups(k, size=self.group),
                in_groups(v, size=self.group),
            ),
        )
        if rest:
            k, v = k[-rest:], v[-rest:]
            h = self_of(jax.tree.map(lambda x: x[groups], self_state), h, k[0], v[0])
            h = cross_of(jax.tree.map(lambda x: x[groups * (self.group - 1) :], cross_state), h, k[1:], v[1:])
        return self.norm(h)


def suffix_mask(prefix_valid: jax.Array, tokens: int) -> jax.Array:
    """What `tokens` action tokens may look at: the valid prefix (B, S), and themselves causally; (B, T, S + T)."""
    batch, prefix = prefix_valid.shape
    to_prefix = jnp.broadcast_to(prefix_valid[:, None], (batch, tokens, prefix))
    causal = jnp.broadcast_to(jnp.tri(tokens, dtype=bool)[None], (batch, tokens, tokens))
    return jnp.concatenate([to_prefix, causal], axis=2)


def _fold(x: jax.Array, groups: int, size: int) -> jax.Array:
    """(layers, ...) -> (groups, size, ...), or (groups, ...) for size 1, leaving off what does not fill a group."""
    full = x[: groups * size]
    return full if size == 1 else full.reshape(groups, size, *x.shape[1:])
