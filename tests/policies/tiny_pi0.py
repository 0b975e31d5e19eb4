"""The smallest pi0 and pi0.5 that still have every part, for tests that ask for behaviour and not for quality."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalora_jax.policies.pi0 import model
from metalora_jax.policies.pi0.config import Pi0Config


def tiny(**overrides) -> Pi0Config:
    small = dict(
        image_size=16,
        patch_size=8,
        vision_hidden=16,
        vision_layers=1,
        vision_heads=2,
        vision_mlp=24,
        vocab_size=40,
        text_hidden=24,
        text_mlp=32,
        layers=2,
        heads=4,
        head_dim=8,
        expert_hidden=16,
        expert_mlp=24,
        cameras=2,
        max_tokens=6,
        horizon=5,
        num_steps=2,
    )
    return Pi0Config.pi0_nano(**(small | overrides))


def build(**overrides) -> model.Pi0:
    """A model with arbitrary weights, far from an initialisation: no bias, no norm scale and no gate is zero."""
    config, rng = tiny(**overrides), np.random.default_rng(0)
    graph, state = nnx.split(nnx.eval_shape(lambda: model.build(config, rngs=nnx.Rngs(0))))
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype), state))
