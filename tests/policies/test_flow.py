"""Flow matching without a model: the path, the two reductions, the shared draws and the sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalora_jax.policies import flow
from metalora_jax.types import ActionChunk


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_path_starts_at_data_ends_at_noise_and_has_the_target_as_slope():
    actions, noise = normal(0, 2, 3, 4), normal(1, 2, 3, 4)

    def at(t):
        return flow.interpolate(actions, noise, jnp.full(2, t))

    np.testing.assert_allclose(at(0.0)[0], actions)
    np.testing.assert_allclose(at(1.0)[0], noise)
    np.testing.assert_allclose((at(0.75)[0] - at(0.25)[0]) / 0.5, at(0.5)[1], atol=1e-6)


def test_times_follow_the_shifted_beta():
    t = np.asarray(flow.sample_time(jax.random.key(0), (20_000,)))
    assert t.min() >= 0.001
    assert t.max() <= 1.0
    np.testing.assert_allclose(t.mean(), 0.001 + 0.999 * 0.6, atol=0.01)  # Beta(a, 1) has mean a / (a + 1)
    np.testing.assert_allclose((t < 0.5).mean(), (0.499 / 0.999) ** 1.5, atol=0.01)  # and distribution x^a


def test_valid_reduction_ignores_padded_steps_and_dimensions():
    v, target = normal(0, 2, 3, 4), normal(1, 2, 3, 4)
    is_pad = jnp.array([[False, False, True], [False, True, True]])
    by_hand = np.mean([(target - v)[b, t, :2] ** 2 for b, t in ((0, 0), (0, 1), (1, 0))])

    def loss(v):
        return flow.flow_loss(v, target, is_pad, action_dim=2)

    np.testing.assert_allclose(loss(v), by_hand, rtol=1e-6)
    gradient = jax.grad(loss)(v)
    assert not gradient[:, :, 2:].any()
    assert not gradient[is_pad].any()


def test_all_reduction_is_the_plain_mean():
    v, target = normal(0, 2, 3, 4), normal(1, 2, 3, 4)
    loss = flow.flow_loss(v, target, jnp.ones((2, 3), bool), 2, "all")
    np.testing.assert_allclose(loss, ((v - target) ** 2).mean(), rtol=1e-6)


def test_a_batch_of_padding_has_zero_loss():
    assert flow.flow_loss(normal(0, 1, 2, 3), normal(1, 1, 2, 3), jnp.ones((1, 2), bool), 3) == 0.0


@pytest.mark.parametrize(("action_dim", "reduction"), [(0, "valid"), (5, "valid"), (2, "mean")])
def test_bad_reductions_are_refused(action_dim, reduction):
    v = jnp.zeros((1, 2, 4))
    with pytest.raises(ValueError, match="flow_loss"):
        flow.flow_loss(v, v, jnp.zeros((1, 2), bool), action_dim, reduction)


def chunk() -> ActionChunk:
    return ActionChunk(normal(2, 3, 5, 4), jnp.zeros((3, 5), bool).at[0, 3:].set(True))


def test_draws_are_independent_samples_of_one_batch():
    seen = []

    def velocity(x, t):
        seen.append((x.shape, t.shape))
        return x * t[:, None, None]

    losses = jax.jit(jax.vmap(lambda key: flow.draws_loss(velocity, chunk(), key, 7, 2)))(
        jax.random.split(jax.random.key(0), 4)
    )
    assert seen == [((3, 5, 4), (3,))], "the velocity is traced once, for one batch of frames, whatever the draws"
    assert len(set(losses.tolist())) == 4


def test_more_draws_lower_the_variance_of_the_gradient_not_its_mean():
    weight = normal(3, 4, 4)
    keys = jax.random.split(jax.random.key(0), 256)

    def gradients(draws: int) -> np.ndarray:
        def loss(w, key):
            return flow.draws_loss(lambda x, t: x @ w, chunk(), key, draws, 4)

        return np.asarray(jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(weight, keys))

    one, many = gradients(1), gradients(16)
    ratio = many.var(axis=0).sum() / one.var(axis=0).sum()
    assert 1 / 24 < ratio < 1 / 10
    np.testing.assert_allclose(many.mean(axis=0), one.mean(axis=0), atol=0.3)


@pytest.mark.parametrize("num_steps", [1, 4, 10])
def test_sampler_follows_a_straight_flow_back_to_the_data(num_steps):
    actions, noise = normal(0, 2, 3, 4), normal(1, 2, 3, 4)
    recovered = flow.sample(lambda x, t: (x - actions) / t[:, None, None], noise, num_steps)
    np.testing.assert_allclose(recovered, actions, atol=1e-5)


def test_sampler_visits_times_from_one_downwards():
    times = flow.sample(lambda x, t: -jnp.broadcast_to(t[:, None, None], x.shape), jnp.zeros((1, 1, 1)), 4)
    np.testing.assert_allclose(times[0, 0, 0], (1 + 0.75 + 0.5 + 0.25) / 4)


def test_guidance_keeps_what_is_executed_and_leaves_the_rest_alone():
    actions, noise, before = normal(0, 2, 3, 4), normal(1, 2, 3, 4), 3 * normal(2, 2, 3, 4)

    def towards_data(x, t):
        return (x - actions) / t[:, None, None]

    def sampled(weights, previous=before, velocity=towards_data):
        return flow.sample(flow.guided(velocity, previous, jnp.array(weights), 10.0), noise, 10)

    free = sampled([0.0, 0.0, 0.0], jnp.full_like(before, jnp.nan))  # where nothing is left, anything may stand
    np.testing.assert_allclose(free, flow.sample(towards_data, noise, 10), atol=1e-6)

    def still(x, t):
        return jnp.zeros_like(x)

    out = sampled([1.0, 0.5, 0.0], velocity=still)
    np.testing.assert_array_equal(out[:, 2], noise[:, 2])
    away = [np.abs(out - before)[:, step] / np.abs(noise - before)[:, step] for step in (0, 1)]
    assert away[0].max() < 0.01
    assert 0.02 < away[1].min() <= away[1].max() < 0.5


def test_guidance_goes_through_the_jacobian_of_the_policy():
    # v = x m at t: the flow leads to x (1 - t m), whose transposed Jacobian turns an error into a pull.
    m, x, before, t = 0.3 * normal(0, 4, 4), normal(1, 1, 3, 4), normal(2, 1, 3, 4), 0.25
    weights = jnp.array([1.0, 0.7, 0.0])
    found = flow.guided(lambda x, t: x @ m, before, weights, 10.0)(x, jnp.array([t]))
    jacobian = jnp.eye(4) - t * m
    pull = (weights[None, :, None] * (before - x @ jacobian)) @ jacobian.T
    np.testing.assert_allclose(found, x @ m - (t**2 + (1 - t) ** 2) / (t * (1 - t)) * pull, rtol=1e-4)


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="draws=0"):
        flow.draws_loss(lambda x, t: x, chunk(), jax.random.key(0), 0, 2)
    with pytest.raises(ValueError, match="num_steps=0"):
        flow.sample(lambda x, t: x, jnp.zeros((1, 1, 1)), 0)
