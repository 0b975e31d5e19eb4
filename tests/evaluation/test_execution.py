"""Which command follows from chunks that overlap."""

import numpy as np
import pytest

from metalora_jax.evaluation import execution
from metalora_jax.evaluation.execution import Chunk, command, covering

CHUNK, DIMS = 6, 7


def chunks_until(now, execute, rng=None):
    """What the policy has planned by step `now`, looking every `execute` steps, as a rollout keeps it."""
    rng = rng or np.random.default_rng(0)
    planned = [Chunk(t, rng.normal(size=(CHUNK, DIMS)).astype(np.float32)) for t in range(0, now + 1, execute)]
    return covering(planned, now)


@pytest.mark.parametrize("execute", [1, 2, 3, 6])
def test_without_an_ensemble_the_newest_chunk_is_followed(execute):
    for now in range(12):
        known = chunks_until(now, execute)
        np.testing.assert_array_equal(command(known, now, None), known[-1].actions[now % execute])


def test_one_step_apart_it_is_the_papers_average():
    """Every step a query; w_i = exp(-m i) over the predictions for this step, i = 0 the oldest."""
    m, now = 0.3, 9
    known = chunks_until(now, 1)
    predictions = [known[i].actions[now - known[i].start] for i in range(len(known))]
    assert len(predictions) == CHUNK
    weights = [np.exp(-m * i) for i in range(CHUNK)]
    wanted = sum(w * p for w, p in zip(weights, predictions, strict=True)) / sum(weights)
    made = command(known, now, m)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, wanted, rtol=1e-5)


def test_weights_go_by_steps_however_rarely_the_policy_looks():
    known = [Chunk(0, np.zeros((CHUNK, 1))), Chunk(4, np.ones((CHUNK, 1)))]
    for m in (-0.5, 0.0, 0.5):
        np.testing.assert_allclose(command(known, 5, m), np.exp(-4 * m) / (1 + np.exp(-4 * m)))


def test_plans_that_agree_are_followed_by_any_ensemble():
    plan = np.random.default_rng(1).normal(size=(40, DIMS))
    for execute in (1, 2, 5):
        for now in range(30):
            known = covering([Chunk(t, plan[t : t + CHUNK]) for t in range(0, now + 1, execute)], now)
            for m in (None, -1.0, 0.0, 0.01, 1e4, -1e4):
                np.testing.assert_allclose(command(known, now, m), plan[now], atol=1e-12)


def test_extreme_weights_single_out_the_oldest_and_the_youngest():
    known = chunks_until(9, 2)
    assert len(known) == 3
    np.testing.assert_array_equal(command(known, 9, 1e4), known[0].actions[9 - known[0].start])
    np.testing.assert_array_equal(command(known, 9, -1e4), known[-1].actions[9 - known[-1].start])


def test_the_gripper_is_a_vote():
    shut, open_ = np.ones((CHUNK, 1)), -np.ones((CHUNK, 1))
    known = [Chunk(0, shut), Chunk(1, open_), Chunk(2, open_)]
    np.testing.assert_allclose(command(known, 2, 0.0), [-1 / 3])
    assert command(known, 2, 2.0) > 0  # the oldest outweighs both


def test_only_chunks_that_reach_the_step_count():
    known = chunks_until(9, 2)
    assert [chunk.start for chunk in known] == [4, 6, 8]
    np.testing.assert_array_equal(command([Chunk(0, np.ones((3, 1))), *known], 9, 0.1), command(known, 9, 0.1))
    with pytest.raises(ValueError, match="no chunk has an action for step 3"):
        command([Chunk(0, np.ones((3, 1)))], 3, None)


@pytest.mark.parametrize(
    ("execute", "ensemble", "message"),
    [
        (0, None, r"control\.execute = 0 must lie in \[1, 6\]"),
        (7, None, r"control\.execute = 7 must lie in \[1, 6\]"),
        (2, float("nan"), r"control\.ensemble = nan must be finite"),
        (6, 0.01, r"none do where control\.execute = 6"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(execute, ensemble, message):
    with pytest.raises(ValueError, match=message):
        execution.check(execute, ensemble, CHUNK)


def test_settings_that_can():
    for execute, ensemble in ((1, None), (6, None), (1, 0.01), (5, -0.1), (2, 0.0)):
        execution.check(execute, ensemble, CHUNK)
