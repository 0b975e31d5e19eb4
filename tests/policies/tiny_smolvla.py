"""The smallest SmolVLA that still has every part, for tests that ask for behaviour and not for quality."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA


def tiny(**overrides) -> SmolVLAConfig:
    small = dict(
        image_size=16,
        patch_size=4,
        vision_hidden=16,
        vision_layers=2,
        vision_heads=2,
        vision_mlp=24,
        vocab_size=40,
        text_hidden=24,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        text_mlp=32,
        cameras=2,
        max_tokens=6,
        chunk_size=5,
        fake_image_token_id=38,
        global_image_token_id=39,
    )
    return SmolVLAConfig.nano(**(small | overrides))


def build(**overrides) -> SmolVLA:
    """A model with arbitrary weights, far from an initialisation: no bias is zero, no norm scale is one."""
    config, rng = tiny(**overrides), np.random.default_rng(0)
    graph, state = nnx.split(nnx.eval_shape(lambda: SmolVLA(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype), state))


class LowRank(nnx.Module):
    """Stands for any replacement of a linear map: called the same way, with a leading layer axis on what it adds."""

    def __init__(self, base: nnx.Linear, a: jax.Array, b: jax.Array):
        self.base, self.a, self.b = base, nnx.Param(a), nnx.Param(b)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.base(x) + x @ self.a[...] @ self.b[...]
