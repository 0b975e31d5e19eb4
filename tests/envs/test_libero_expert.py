"""The scripted expert at work in the simulator, without pictures: it reaches goals, also when pushed off its course."""

import numpy as np
import pytest

from metalora_jax.envs.libero import Libero, demo_steps

pytestmark = pytest.mark.libero
START = 1_000

BOX_IN_BASKET = "pick_up_the_cream_cheese_and_place_it_in_the_basket"
BOWL_BY_ITS_RIM = "pick_up_the_black_bowl_from_table_center_and_place_it_on_the_plate"
KNOB = "turn_on_the_stove"
DRAWER = "open_the_middle_drawer_of_the_cabinet"


def play(env: Libero, start: int, disturb=None) -> tuple[bool, np.ndarray]:
    """Whether the expert succeeds, and its actions; `disturb(step, action)` gives what is executed instead."""
    env.reset(start)
    act, actions = env.expert(), []
    for step in range(demo_steps(env.task)):
        actions.append(act())
        if env.step(actions[-1] if disturb is None else disturb(step, actions[-1])).success:
            return True, np.stack(actions)
    return False, np.stack(actions)


@pytest.fixture(scope="module")
def basket():
    with Libero(BOX_IN_BASKET) as env:
        yield env


@pytest.mark.parametrize("task", [BOWL_BY_ITS_RIM, KNOB, DRAWER])
def test_the_goal_is_reached_soon(task):
    with Libero(task) as env:
        success, actions = play(env, START)
    assert success
    assert len(actions) < 200


def test_actions_are_smooth_and_within_limits(basket):
    success, actions = play(basket, START)
    assert success
    assert actions.shape[1:] == (7,)
    assert np.abs(actions).max() <= 1.0
    assert set(np.unique(actions[:, 6])) == {-1.0, 1.0}
    jumps = np.abs(np.diff(actions[:, :3], axis=0)).max(axis=1)
    assert np.median(jumps) < 0.15
    assert (np.linalg.norm(actions[:, :6], axis=1) < 0.02).mean() < 0.1  # it hardly ever stands still


def test_equal_starts_give_equal_demonstrations(basket):
    np.testing.assert_array_equal(play(basket, START)[1], play(basket, START)[1])


def test_it_comes_back_from_pushes(basket):
    rng = np.random.default_rng(0)

    def pushed(step, action):
        if step % 5 == 0:
            pushed.by = 0.4 * rng.normal(size=3)
        return np.concatenate([np.clip(action[:3] + pushed.by, -1, 1), action[3:]])

    assert play(basket, START, pushed)[0]


def test_it_picks_up_again_what_it_has_lost(basket):
    """The hand is forced open in mid-air: the box falls beside the basket, or into it."""
    dropped = []

    def drop(step, action):
        if len(dropped) < 12 and action[6] > 0 and basket.simulator.robots[0].controller.ee_pos[2] > 0.12:
            dropped.append(step)
            return np.array([*action[:6], -1.0])
        return action

    assert play(basket, START, drop)[0]
    assert len(dropped) == 12
