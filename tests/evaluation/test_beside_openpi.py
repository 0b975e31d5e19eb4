"""pi0's benchmark beside openpi: the table says what was measured, and the batch is one that both sides read."""

import jax
import numpy as np
import pytest

from metalora_jax.evaluation.benchmarks import beside_openpi
from metalora_jax.policies.pi0.config import Pi0Config
from tests.policies import tiny_pi0

SIZES = dict(layers=2, vision_layers=1, vocab_size=64, text_hidden=16, text_mlp=16, expert_hidden=16, expert_mlp=16)


def figures(side, work, cpu):
    return dict(side=side, work=work, load=1.5, wall=2 * cpu, cpu=cpu, peak_gib=cpu / 10, loss=1.0)


@pytest.fixture
def raw():
    seconds = {("openpi", "step"): 30.0, ("openpi_frozen_vision", "step"): 20.0, ("expert", "warm"): 1.0}
    steps = [figures(*key, cpu * shift) for key, cpu in seconds.items() for shift in (0.9, 1.0, 1.2)]
    told = {side: {"trained": 1000 + i} for i, side in enumerate(beside_openpi.SIDES)}
    return {"sizes": SIZES, "frames": 1, "cores": 2, "steps": steps} | told


def test_the_table_has_medians_ratios_and_what_was_not_measured(raw):
    lines = {line.split(" | ")[0].strip("| "): line for line in beside_openpi.table(raw).splitlines()}
    warm = "| 1,002 | 1.00 (0.90 to 1.20) | 2.00 (1.80 to 2.40) | 30.0 | 20.0 | 15 | 0.1 | 3 |"
    assert lines["ours, expert only, warm"].endswith(warm)
    assert "not measured" in lines["ours, decoder + expert, warm"]


def test_what_is_kept_is_what_the_stages_return():
    config = tiny_pi0.tiny(cameras=2)
    model, found = tiny_pi0.build(cameras=2), beside_openpi.kept_bytes(config)
    features = model.encode(np.zeros((1, 2, config.image_size, config.image_size, 3), np.float32))
    tokens = np.zeros((1, config.max_tokens), np.int32)
    state = np.zeros((1, config.action_dim), np.float32)
    context = model.condition(features, np.ones((1, 2), bool), tokens, tokens == 0, state)
    assert found["context"] == sum(leaf.nbytes for leaf in jax.tree.leaves(context))
    assert 0 < found["features"] - features.nbytes < 200  # masks, tokens and state


def test_the_batch_has_openpis_shapes():
    found = beside_openpi.batch(Pi0Config.pi0_base(**SIZES), 2)
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == dict(
        images=(2, 3, 224, 224, 3),
        image_mask=(2, 3),
        tokens=(2, 48),
        token_mask=(2, 48),
        state=(2, 32),
        actions=(2, 50, 32),
    )


def test_operations_grow_with_what_each_side_computes():
    cost = beside_openpi.step_operations(Pi0Config.pi0_base())
    assert list(cost) == list(beside_openpi.SIDES)
    assert cost["openpi"] > cost["openpi_frozen_vision"] > cost["decoder_expert"] > cost["expert"]
    weights = 18 * (2048 * (2 * 2048 + 2 * 256) + 3 * 2048 * 16384)  # of the decoder, on 3 pictures and the prompt
    assert cost["openpi_frozen_vision"] > 3 * 2 * weights * (3 * 256 + 48)
