"""Pretraining: batches are pure in (seed, step), pictures of any size reach the policy as everywhere else."""

import jax
import numpy as np

from metalora_jax.data.frames import prepare
from metalora_jax.training import pretrain
from tests.tiny_base import make_frames


def test_batches_are_pure_in_seed_and_step():
    frames = make_frames()
    labelled = pretrain.label(frames)
    one, again, other = (pretrain.draw_batch(frames, labelled, 0, step, 6) for step in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one.target.actions, other.target.actions)


def test_larger_pictures_are_brought_to_the_policy_s_size_as_in_a_rollout():
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8)
    for size in (32, 16):
        seen = pretrain.augment(jax.random.key(0), images, size, shift=0, brightness=0.0)
        np.testing.assert_allclose(seen, prepare(images, size), atol=1e-6)
