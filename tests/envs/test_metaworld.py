"""The simulator as an instrument: repeatable, upright, and shifted in exactly the ways a condition says."""

from itertools import pairwise

import numpy as np
import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.envs.collect import RecordingJob, collect, record_file
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.experts import record
from metalora_jax.envs.metaworld import CAMERAS, INSTRUCTIONS, MetaWorld, instruction

pytestmark = pytest.mark.metaworld
SEED = 11


def play(env, seed, commands, condition=Condition()):  # noqa: B008 (frozen)
    """Full states after the reset and after each command, and whether any step succeeded."""
    env.reset(seed, condition)
    states, success = [env.full_state], False
    for command in commands:
        success |= env.step(command).success
        states.append(env.full_state)
    return np.stack(states), success


def first_frame(env, condition):
    env.reset(SEED, condition)
    return env.observe()


@pytest.fixture
def drawer():
    with MetaWorld("drawer-close") as env:
        yield env


@pytest.fixture(scope="module")
def demo():
    with MetaWorld("drawer-close", image_size=16) as env:
        return record(env, SEED)


def test_equal_seeds_give_equal_episodes_whatever_ran_before(drawer):
    commands = np.random.default_rng(0).uniform(-1, 1, (5, 4))
    states, _ = play(drawer, SEED, commands)
    frame = drawer.observe()
    other, _ = play(drawer, SEED + 1, commands[::-1], Condition(yaw=2.0, latency=2, camera=(0.2, 0.0, 0.0), light=0.5))
    assert not np.array_equal(states[0], other[0])
    again, _ = play(drawer, SEED, commands)
    np.testing.assert_array_equal(again, states)
    np.testing.assert_array_equal(drawer.observe().images, frame.images)


def test_demonstration_replays_to_success(drawer, demo):
    assert demo.instruction == INSTRUCTIONS["drawer-close"]
    states, success = play(drawer, SEED, demo.actions)
    assert success
    np.testing.assert_allclose(states[:-1, :4], demo.state, atol=1e-4)


def test_relabelled_demonstration_succeeds_under_the_shift_and_the_plain_one_does_not(drawer, demo):
    condition = Condition(
        *(2.0, (0.8, 1.2, 1.0)), tilt=(0.3, 0.5, 0.0), mirror="z", dead_zone=(0.2, 0.1, 0.0), gripper_flipped=True
    )
    shifted = record(drawer, SEED, condition)
    assert shifted is not None
    np.testing.assert_array_equal(shifted.state, demo.state)  # the robot moves the same; only the labels differ
    states, success = play(drawer, SEED, shifted.actions, condition)
    assert success
    np.testing.assert_allclose(states[:-1, :4], demo.state, atol=1e-4)
    assert not play(drawer, SEED, demo.actions, condition)[1]


def test_noise_pushes_the_hand_and_not_the_labels(demo):
    with MetaWorld("drawer-close", image_size=16) as env:
        pushed = record(env, SEED, noise=0.5)
    assert pushed is not None
    np.testing.assert_array_equal(pushed.actions[0], demo.actions[0])  # pushed already, and not labelled so
    assert np.abs(pushed.state[1:20] - demo.state[1:20]).max() > 1e-3


def test_latency_delays_commands(drawer):
    commands = np.random.default_rng(1).uniform(-1, 1, (6, 4))
    late, _ = play(drawer, SEED, commands, Condition(latency=2))
    early, _ = play(drawer, SEED, np.concatenate([np.zeros((2, 4)), commands[:-2]]))
    np.testing.assert_array_equal(late, early)


def test_the_goal_is_in_the_full_state():
    # `reach` shows no object at its goal: an expert that does not read it from the state cannot succeed.
    with MetaWorld("reach", image_size=16) as env:
        env.reset(SEED)
        goal = env._env._target_pos
        np.testing.assert_allclose(env.full_state[-3:], goal)
        env.step(np.zeros(4))
        np.testing.assert_allclose(env.full_state[-3:], goal)
        assert np.abs(goal).min() > 0


def test_the_state_is_the_robot_s_alone(drawer):
    frame = first_frame(drawer, Condition())
    assert frame.state.shape == (4,)
    assert frame.state.dtype == np.float32
    np.testing.assert_allclose(frame.state[:3], drawer._env.get_endeff_pos(), atol=1e-6)


def test_frames_show_something_and_stand_upright(drawer):
    drawer.reset(SEED)
    seen = [drawer.observe().images]
    for _ in range(2):
        for _ in range(12):
            drawer.step(np.array([0.0, 0.0, 1.0, 0.0]))
        seen.append(drawer.observe().images)
    assert seen[0].shape == (2, 64, 64, 3)
    assert seen[0].dtype == np.uint8
    assert all(image.std() > 10 for image in seen[0])
    # The hand rises, so what changes in the side view must move to smaller row numbers.
    rows = np.arange(64)[:, None]
    low, high = (np.abs(b[0].astype(int) - a[0]).sum(-1) for a, b in pairwise(seen))
    assert (rows * high).sum() / high.sum() < (rows * low).sum() / low.sum() - 1


@pytest.mark.parametrize(
    "condition",
    [
        *(Condition(camera=(0.1, 0.0, 0.0)), Condition(light=0.6), Condition(camera_turn=(0.0, 0.0, 0.2))),
        *(Condition(colour=0.5, colour_seed=1), Condition(texture=1.0)),
    ],
)
def test_picture_conditions_change_every_camera_and_nothing_else(drawer, condition):
    plain, shifted = first_frame(drawer, Condition()), first_frame(drawer, condition)
    assert condition.changes_scene
    for before, after in zip(plain.images, shifted.images, strict=True):
        assert np.abs(before.astype(int) - after).mean() > 1
    np.testing.assert_array_equal(plain.state, shifted.state)


def test_textures_are_drawn_by_seed_and_not_for_good(drawer):
    plain = first_frame(drawer, Condition())
    first, second = (first_frame(drawer, Condition(texture=1.0, texture_seed=seed)).images for seed in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first_frame(drawer, Condition()).images, plain.images)
    np.testing.assert_array_equal(first_frame(drawer, Condition(texture=1.0)).images, first)


def test_dynamics_change_how_things_move_and_not_for_good():
    commands = np.random.default_rng(0).uniform(-1, 1, (20, 4))
    with MetaWorld("push", image_size=16) as env:
        plain, _ = play(env, SEED, commands)
        for condition in (Condition(damping=50.0), Condition(friction=0.1), Condition(mass=50.0)):
            model = env._env.model
            before = [array.copy() for array in (model.dof_damping, model.geom_friction, model.body_mass)]
            env.reset(SEED, condition)
            now = (model.dof_damping, model.geom_friction, model.body_mass)
            assert sum(not np.array_equal(a, b) for a, b in zip(before, now, strict=True)) == 1
            assert condition.changes_scene
            again, _ = play(env, SEED, commands)
            np.testing.assert_array_equal(again, plain)


@pytest.mark.parametrize("condition", [Condition(yaw=1.0), Condition(gain=(2.0, 1.0, 1.0)), Condition(latency=2)])
def test_action_conditions_are_hidden_from_the_picture(drawer, condition):
    np.testing.assert_array_equal(first_frame(drawer, condition).images, first_frame(drawer, Condition()).images)
    assert not condition.changes_scene


@pytest.mark.parametrize("command", [np.zeros(3), np.zeros((1, 4)), np.array([0.0, np.nan, 0.0, 0.0])])
def test_bad_commands(drawer, command):
    drawer.reset(SEED)
    with pytest.raises(ValueError, match="drawer-close must be 4 finite numbers"):
        drawer.step(command)


def test_nothing_to_see_before_the_first_reset(drawer):
    with pytest.raises(RuntimeError, match=r"drawer-close has no state yet; call reset\(start\) first"):
        drawer.observe()


def test_unknown_names():
    with pytest.raises(ValueError, match=r"'door-opem'; near: .*door-open"):
        instruction("door-opem")
    with pytest.raises(ValueError, match="'xyzzy'; see INSTRUCTIONS"):
        instruction("xyzzy")
    with pytest.raises(ValueError, match=r"no cameras named \['eye'\]; choose from agentview, topview"):
        MetaWorld("reach", cameras=("agentview", "eye"))


def test_collecting_keeps_what_is_there_and_says_where_it_came_from(tmp_path):
    job = RecordingJob(
        "drawer-close",
        tmp_path / "drawer-close_demo.hdf5",
        demos=2,
        first_seed=SEED,
        noise=0.0,
        world="metaworld",
        image_size=64,
    )
    done = record_file(job)
    assert done.failures == 0
    assert [len(d.images) == len(d.actions) for d in libero_hdf5.read(job.path, tuple(CAMERAS))] == [True] * 2
    written = job.path.stat().st_mtime_ns
    assert list(collect([job], workers=1)) == []
    assert job.path.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="no Meta-World task named 'drawer'"):
        next(collect([job, job._replace(task="drawer")], workers=1))
