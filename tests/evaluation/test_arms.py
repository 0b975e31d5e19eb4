"""Adaptation: compiled once per program, whatever the values; and the same as the methods it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalora_jax import trees
from metalora_jax.adaptation.learner import learner
from metalora_jax.adapters import placement
from metalora_jax.data.frames import rows_and_labels
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice, candidates
from metalora_jax.training import adapt as adapt_module
from metalora_jax.training.task_batches import Rows, fill
from metalora_jax.types import ActionChunk
from tests.tiny_base import EXPERT, make_base, make_frames

RULES = placement.from_json([EXPERT])
SGD = Choice("sgd", 0.1)


def make_arm(seed=0, log_rates=None, fast=None) -> Arm:
    learn = learner(make_base(), RULES, jax.random.key(seed))
    params = {"theta": learn.theta}
    if log_rates is not None:
        params["log_rates"] = jax.tree.map(lambda _: jnp.float32(log_rates), learn.theta)
    return Arm("arm", seed, learn, RULES, params, 1.0, fast)


@pytest.fixture(scope="module")
def support():
    """Two minibatches of two frames, behind the frozen front."""
    frames, model = make_frames(), make_base().model
    rows, labels = rows_and_labels(frames, "reach", [0])
    at = np.array([[0, 1], [2, 3]])
    context = model.context(frames.observe(rows))
    return fill(Rows(at, ActionChunk(labels.actions[at], labels.is_pad[at])), context)


@pytest.fixture
def adapt():
    return Adaptation(draws=1)


def test_one_compilation_for_each_program(adapt, support, monkeypatch):
    traced = []
    original = adapt_module.loss_fn
    monkeypatch.setattr(adapt_module, "loss_fn", lambda *a, **k: traced.append(1) or original(*a, **k))
    adapt_module.program.cache_clear()  # what other tests have compiled
    adapt(make_arm(), SGD, support, 0, (1, 2))
    results = [adapt(make_arm(seed), Choice("sgd", rate), support, 1, (1, 2)) for seed in (0, 1) for rate in (0.1, 1.0)]
    assert len(traced) == 1
    assert len({trees.digest(result.thetas[2]) for result in results}) == 4
    adapt(make_arm(), SGD, support, 0, (2,))
    adapt(make_arm(fast=("action_.*",)), SGD, support, 0, (1, 2))
    assert len(traced) == 3


def test_result(adapt, support):
    arm = make_arm()
    result = adapt(arm, SGD, support, 0, (1, 2))
    assert set(result.thetas) == set(result.seconds) == {1, 2}
    assert result.losses.shape == (2,)
    assert result.seconds[2] == pytest.approx(2 * result.seconds[1])
    assert result.seconds[1] > 0
    start = arm.meta_params["theta"]
    for step, theta in result.thetas.items():
        trees.check_same(theta, start)
        # Clipped gradients of at most 1, times the rate of 0.1.
        assert 0 < trees.global_norm(trees.sub(theta, start)) <= step * 0.1 + 1e-6


def test_learned_rates_at_a_fixed_value_are_sgd(adapt, support):
    learned = adapt(make_arm(log_rates=np.log(0.05)), Choice("learned", 2.0), support, 0, (1, 2))
    plain = adapt(make_arm(), SGD, support, 0, (1, 2))
    for step in (1, 2):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), learned.thetas[step], plain.thetas[step])


def test_rates_of_tensors_and_of_parameters_side_by_side(adapt, support):
    """Programs of the same placement, optimiser and steps, whose rates have other shapes."""
    arm = make_arm(log_rates=np.log(0.05))
    theta, rates = arm.meta_params["theta"], arm.meta_params["log_rates"]
    each = arm._replace(meta_params={"theta": theta, "log_rates": jax.tree.map(jnp.full_like, theta, rates)})
    one, other = (adapt(a, Choice("learned", 1.0), support, 0, (2,)).thetas[2] for a in (arm, each))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


def test_only_the_fast_leaves_move(adapt, support):
    arm = make_arm(fast=("action_.*",))
    after = dict(trees.named_leaves(adapt(arm, SGD, support, 0, (2,)).thetas[2]))
    for path, before in trees.named_leaves(arm.meta_params["theta"]):
        assert np.array_equal(after[path], before) != path.startswith("action_"), path


def test_candidates_depend_on_what_the_arm_has():
    options = {"learned": (1.0, 2.0), "sgd": (0.1,), "adam": (0.01, 0.1), "ridge": (0.1,)}  # no optimiser, the last
    assert candidates(make_arm(), options) == [SGD, Choice("adam", 0.01), Choice("adam", 0.1)]
    assert candidates(make_arm(log_rates=0.0), options) == [Choice("learned", 1.0), Choice("learned", 2.0)]


def test_fingerprint_is_that_of_the_start():
    assert make_arm().fingerprint == make_arm().fingerprint != make_arm(1).fingerprint
