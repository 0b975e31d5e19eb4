"""Adapting to demonstrations, and the doubts about them."""

import jax
import numpy as np
import pytest

from metalora_jax import trees
from metalora_jax.adaptation import adapter, conventions
from metalora_jax.adaptation import base as bases
from metalora_jax.adapters import placement
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.data.support import Support
from metalora_jax.evaluation.offline import closing, measure
from metalora_jax.training import adapt as module
from metalora_jax.training.adapt import Options, adapt
from tests.tiny_base import EXPERT, make_base, make_demos

ADAM = Options(optimizer="adam", learning_rate=0.02, steps=20, frames=4)


@pytest.fixture(scope="module")
def start():
    return adapter.fresh(make_base(), placement.from_json([EXPERT]))


def test_adapting_lowers_the_loss_and_keeps_frames_back(start):
    demos = make_demos("reach")[:2]
    result = adapt(make_base(), start, demos, ADAM)
    assert result.support_loss[1] < result.support_loss[0]
    assert np.isfinite(result.held_out_loss).all()
    assert sum(result.frames) == sum(len(demo.actions) for demo in demos)
    assert result.frames[1] == sum(result.frames) // 10


def test_adapting_again_compiles_nothing_and_gives_the_same(start, monkeypatch):
    demos, options = make_demos("reach")[:1], ADAM._replace(steps=1)
    result = adapt(make_base(), start, demos, options)
    monkeypatch.setattr(module, "loss_fn", None)  # needed for tracing alone
    again = adapt(make_base(), start, demos, options)
    assert trees.digest(again.theta) == trees.digest(result.theta)
    assert again.support_loss == result.support_loss


def test_a_mask_holds_the_rest_still(start):
    options = ADAM._replace(steps=2, fast=("action_.*",))
    theta = adapt(make_base(), start, make_demos("reach")[:1], options).theta
    before = dict(trees.named_leaves(start.learner.theta))
    moved = {path for path, leaf in trees.named_leaves(theta) if not np.array_equal(leaf, before[path])}
    assert moved
    assert all(path.startswith("action_") for path in moved)


def test_a_theta_that_does_not_move_is_an_error(start):
    with pytest.raises(ValueError, match=r"theta did not move: its change of .* is too small for its size of"):
        adapt(make_base(), start, make_demos("reach")[:1], ADAM._replace(steps=1, learning_rate=1e-30))


def test_maps_that_did_not_move_are_named(start):
    assert adapt(make_base(), start, make_demos("reach")[:1], ADAM._replace(steps=1)).unmoved == ()
    options = ADAM._replace(steps=1, fast=("action_.*",))
    found = adapt(make_base(), start, make_demos("reach")[:1], options).unmoved
    assert found
    assert all(path.startswith("expert/") for path in found)


def test_few_frames_keep_none_back(start):
    result = adapt(make_base(), start, make_demos("reach")[:1], ADAM._replace(steps=1))
    assert result.frames == (6, 0)
    assert result.held_out_loss is None


def test_learned_rates_are_used(start):
    rates = jax.tree.map(lambda _: np.float32(-2.0), start.learner.theta)
    thetas = [
        adapt(
            make_base(),
            start._replace(meta_params=start.meta_params | {"log_rates": rates}),
            make_demos("reach")[:1],
            Options(learning_rate=rate),
        ).theta
        for rate in (1.0, 0.1)
    ]
    near, far = (trees.global_norm(trees.sub(theta, start.learner.theta)) for theta in reversed(thetas))
    assert 0 < near < far


def test_variants_are_learned_from_and_losses_are_of_the_frames_as_they_are(start, monkeypatch):
    looked_up, original = [], module.fill

    def noted(rows, frozen):
        looked_up.append((rows.rows, jax.tree.leaves(frozen)[0].shape[0]))
        return original(rows, frozen)

    monkeypatch.setattr(module, "fill", noted)
    demos = [demo._replace(paraphrases=("go to the goal",)) for demo in make_demos("reach")[:2]]
    result = adapt(make_base(), start, demos, ADAM, ImageAugmentation(variants=3))
    (support, size), *judged = looked_up
    count = sum(result.frames)
    assert size == 3 * count  # the frozen outputs
    assert {*(support // count).ravel()} == {0, 1, 2}
    kept_back = np.arange(9, count, 10)
    assert not np.isin(support % count, kept_back).any()
    assert judged
    assert all((rows < count).all() for rows, _ in judged)


def test_one_variant_is_none(start):
    demos = make_demos("reach")[:2]
    plain, one = (
        adapt(make_base(), start, demos, ADAM._replace(steps=2), augment)
        for augment in (None, ImageAugmentation(variants=1))
    )
    assert trees.digest(one.theta) == trees.digest(plain.theta)
    assert one.held_out_loss == plain.held_out_loss


def test_paraphrases_without_variants_are_refused(start):
    told = [make_demos("reach")[0]._replace(paraphrases=("go to the goal",))]
    with pytest.raises(ValueError, match=r"set augment\.variants or --variants to 2 or more"):
        adapt(make_base(), start, told, ADAM, ImageAugmentation(variants=1))


def test_replayed_tasks_are_forgotten_less(start):
    """Both tasks look alike here, and ask for opposite actions: what one learns the other loses."""
    new = make_demos("reach")[:1]
    old = {"push": [demo._replace(actions=-demo.actions) for demo in new]}
    options = ADAM._replace(replay_frames=4)
    theta = adapt(make_base(), start, new, ADAM).theta
    kept = adapt(make_base(), start, new, options, earlier=old)
    lost = adapt(
        make_base(),
        start._replace(meta_params={"theta": theta}),
        new,
        options._replace(steps=1, learning_rate=1e-6),
        earlier=old,
    )
    assert kept.replay_loss[0] < lost.replay_loss[0]  # before anything, and after the new task alone
    assert kept.replay_loss[1] < lost.replay_loss[0]


@pytest.mark.parametrize(("frames", "earlier"), [(4, None), (0, {"push": make_demos("push")[:1]})])
def test_replay_is_asked_for_whole_or_not_at_all(start, frames, earlier):
    options = ADAM._replace(replay_frames=frames)
    with pytest.raises(ValueError, match=f"earlier tasks, replay_frames is {frames}: give both or neither"):
        adapt(make_base(), start, make_demos("reach")[:1], options, earlier=earlier)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(), "no learned rates: choose the optimizer adam"),
        (Options("adamm", 0.1), "no optimizer named 'adamm'"),
        (Options("adam", 0.1, fast=()), r"options\.fast names no leaf path"),
    ],
)
def test_what_cannot_be_done(start, options, message):
    with pytest.raises(ValueError, match=message):
        adapt(make_base(), start, make_demos("reach")[:1], options)


def test_a_demonstration_in_which_nothing_moves_is_refused(start):
    (demo,) = make_demos("reach")[:1]
    still = demo._replace(state=demo.state[:1] + 0 * demo.state, actions=0 * demo.actions)
    with pytest.raises(ValueError, match=r"nothing moves in demonstration 1 of 2 .*; leave it out, or record it again"):
        adapt(make_base(), start, [demo, still], Options("adam", 0.1))


UNSEEN = make_demos("reach")[2:]


def test_looking_at_held_out_demonstrations_changes_nothing_but_the_choice(start):
    options = ADAM._replace(steps=7)
    plain = adapt(make_base(), start, make_demos("reach")[:2], options)
    looked = adapt(make_base(), start, make_demos("reach")[:2], options._replace(validate_every=3), held_out=UNSEEN)
    assert [each.step for each in looked.validation] == [0, 3, 6, 7]
    assert looked.best.error == min(each.error for each in looked.validation)
    assert looked.support_loss[0] == plain.support_loss[0]
    until = adapt(make_base(), start, make_demos("reach")[:2], ADAM._replace(steps=max(1, looked.best.step)))
    # What is kept is theta after so many steps of a run without held-out demonstrations, Adam's moments included.
    if looked.best.step:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), looked.theta, until.theta)
    assert plain.validation == ()
    assert plain.best is None


def test_it_stops_where_nothing_gets_better(start, monkeypatch):
    errors = iter([1.0, 0.5, 0.7, 0.6, 0.4])
    look = lambda base, adapted, frozen, target, states, step: module.Validated(step, next(errors), 1.0, 1.0)  # noqa: E731
    monkeypatch.setattr(module, "validated", look)
    options, seen = ADAM._replace(steps=12, validate_every=2, patience=2), {}
    sinks = [lambda step, metrics: seen.update({step: metrics})]
    demos = make_demos("reach")[:2]
    result = adapt(make_base(), start, demos, options, held_out=UNSEEN, sinks=sinks)
    assert [(each.step, each.error) for each in result.validation] == [(0, 1.0), (2, 0.5), (4, 0.7), (6, 0.6)]
    assert result.best.step == 2
    told = closing.lines(Support("reach", demos, [0, 1], UNSEEN, "", Embodiment()), start, result, 12, 0, "cup")
    assert [line.split()[1:3] for line in told if line.startswith("steps:")] == [["6", "in"]]
    # Dashboards are shown what it learns from, too, but before the first step.
    assert list(seen) == [0, 2, 4, 6]
    assert ["support_loss" in metrics for metrics in seen.values()] == [False, True, True, True]
    assert all(set(metrics) >= set(result.validation[0].metrics()) for metrics in seen.values())
    assert 0 < seen[6]["support_loss"] < seen[2]["support_loss"]


def test_the_start_is_kept_where_no_step_is_better(start, monkeypatch):
    look = lambda base, adapted, frozen, target, states, step: module.Validated(step, 1.0 + step, 1.0, 1.0)  # noqa: E731
    monkeypatch.setattr(module, "validated", look)
    options = ADAM._replace(steps=2, validate_every=1)
    result = adapt(make_base(), start, make_demos("reach")[:2], options, held_out=UNSEEN)
    assert trees.digest(result.theta) == trees.digest(start.learner.theta)


@pytest.mark.parametrize(("every", "patience", "unseen"), [(0, 0, UNSEEN), (2, 0, ()), (0, 2, ())])
def test_held_out_demonstrations_are_asked_for_whole_or_not_at_all(start, every, patience, unseen):
    options = ADAM._replace(validate_every=every, patience=patience)
    with pytest.raises(ValueError, match=f"validate_every is {every}, patience {patience}: give"):
        adapt(make_base(), start, make_demos("reach")[:1], options, held_out=unseen)


def test_statistics_that_do_not_fit():
    base = make_base()
    (demo,) = make_demos("reach")[:1]
    millimetres = demo._replace(state=demo.state * [1, 1, 1000, 1], actions=demo.actions * [1, 1, 1, 100])
    found = "; ".join(conventions.quick(base, {"reach": [millimetres]}))
    assert (
        "state dimension 2 varies 7.1e+02 times as much as the base's data; millimetres for metres would be 1e+03"
        in found
    )
    assert "action dimension 3 varies" in found
    assert conventions.quick(base, {"reach": [demo]}) == []


@pytest.mark.metaworld
def test_the_nano_base_recognises_turned_pictures_and_a_reversed_gripper():
    from metalora_jax.envs.conditions import Condition
    from metalora_jax.envs.experts import record
    from metalora_jax.envs.metaworld import MetaWorld

    with MetaWorld("drawer-close") as env:
        demo = record(env, 7, Condition(), 0.0)
    demo = demo._replace(images=demo.images[:, :1])
    base = bases.load()
    assert conventions.doubts(base, [demo]) == []
    upside_down = conventions.doubts(base, [demo._replace(images=demo.images[:, :, ::-1])])
    assert ["upside down" in doubt for doubt in upside_down] == [True]
    reverse = conventions.doubts(base, [demo._replace(actions=demo.actions * np.float32([1, 1, 1, -1]))])
    assert ["gripper better with its sign reversed" in doubt for doubt in reverse] == [True]


def test_more_steps_than_rates_were_learned_for_are_warned_about(start, caplog):
    rates = jax.tree.map(lambda x: np.float32(-3.0), start.learner.theta)
    learned = start._replace(meta_params=start.meta_params | {"log_rates": rates}, inner_steps=2)
    options = Options(steps=2, frames=4)
    adapt(make_base(), learned, make_demos("reach")[:1], options)
    assert "learned for" not in caplog.text
    adapt(make_base(), learned, make_demos("reach")[:1], options._replace(steps=3))
    assert "steps is 3, but the rates were learned for 2" in caplog.text


def test_fewer_frames_of_each_demonstration(start):
    result = adapt(make_base(), start, make_demos("reach")[:2], ADAM._replace(steps=1, data_frames=5))
    assert result.frames == (9, 1)


def test_frames_that_were_learned_from_are_judged_behind_the_same_front(start, monkeypatch):
    """Where there is no other episode: nothing goes through the frozen front a second time."""
    base, demos = make_base(), make_demos("reach")[:2]
    result = adapt(base, start, demos, ADAM._replace(steps=1))
    own = Support("reach", demos, [0, 1], [], "", Embodiment())
    told = closing.against_standing_still(base, result, own)
    other = closing.against_standing_still(base, result, own._replace(unseen=demos, told="all"))
    monkeypatch.setattr(measure, "frozen_outputs", None)
    assert closing.against_standing_still(base, result, own) == told
    assert told.split(": ", 1)[1] == other.split(": ", 1)[1]
    assert told.startswith("On the demonstrations themselves, which flatters: ")


def test_a_large_base_is_judged_on_few_frames_whatever_is_learned_from(start, monkeypatch):
    monkeypatch.setattr(bases, "_LARGE", 0)
    judged = []
    monkeypatch.setattr(module, "_loss", lambda _, theta, batch, draws: judged.append(len(batch.target.actions)) or 1.0)
    result = adapt(make_base(), start, make_demos("reach")[:2], ADAM._replace(steps=1, frames=32))
    assert result.judged == 8
    assert sum(judged) == 2 * (8 + 8)  # before and after, of those learned from and those kept back
    assert set(judged) == {8}


def test_what_the_base_predicts_is_found_once(tmp_path, monkeypatch):
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path))
    base, demos = make_base(), make_demos("reach")[:1]
    found = conventions.doubts(base, demos)
    assert conventions.doubts(base, demos, predictions=False) == conventions.quick(base, {"demonstrated": demos})
    monkeypatch.setattr(conventions, "VIEWS", None)
    assert conventions.doubts(base, demos) == found
