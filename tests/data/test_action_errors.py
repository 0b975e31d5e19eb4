"""Action errors in closed form."""

import numpy as np
import pytest

from metalora_jax.data.action_errors import errors


@pytest.fixture
def truth():
    """Five frames of two demonstrations, chunks of three steps, two joints; the last steps are past the end."""
    rng = np.random.default_rng(0)
    is_pad = np.zeros((5, 3), bool)
    is_pad[4, 1:] = is_pad[2, 2:] = True
    return rng.normal(size=(5, 3, 2)), is_pad, np.array([0, 0, 0, 1, 1])


def test_a_perfect_policy_has_no_error(truth):
    actions, is_pad, demo = truth
    found = errors(np.stack([actions, actions]), actions, actions, is_pad, demo)
    for name in ("error", "squared", "of_mean", "quiet", "spread", "ahead"):
        np.testing.assert_array_equal(getattr(found, name), 0)


def test_what_lies_past_the_end_does_not_count(truth):
    actions, is_pad, demo = truth
    wild = np.where(is_pad[..., None], 1e6, actions)
    np.testing.assert_array_equal(errors(wild[None], wild, actions, is_pad, demo).error, 0)


def test_two_draws_to_either_side_have_an_error_that_their_mean_has_not(truth):
    actions, is_pad, demo = truth
    found = errors(np.stack([actions - 2, actions + 2]), actions + 1, actions, is_pad, demo)
    np.testing.assert_allclose(found.error, 2)
    np.testing.assert_allclose(found.squared, 4)
    np.testing.assert_allclose(found.of_mean, 0, atol=1e-12)
    np.testing.assert_allclose(found.quiet, 1)
    np.testing.assert_allclose(found.spread, 2)
    np.testing.assert_allclose(found.scaled(np.array([1.0, 4.0])), (2 + 0.5) / 2)


def test_every_demonstration_and_step_ahead_has_its_own(truth):
    actions, is_pad, demo = truth
    off = (1.0 + demo)[:, None, None] + np.array([0.0, 10.0, 20.0])[:, None]
    found = errors((actions + off)[None], actions, actions, is_pad, demo)
    np.testing.assert_allclose(found.error[1, 0], (2 + 12 + 22 + 2) / 4)
    np.testing.assert_allclose(found.ahead[:, 0], [(1 + 1 + 1 + 2 + 2) / 5, (11 * 3 + 12) / 4, (21 * 2 + 22) / 3])


def test_a_step_that_no_frame_reaches_has_none(truth):
    actions, _, demo = truth
    is_pad = np.zeros((5, 3), bool)
    is_pad[:, 2] = True
    assert np.isnan(errors(actions[None], actions, actions, is_pad, demo).ahead[2]).all()
