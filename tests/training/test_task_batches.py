"""What a meta-step is fed."""

import jax
import numpy as np

from metalora_jax.data.frames import rows_and_labels
from metalora_jax.data.tasks import draw_tasks
from metalora_jax.training.task_batches import all_rows, fill, task_batch
from tests.tiny_base import make_frames

STEPS, SUPPORT, QUERY = 3, 4, 5


def draws(step=1, shift=lambda rng: None):
    frames = make_frames()
    return draw_tasks(0, step, 6, list(frames.demos), frames.demos, 1, 2, shift)


def batch(step=1, relabel_of=lambda shift: None, shift=lambda rng: None):
    return task_batch(make_frames(), draws(step, shift), relabel_of, STEPS, SUPPORT, QUERY)


def test_shapes():
    made = batch()
    assert made.support.rows.shape == (6, STEPS, SUPPORT)
    assert made.support.target.actions.shape == (6, STEPS, SUPPORT, 5, 4)
    assert made.query.rows.shape == (6, QUERY)
    assert made.query.target.is_pad.shape == (6, QUERY, 5)


def test_frames_come_from_the_drawn_demonstrations():
    made = batch()
    for i, drawn in enumerate(draws()):
        for part, demos in ((made.support, drawn.support), (made.query, drawn.query)):
            rows, _ = rows_and_labels(make_frames(), drawn.task, demos)
            assert set(part.rows[i].ravel()) <= set(rows)


def test_frames_of_kept_tasks_stand_behind_each_querys_own():
    frames = make_frames()
    task = list(frames.demos)[-1]
    kept = all_rows(frames, [task])
    assert len(kept.rows) == sum(len(actions) for actions in frames.actions[task])
    plain, made = batch(), task_batch(frames, draws(), lambda _: None, STEPS, SUPPORT, QUERY, kept, 7)
    jax.tree.map(np.testing.assert_array_equal, plain.support, made.support)
    jax.tree.map(np.testing.assert_array_equal, plain.query, jax.tree.map(lambda x: x[:, :QUERY], made.query))
    added = made.query.rows[:, QUERY:]
    assert added.shape == (6, 7)
    assert set(added.ravel()) <= set(kept.rows)
    assert len(set(added.ravel())) > 7
    labels = dict(zip(kept.rows.tolist(), kept.target.actions, strict=True))
    for row, actions in zip(added.ravel(), made.query.target.actions[:, QUERY:].reshape(-1, 5, 4), strict=True):
        np.testing.assert_array_equal(actions, labels[row])


def test_replayed_frames_stand_behind_each_minibatchs_own():
    frames = make_frames()
    kept = all_rows(frames, list(frames.demos)[-1:])
    shapes = (STEPS, SUPPORT, QUERY)
    plain, made = (task_batch(frames, draws(), lambda _: None, *shapes, kept, 7, replay) for replay in (0, 2))
    jax.tree.map(np.testing.assert_array_equal, plain.query, made.query)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, :, :SUPPORT]), plain.support, made.support)
    added = made.support.rows[:, :, SUPPORT:]
    assert added.shape == (6, STEPS, 2)
    assert set(added.ravel()) <= set(kept.rows)
    assert len(set(added.ravel())) > 2


def test_pure_in_the_step():
    jax.tree.map(np.testing.assert_array_equal, batch(), batch())
    assert not np.array_equal(batch().support.rows, batch(step=2).support.rows)


def test_support_and_query_of_a_task_share_its_shift():
    plain = batch(shift=lambda rng: rng.integers(2, 5))
    moved = batch(relabel_of=lambda factor: lambda actions: factor * actions, shift=lambda rng: rng.integers(2, 5))
    statistics = make_frames().preprocessor.statistics
    for i, drawn in enumerate(draws(shift=lambda rng: rng.integers(2, 5))):
        for before, after in ((plain.support, moved.support), (plain.query, moved.query)):
            np.testing.assert_array_equal(before.rows, after.rows)
            raw, shifted = (
                part.target.actions[i] * statistics.action_std + statistics.action_mean for part in (before, after)
            )
            np.testing.assert_allclose(shifted, drawn.shift * raw, atol=1e-5)


def test_fill_looks_rows_up():
    made = batch()
    frozen = {"x": 10 * np.arange(len(make_frames().state)), "y": np.ones((len(make_frames().state), 2))}
    filled = fill(made.query, frozen)
    np.testing.assert_array_equal(filled.inputs["x"], 10 * made.query.rows)
    assert filled.inputs["y"].shape == (6, QUERY, 2)
    assert filled.target is made.query.target
