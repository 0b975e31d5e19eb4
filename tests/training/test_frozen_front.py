"""How far the frozen front is computed ahead."""

import jax
import numpy as np
from flax import nnx

from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import Context, SmolVLA
from metalora_jax.policies.stages import Features, advance, context_of
from metalora_jax.types import Observation
from tests.tiny_base import make_base, make_frames


def test_contexts_that_do_not_fit_are_left_to_each_step(monkeypatch, caplog):
    base, several = make_base(), [make_frames(), make_frames()]
    kept = frozen_outputs(base, several, "context")
    assert all(isinstance(frozen, Context) for frozen in kept)
    whole = sum(leaf.nbytes for frozen in kept for leaf in jax.tree.leaves(frozen))
    monkeypatch.setenv("METALORA_CACHE_GIB", str((whole - 1) / 2**30))
    cut = frozen_outputs(base, several, "context")
    assert all(isinstance(frozen, Features) for frozen in cut)
    assert "METALORA_CACHE_GIB" in caplog.text
    for frozen, context in zip(cut, kept, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), context_of(base.model, frozen), context)


def test_at_full_size_a_context_is_megabytes_and_features_are_not():
    config = SmolVLAConfig()
    size, shape = config.image_size, jax.ShapeDtypeStruct
    graph, phi = nnx.split(nnx.eval_shape(lambda: SmolVLA(config, rngs=nnx.Rngs(0))))
    observation = Observation(
        images=shape((1, 2, size, size, 3), np.float32),
        image_mask=shape((1, 2), bool),
        tokens=shape((1, 48), np.int32),
        token_mask=shape((1, 48), bool),
        state=shape((1, config.max_state_dim), np.float32),
    )

    def megabytes(stage):
        outputs = jax.eval_shape(lambda phi, seen: advance(nnx.merge(graph, phi), seen, stage), phi, observation)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(outputs)) / 2**20

    assert 6.5 < megabytes("context") < 7.5
    assert 0.4 < megabytes("features") < 0.6
