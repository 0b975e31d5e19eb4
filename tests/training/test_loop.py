"""The training loop on a noisy parabola: interrupted or not, the same numbers; and no bad batch gets through."""

import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalora_jax.training import loop
from metalora_jax.training.checkpoint import Interrupt
from metalora_jax.training.metrics import NonFiniteError, read_metrics

STEPS = 9
OPTIMIZER = optax.adam(0.1)


def gradient(params, batch, key):
    away = params["x"] - batch + 0.1 * jax.random.normal(key, batch.shape)
    return {"x": away}, {"loss": jnp.sum(away**2)}


@jax.jit
def step_fn(state, batch, key):
    return loop.update(state, batch, key, gradient, OPTIMIZER)


def batch_of(step):
    return np.random.default_rng(step).normal(size=3).astype(np.float32)


def start():
    return loop.init({"x": jnp.zeros(3)}, OPTIMIZER)


def run(workdir, batches=batch_of, steps=STEPS, **options):
    options = dict(seed=5, description="test", checkpoint_every=2, log_every=1) | options
    return loop.run(workdir, start(), step_fn, batches, steps=steps, **options)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def numbers(workdir):
    return [
        {name: value for name, value in record.items() if name != "steps_per_second"}
        for record in read_metrics(workdir / "metrics.jsonl")
    ]


def test_terminated_and_resumed_is_bit_equal(tmp_path, capsys):
    def terminated(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch_of(step)

    whole = run(tmp_path / "whole")
    with pytest.raises(SystemExit) as left:
        run(tmp_path / "parts", terminated)
    assert left.value.code == Interrupt.EXIT_CODE
    assert "saved at step 5 of 9" in capsys.readouterr().out
    assert_equal(run(tmp_path / "parts"), whole)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert [record["step"] for record in numbers(tmp_path / "parts")] == list(range(1, STEPS + 1))


def test_killed_between_checkpoints_and_resumed_is_bit_equal(tmp_path):
    def broken(step):
        if step == 6:
            raise OSError("the disk is gone")
        return batch_of(step)

    whole = run(tmp_path / "whole")
    with pytest.raises(OSError, match="the disk is gone"):
        run(tmp_path / "parts", broken)  # the last checkpoint is of step 4
    assert_equal(run(tmp_path / "parts"), whole)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


def test_a_finished_run_is_not_run_again(tmp_path):
    def never(step):
        raise AssertionError(f"step {step} came again")

    done = run(tmp_path)
    assert_equal(run(tmp_path, never), done)


def test_a_longer_run_goes_on(tmp_path):
    run(tmp_path / "parts", steps=4)
    assert_equal(run(tmp_path / "parts"), run(tmp_path / "whole"))


def test_seed_is_that_of_the_noise(tmp_path):
    one, other = run(tmp_path / "5"), run(tmp_path / "6", seed=6)
    assert not np.array_equal(one.params["x"], other.params["x"])


def test_a_bad_batch_is_skipped_and_counted(tmp_path):
    def bad(step):
        return batch_of(step) * (np.nan if step in (3, 4) else 1)

    state = run(tmp_path, bad)
    assert int(state.skips.total) == 2
    assert np.isfinite(state.params["x"]).all()
    assert int(state.opt_state[0].count) == STEPS - 2
    assert [record["skipped"] for record in numbers(tmp_path)] == [0, 0, 1, 2, 2, 2, 2, 2, 2]


def test_an_update_from_a_bad_batch_changes_nothing_but_the_count():
    before = start()
    after, _ = step_fn(before, jnp.array([0.0, jnp.inf, 0.0]), jax.random.key(0))
    assert_equal(after._replace(skips=before.skips), before)
    assert int(after.skips.consecutive) == 1


def test_a_gradient_whose_norm_overflows_is_as_bad():
    def as_large_as_the_batch(params, batch, key):
        return {"x": batch}, {"loss": jnp.zeros(())}

    for size, bad in ((1e15, 0), (1e20, 1)):  # the square of the first is a float32
        after, _ = loop.update(start(), jnp.full(3, size), jax.random.key(0), as_large_as_the_batch, OPTIMIZER)
        assert int(after.skips.consecutive) == bad


def test_nothing_but_bad_batches_ends_the_run(tmp_path):
    with pytest.raises(NonFiniteError, match=r"10 updates in a row .* up to step 10"):
        run(tmp_path, lambda step: batch_of(step) * np.nan, steps=30)


def test_metrics_reach_the_dashboards(tmp_path):
    seen, first = [], []

    def sinks(first_step):
        first.append(first_step)
        return [lambda step, metrics: seen.append((step, set(metrics)))]

    run(tmp_path, log_every=4, sinks=sinks)
    assert first == [1]
    assert seen == [(s, {"loss", "gradient_norm", "skipped", "steps_per_second"}) for s in (4, 8, 9)]


def test_compilation_is_said_and_no_part_of_the_rate(tmp_path, capsys):
    def slow_at_first(step):
        time.sleep(1.0 if step == 1 else 0.0)
        return batch_of(step)

    run(tmp_path, slow_at_first, checkpoint_every=STEPS)
    assert "test: 0/9 (0 %), 00:00 elapsed, ? left, ?it/s, compiling" in capsys.readouterr().err
    first, second, *_ = read_metrics(tmp_path / "metrics.jsonl")
    assert "steps_per_second" not in first
    assert second["steps_per_second"] > 2.0  # two steps took more than a second, one of them far less


def test_the_learning_rate_is_among_the_metrics_and_waits_for_skipped_updates(tmp_path):
    def batches(step):
        return batch_of(step) * (np.nan if step == 3 else 1)

    run(tmp_path, batches, steps=5, learning_rate=lambda made: 0.1 * (made + 1))
    found = [record["learning_rate"] for record in numbers(tmp_path)]
    np.testing.assert_allclose(found, [0.1, 0.2, 0.2, 0.3, 0.4], rtol=1e-6)
