"""The protocol: what is compared is paired, and rates come from validation cells."""

import math

import jax
import numpy as np
import pytest

from metalora_jax.adaptation import prediction
from metalora_jax.adaptation.frozen_front import frozen_output
from metalora_jax.adaptation.learner import learner
from metalora_jax.adapters import LoRA, Rule
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.evaluation.protocol import few_shot, identified
from metalora_jax.evaluation.protocol import search as rates
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice
from metalora_jax.evaluation.protocol.few_shot import Protocol, budgets, cells, support
from metalora_jax.evaluation.rollout import Outcome
from metalora_jax.policies.stages import context_of
from metalora_jax.training.task_batches import all_rows, replay_of
from tests.evaluation.fake_world import make_world
from tests.tiny_base import make_base, make_frames

PROTOCOL = Protocol(
    distribution="conditions",
    steps=(0, 1, 2),
    shots=(1, 2),
    shots_steps=(2,),
    demonstration_draws=3,
    episodes=1,
    retention_steps=0,
    frames=3,
    noise_draws=1,
    max_norm=1.0,
    short=2,
)
TURN = ConditionRange(yaw=(-math.pi, math.pi))
DEMOS = {"reach": 4, "push": 4}


def lay_out(shots=1, split="test", seed=0, conditions=TURN):
    return cells(PROTOCOL, split, DEMOS, conditions, shots, seed)


@pytest.fixture(scope="module")
def frozen():
    return frozen_output(make_base(), make_frames(), "context")


@pytest.fixture(scope="module")
def arm():
    rules = (Rule("action_.*", LoRA(rank=2, alpha=2.0, b_std=0.1)),)
    learn = learner(make_base(), rules, jax.random.key(0))
    return Arm("heads", 0, learn, rules, {"theta": learn.theta}, PROTOCOL.max_norm)


@pytest.fixture(scope="module")
def adapt():
    return Adaptation(PROTOCOL.noise_draws)


def test_cells_are_pure_and_differ():
    assert lay_out() == lay_out()
    assert lay_out() != lay_out(seed=1)
    assert len(lay_out()) == 6
    assert len({cell.condition for cell in lay_out()}) == 6


def test_more_shots_keep_condition_and_first_demonstrations():
    for one, three in zip(lay_out(1), lay_out(3), strict=True):
        assert (one.task, one.draw, one.condition) == (three.task, three.draw, three.condition)
        assert one.demos == three.demos[:1]
        assert sorted(three.demos + three.query) == [0, 1, 2, 3]


def test_splits_get_conditions_of_their_own():
    assert not {c.condition for c in lay_out(split="test")} & {c.condition for c in lay_out(split="validation")}


def test_new_tasks_have_no_condition():
    assert {cell.condition for cell in lay_out(conditions=None)} == {None}


def test_more_shots_than_demonstrations():
    with pytest.raises(ValueError, match="push has 4 demonstrations: 4 shots leave none for validation; record more"):
        lay_out(shots=4)


def data(frozen, cells=(), replay=None):
    replayed = None if replay is None else few_shot.Replayed({"context": replay}, "digest")
    return few_shot.DataSet(make_frames(), {"context": frozen}, {1: list(cells)}, "digest", replayed)


def test_support_minibatches_do_not_depend_on_how_many_follow(frozen):
    cell = lay_out()[0]
    few, many = (support(cell, data(frozen), "context", steps, PROTOCOL._replace(frames=3)) for steps in (2, 7))
    assert jax.tree.leaves(many)[0].shape[:2] == (7, 3)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:2]), few, many)


def test_support_is_labelled_for_the_cell_s_condition(frozen):
    cell = lay_out()[0]
    plain = support(cell._replace(condition=None), data(frozen), "context", 1, PROTOCOL)
    shifted = support(cell, data(frozen), "context", 1, PROTOCOL)
    jax.tree.map(np.testing.assert_array_equal, plain.inputs, shifted.inputs)
    assert not np.allclose(plain.target.actions, shifted.target.actions, atol=1e-3)


def test_every_arm_gets_the_same_frames_behind_its_own_frozen_front(frozen):
    frozen_outputs = {"context": frozen, "features": frozen_output(make_base(), make_frames(), "features")}
    both = data(frozen)._replace(frozen_outputs=frozen_outputs)
    later, earlier = (support(lay_out()[0], both, stage, 1, PROTOCOL) for stage in frozen_outputs)
    jax.tree.map(np.testing.assert_array_equal, later.target, earlier.target)
    one, other = (jax.tree.map(lambda leaf: leaf[0], batch.inputs) for batch in (later, earlier))
    assert type(one) is not type(other)
    left = context_of(make_base().model, other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), left, one)


def test_replayed_frames_stand_behind_the_cells_own(frozen):
    cell, replay = lay_out()[0], replay_of(make_frames(), frozen)
    protocol = PROTOCOL._replace(frames=3, replay_frames=4)
    plain = support(cell, data(frozen), "context", 2, protocol)
    few, many = (support(cell, data(frozen, replay=replay), "context", steps, protocol) for steps in (2, 5))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:2]), few, many)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, :3]), plain, few)
    assert jax.tree.leaves(few)[0].shape[:2] == (2, 7)
    added = few.target.actions[:, 3:].reshape(-1, *few.target.actions.shape[2:])
    labels = all_rows(make_frames(), list(make_frames().demos)).target.actions  # as recorded, without the cell's shift
    assert all((labels == actions).all((1, 2)).any() for actions in added)


def test_search_judges_by_replayed_frames_too(arm, frozen):
    replay, asked = replay_of(make_frames(), frozen), []

    def not_to_be_learned(rng, shape):
        asked.append(shape)
        drawn, bad = replay(rng, shape), np.nan if len(shape) == 1 else 1.0
        return drawn._replace(target=drawn.target._replace(actions=bad * drawn.target.actions))

    cells, protocol = lay_out(split="validation")[:1], PROTOCOL._replace(replay_frames=4)
    with pytest.raises(ValueError, match="every inner rate diverges"):
        run_search(arm, Adaptation(1), {"sgd": (0.01,)}, data(frozen, cells, not_to_be_learned), protocol)
    judged = sum(len(make_frames().moments[cells[0].task][i]) for i in cells[0].query)
    assert asked == [(2, 4), (judged,)]  # minibatches to adapt on, and as many frames as of the cell to judge by


def test_budgets():
    assert budgets(PROTOCOL) == {"short": (1, 2)}
    assert budgets(PROTOCOL._replace(steps=(0, 1, 10, 30), short=10)) == {"short": (1, 10), "long": (30,)}


def run_search(arm, adapt, options, validation, protocol):
    record = rates.search([arm], rates.Search(adapt, options, validation, protocol), {}, lambda record: None)
    return rates.chosen(record, arm.name)


def search(arm, adapt, frozen, tried):
    validation = data(frozen, lay_out(split="validation")[:1])
    return run_search(arm, adapt, {"sgd": tried}, validation, PROTOCOL)


def test_search_tells_a_sane_rate_from_absurd_ones(arm, adapt, frozen):
    assert search(arm, adapt, frozen, (1e4, 0.01, 1e38)) == {"short": Choice("sgd", 0.01)}


def test_search_with_nothing_finite_to_choose_from(arm, adapt, frozen):
    with pytest.raises(ValueError, match=r"every inner rate diverges for heads: .*; search lower rates"):
        search(arm, adapt, frozen, (1e38,))


def test_search_with_rates_that_move_nothing(arm, adapt, frozen, caplog):
    with pytest.raises(ValueError, match=r"no inner rate moves the adapters of heads .*\(sgd 1e-30\), so that nothing"):
        search(arm, adapt, frozen, (1e-30,))
    assert search(arm, adapt, frozen, (1e-30, 0.01)) == {"short": Choice("sgd", 0.01)}
    assert "the adapters do not move at sgd 1e-30: not chosen" in caplog.text


def test_choices_are_driven_on_every_validation_cell_after_every_step(arm, adapt, frozen):
    """Arms that step and one that does not, side by side; the loss decides where all succeed alike."""
    cells, jobs = lay_out(split="validation")[:2], []
    world = make_world({task: task for task in DEMOS})

    def run(some):
        jobs.extend(some)
        for job in some:
            for each in job.rollouts:
                yield Outcome(each.key, True, 1.0, 1, np.zeros((1, 4), np.float32), None)

    linear = identified.make("linear", "linear", make_base(), 0, (0, 1, 2))
    yaw = identified.make("yaw", "yaw", make_base(), 0, (0, 1, 2))
    protocol = PROTOCOL._replace(search_episodes=1)
    options = {"sgd": (0.01, 1e38, 1e-30), "ridge": (0.1, 1.0)}
    how = rates.Search(adapt, options, data(frozen, cells), protocol, world, run)
    kept = []
    record = rates.search([arm, linear, yaw], how, {}, kept.append)
    assert kept[-1] == record
    sane, absurd, still = record["heads"]["short"]
    assert (sane.choice, sane.success, sane.episodes) == (Choice("sgd", 0.01), 1.0, 2 * 2)  # cells, step counts
    assert (absurd.loss, absurd.episodes, absurd.still) == (None, 0, False)  # what diverged is not driven
    assert (still.moves, still.episodes) == (False, 0)  # nor is what moves nothing
    assert sane.moves
    assert [(each.choice, each.episodes) for each in record["linear"]["no_steps"]] == [
        (Choice("ridge", 0.1), 2),
        (Choice("ridge", 1.0), 2),
    ]
    assert all(math.isfinite(each.loss) for each in record["linear"]["no_steps"])
    assert "yaw" not in record
    assert rates.chosen(record, "yaw") == {}
    assert sum(job.action_map is not None for job in jobs) == 4
    assert all((job.theta is None) == (job.action_map is not None) for job in jobs)
    assert {each.condition for job in jobs for each in job.rollouts} == {cell.condition for cell in cells}


def test_demonstrations_that_tell_no_yaw_are_named(frozen):
    yaw = identified.make("yaw", "yaw", make_base(), 0, (0, 1, 2))
    frames = make_frames()
    still = frames._replace(actions={task: tuple(0 * a for a in each) for task, each in frames.actions.items()})
    cell = lay_out(conditions=None)[0]
    with pytest.raises(ValueError, match=rf"yaw on demonstrations \({cell.demos[0]},\) of push: .* no sideways motion"):
        identified.fit(yaw, {}, cell, data(frozen)._replace(frames=still))


def test_compiling_is_no_part_of_what_a_calibration_takes(frozen, monkeypatch):
    joints = identified.make("joints", "calibration", make_base(), 0, (0, 1, 2))
    front = {joints.learner.stage: frozen_output(make_base(), make_frames(), joints.learner.stage)}
    prediction._run.clear_cache()  # which other tests have filled
    traced, original = [], prediction.flow.sample
    monkeypatch.setattr(prediction.flow, "sample", lambda *inputs: traced.append(0) or original(*inputs))
    monkeypatch.setattr(identified.time, "perf_counter", lambda: len(traced))  # programs, in place of seconds
    choices, cell = {"no_steps": Choice("ridge", 0.1)}, lay_out(conditions=None)[0]
    assert not identified.fit(joints, choices, cell, data(frozen)._replace(frozen_outputs=front)).seconds
    assert traced


def test_one_run_gives_the_whole_curve(arm, adapt, frozen):
    arguments = (arm, adapt, {"short": Choice("sgd", 0.1)}, lay_out()[0], data(frozen), PROTOCOL)
    curve = {step: (theta, seconds, loss) for step, theta, seconds, loss in few_shot.adapted_at(*arguments, (0, 1, 2))}
    assert set(curve) == {0, 1, 2}
    jax.tree.map(np.testing.assert_array_equal, curve[0][0], arm.meta_params["theta"])
    assert curve[0][1:] == (0.0, None)
    assert all(math.isfinite(curve[step][2]) for step in (1, 2))
    [(step, theta, _, _)] = few_shot.adapted_at(*arguments, (2,))
    assert step == 2
    jax.tree.map(np.testing.assert_array_equal, theta, curve[2][0])


def test_protocol_section():
    fields = PROTOCOL._asdict() | {"steps": [0, 1, 2]}
    assert Protocol.from_config(fields) == PROTOCOL
    with pytest.raises(ValueError, match=r"no field protocol\.step; known: distribution, steps"):
        Protocol.from_config(fields | {"step": 1})
    del fields["short"]
    with pytest.raises(ValueError, match=r"protocol\.short is missing; the fields are: distribution"):
        Protocol.from_config(fields)
