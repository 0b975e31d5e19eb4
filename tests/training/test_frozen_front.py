"""How far the frozen front is computed ahead."""

import jax
import numpy as np

from metalora_jax.policies.smolvla.model import Context
from metalora_jax.policies.stages import Features, context_of
from metalora_jax.training.frozen_front import frozen_banks
from tests.tiny_base import make_base, make_frames


def test_contexts_that_do_not_fit_are_left_to_each_step(monkeypatch, caplog):
    base, several = make_base(), [make_frames(), make_frames()]
    kept = frozen_banks(base, several, "context")
    assert all(isinstance(bank, Context) for bank in kept)
    whole = sum(leaf.nbytes for bank in kept for leaf in jax.tree.leaves(bank))
    monkeypatch.setenv("METALORA_CACHE_GIB", str((whole - 1) / 2**30))
    cut = frozen_banks(base, several, "context")
    assert all(isinstance(bank, Features) for bank in cut)
    assert "METALORA_CACHE_GIB" in caplog.text
    for bank, context in zip(cut, kept, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), context_of(base.model, bank), context)
