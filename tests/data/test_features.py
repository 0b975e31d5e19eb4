"""The frozen front: cached or not, the same loss and the same gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from metalora_jax.adaptation import features
from metalora_jax.adaptation.learner import learner, loss_fn
from metalora_jax.adapters import LoRA, Rule
from metalora_jax.data.frames import Frames, rows_and_labels
from metalora_jax.policies.smolvla.model import SmolVLA
from metalora_jax.policies.stages import advance
from metalora_jax.types import Batch
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos, make_frames

PATTERNS = {
    "observation": "vision/layers/.*|connector|expert/.*",
    "features": r"text/layers/self_attn/(k|v)_proj|action_.*",
    "context": r"expert/.*|action_.*",
}


@pytest.mark.parametrize("stage", PATTERNS)
def test_bank_changes_neither_loss_nor_gradient(stage, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 24)  # does not divide the number of frames
    base, frames = make_base(), make_frames()
    learn = learner(base, (Rule(PATTERNS[stage], LoRA(rank=2, b_std=0.1)),), jax.random.key(0))
    assert learn.stage == stage
    graph, params = nnx.split(base.model)
    done: list[int] = []
    frozen = features.compute(frames, graph, params, stage, done.append)
    count = len(frames.state)
    assert sum(done) == count
    assert all(leaf.shape[0] == count for leaf in jax.tree.leaves(frozen))

    rows, labels = rows_and_labels(frames, "push", [3, 0])
    rows, target = rows[::3], jax.tree.map(lambda x: x[::3], labels)
    direct = jax.jit(lambda seen: advance(base.model, seen, stage))(frames.observe(rows))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[rows], b, atol=2e-6), frozen, direct)

    gradient = jax.jit(jax.value_and_grad(loss_fn(learn, draws=2)))
    cached = jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), frozen)
    key = jax.random.key(1)
    want_loss, want = gradient(learn.theta, Batch(frames.observe(rows), target), key)
    have_loss, have = gradient(learn.theta, Batch(cached, target), key)
    np.testing.assert_allclose(have_loss, want_loss, rtol=1e-6)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want))
    assert scale > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / scale, b / scale, atol=5e-6), have, want)


@pytest.mark.parametrize(
    ("paths", "stage"),
    [
        (["expert/cross_layers/self_attn/q_proj", "action_out_proj"], "context"),
        (["action_in_proj", "state_proj"], "features"),
        (["text/layers/mlp/up_proj"], "features"),
        (["connector", "action_in_proj"], "observation"),
        (["vision/layers/fc1", "text/layers/mlp/up_proj"], "observation"),
        ([], "context"),
    ],
)
def test_the_lowest_adapter_decides(paths, stage):
    assert SmolVLA.stage_of(paths) == stage


def test_a_path_of_unknown_stage_is_refused():
    with pytest.raises(ValueError, match=r"'llm/layers/q_proj' is in no known part of a smolvla policy; its parts are"):
        SmolVLA.stage_of(["expert/self_layers/mlp/up_proj", "llm/layers/q_proj"])


def test_what_is_computed_grows_with_the_frames_that_are_used(monkeypatch):
    """The policy sees no more frames than there are, but for filling up a group that goes through it together."""
    seen, observe = [], Frames.observe
    monkeypatch.setattr(Frames, "observe", lambda self, rows: seen.append(rows) or observe(self, rows))
    graph, params = nnx.split(make_base().model)
    features.compute(make_frames(), graph, params, "context", lambda _: None)
    lengths = [len(demo.actions) for task in INSTRUCTIONS for demo in make_demos(task)]
    groups = [-(-len(rows) // features.AT_ONCE) for rows in seen]
    assert all(len(rows) == features.AT_ONCE * count for rows, count in zip(seen, groups, strict=True))
    assert sum(groups) == 1 + sum(-(-length // features.AT_ONCE) for length in lengths)  # one for the shapes alone


def test_a_gpu_is_given_many_frames_at_a_time_and_computes_the_same(monkeypatch):
    graph, params = nnx.split(make_base().model)

    def frozen():
        return features.compute(make_frames(), graph, params, "context", lambda _: None)

    expected = frozen()
    seen, observe = [], Frames.observe
    monkeypatch.setattr(Frames, "observe", lambda self, rows: seen.append(rows) or observe(self, rows))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(features, "AT_ONCE_ELSEWHERE", 7)  # leaves a rest, and is no divisor of a demonstration
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), frozen(), expected)
    total = sum(len(demo.actions) for task in INSTRUCTIONS for demo in make_demos(task))
    assert len(seen) == 1 + -(-total // 7)


def test_pictures_that_do_not_fit_are_made_ready_when_they_are_looked_up(monkeypatch):
    base, frames = make_base(), make_frames()
    graph, params = nnx.split(base.model)

    def computed():
        return features.compute(frames, graph, params, "observation", lambda count: None)

    kept = computed()
    monkeypatch.setattr(features, "IN_MEMORY", 1000)
    looked_up, rows = computed(), np.array([[3, 0], [20, 3]])
    assert features.on_host(looked_up)
    assert not features.on_host(kept)
    for have, want in zip(looked_up, kept, strict=True):
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        np.testing.assert_array_equal(have[rows], want[rows])
