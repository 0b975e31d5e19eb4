"""The protocol: what is compared is paired, and rates come from validation cells."""

import math

import jax
import numpy as np
import pytest

from metalora_jax.adapters import Rule
from metalora_jax.envs.conditions import ConditionRange
from metalora_jax.evaluation import few_shot
from metalora_jax.evaluation.arms import Adaptation, Arm, Choice
from metalora_jax.evaluation.few_shot import Protocol, budgets, cells, support
from metalora_jax.training.learner import learner
from metalora_jax.training.meta_train import frozen_bank
from tests.tiny_base import make_base, make_frames

PROTOCOL = Protocol(
    distribution="conditions",
    steps=(0, 1, 2),
    shots=(1, 2),
    shots_steps=(2,),
    draws_per_task=3,
    episodes=1,
    retention_steps=0,
    frames=3,
    flow_draws=1,
    max_norm=1.0,
    short=2,
)
TURN = ConditionRange(yaw=(-math.pi, math.pi))
DEMOS = {"reach": 4, "push": 4}


def lay_out(shots=1, split="test", seed=0, conditions=TURN):
    return cells(PROTOCOL, split, DEMOS, conditions, shots, 3, seed)


@pytest.fixture(scope="module")
def bank():
    return frozen_bank(make_base(), make_frames(), "context")


@pytest.fixture(scope="module")
def arm():
    rules = (Rule("action_.*", rank=2, alpha=2.0, b_std=0.1),)
    learn = learner(make_base(), rules, jax.random.key(0))
    return Arm("heads", 0, learn, rules, {"theta": learn.theta}, PROTOCOL.max_norm)


@pytest.fixture(scope="module")
def adapt():
    return Adaptation(PROTOCOL.flow_draws)


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
    with pytest.raises(ValueError, match="push has 4 demonstrations: 4 shots leave none to check on; record more"):
        lay_out(shots=4)


def test_support_minibatches_do_not_depend_on_how_many_follow(bank):
    cell = lay_out()[0]
    few, many = (support(cell, make_frames(), bank, steps, 3) for steps in (2, 7))
    assert jax.tree.leaves(many)[0].shape[:2] == (7, 3)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:2]), few, many)


def test_support_is_labelled_for_the_cell_s_condition(bank):
    cell = lay_out()[0]
    plain = support(cell._replace(condition=None), make_frames(), bank, 1, 3)
    shifted = support(cell, make_frames(), bank, 1, 3)
    jax.tree.map(np.testing.assert_array_equal, plain.inputs, shifted.inputs)
    assert not np.allclose(plain.target.actions, shifted.target.actions, atol=1e-3)


def test_budgets():
    assert budgets(PROTOCOL) == {"short": (1, 2)}
    assert budgets(PROTOCOL._replace(steps=(0, 1, 10, 30), short=10)) == {"short": (1, 10), "long": (30,)}


def search(arm, adapt, bank, rates):
    validation = lay_out(split="validation")[:1]
    return few_shot.search(arm, adapt, {"sgd": rates}, validation, make_frames(), bank, PROTOCOL)


def test_search_tells_a_sane_rate_from_absurd_ones(arm, adapt, bank):
    assert search(arm, adapt, bank, (1e4, 0.01, 1e38)) == {"short": Choice("sgd", 0.01)}


def test_search_with_nothing_finite_to_choose_from(arm, adapt, bank):
    with pytest.raises(ValueError, match=r"every inner rate diverges for heads: .*; search lower rates"):
        search(arm, adapt, bank, (1e38,))


def test_one_run_gives_the_whole_curve(arm, adapt, bank):
    arguments = (arm, adapt, {"short": Choice("sgd", 0.1)}, lay_out()[0], make_frames(), bank, PROTOCOL)
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
