"""LIBERO as an instrument: repeatable, turned as policies are trained, its goals its own, shifted as conditions say."""

from itertools import pairwise

import numpy as np
import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.data.libero_hdf5 import Recording
from metalora_jax.envs import arm_starts
from metalora_jax.envs import libero_files as files
from metalora_jax.envs.conditions import Condition, execute
from metalora_jax.envs.libero import IDLE, WORLD, Libero, axis_angle, episode_start
from metalora_jax.envs.libero_restore import restore, seen_again
from metalora_jax.envs.picture_noise import spoiled
from metalora_jax.types import Demo

pytestmark = pytest.mark.libero
TASK = "put_the_bowl_on_the_stove"  # it has fixtures that are drawn
SEEN, DRAWN = 3, 77  # an initial state, a seed
WILD = Condition(2.0, (0.5, 0.5, 0.5), 2, (0.1, 0.0, 0.0), 0.5, (0.1, 0.0, 0.0), 0.5, 7, 2.0, 3.0, 4.0)


@pytest.fixture(scope="module")
def stove():
    # One simulator for all: it takes seconds to build, and OSMesa contexts disturb each other.
    with Libero(TASK, image_size=48, settle_steps=2) as env:
        yield env


def scene(env):
    """Where everything is: joints, and bodies without joints."""
    data = env.simulator.sim.data
    return np.concatenate([data.qpos, data.qvel, data.body_xpos.ravel()])


def play(env, start, commands, condition=Condition(), look=False):  # noqa: B008 (frozen)
    """The scene after the reset and after each command."""
    env.reset(start, condition)
    seen = [scene(env)]
    for command in commands:
        if look:
            env.observe()
        env.step(command)
        seen.append(scene(env))
    return np.stack(seen)


def random_commands(count):
    return np.random.default_rng(0).uniform(-1, 1, (count, 7))


@pytest.mark.parametrize("start", [SEEN, DRAWN])
def test_equal_starts_give_equal_episodes_whatever_ran_before(stove, start):
    first = play(stove, start, random_commands(4))
    frame = stove.observe()
    other = play(stove, start + 1, -random_commands(4), WILD)
    assert not np.array_equal(first[0], other[0])
    np.random.seed(5)  # noqa: NPY002 (LIBERO draws from it)
    again = play(stove, start, random_commands(4), look=True)
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(stove.observe().images, frame.images)
    np.testing.assert_array_equal(stove.observe().state, frame.state)


def test_a_reset_leaves_numpys_generator_alone(stove):
    np.random.seed(5)  # noqa: NPY002
    wanted = np.random.uniform()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    stove.reset(DRAWN)
    assert np.random.uniform() == wanted  # noqa: NPY002


def test_low_starts_are_liberos_initial_states(stove, monkeypatch):
    monkeypatch.setattr(stove, "_settle_steps", 0)
    stove.reset(SEEN)
    wanted = files.init_states(TASK)[SEEN]
    np.testing.assert_array_equal(stove.simulator.sim.get_state().flatten(), wanted)


def test_other_starts_are_drawn_fixtures_too(stove):
    def places(start):
        stove.reset(start)
        body = stove.simulator.sim.data.get_body_xpos
        return [body(name).copy() for name in ("akita_black_bowl_1_main", "flat_stove_1_main")]

    (bowl, fixture), (other_bowl, other_fixture) = places(DRAWN), places(DRAWN + 1)
    assert 1e-4 < np.abs(bowl - other_bowl).max() < 0.3
    assert 1e-4 < np.abs(fixture - other_fixture).max() < 0.3


def test_the_goal_is_liberos(stove):
    stove.reset(SEEN)
    step = stove.step(IDLE)
    assert (step.reward, step.success) == (0.0, False)
    data = stove.simulator.sim.data
    place = np.add(data.get_site_xpos("flat_stove_1_cook_region"), [0.0, 0.0, 0.03])
    data.set_joint_qpos("akita_black_bowl_1_joint0", [*place, 1.0, 0.0, 0.0, 0.0])
    steps = [stove.step(IDLE) for _ in range(5)]
    assert (steps[-1].reward, steps[-1].success) == (1.0, True)


def test_the_state_is_the_hand_and_the_fingers(stove):
    stove.reset(SEEN)
    before = stove.observe().state
    assert (before.shape, before.dtype) == ((WORLD.state_dim,), np.float32)
    for _ in range(8):
        stove.step(np.array([0, 0, 1.0, 0, 0, 0, 1.0]))
    after = stove.observe().state
    assert after[2] - before[2] > 0.03  # the hand has risen
    assert abs(after[6] - after[7]) < abs(before[6] - before[7]) - 0.02  # the fingers have closed
    np.testing.assert_allclose(np.linalg.norm(after[3:6]), np.pi, atol=0.3)  # it points down


def test_axis_angle_is_openvlas():
    np.testing.assert_allclose(axis_angle(np.array([np.cos(0.3), 0, np.sin(0.3), 0])), [0, 0.6, 0], atol=1e-12)
    np.testing.assert_allclose(axis_angle(np.array([-np.cos(0.3), 0, -np.sin(0.3), 0])), [0, 0.6 - 2 * np.pi, 0])
    assert axis_angle(np.array([1.0, 0, 0, 0])).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("axis", "pixel_axis"), [(2, 0), (1, 1)], ids=["up is up", "the robot's left is left"])
def test_images_are_turned_as_policies_are_trained(stove, axis, pixel_axis):
    stove.reset(SEEN)
    command = np.zeros(7)
    command[axis] = 1.0
    seen = [stove.observe().images]
    for _ in range(2):
        for _ in range(6):
            stove.step(command)
        seen.append(stove.observe().images)
    assert seen[0].shape == (2, 48, 48, 3)
    assert all(image.std() > 10 for image in seen[0])
    # What changes in the outer view moves to smaller rows as the hand rises, and to smaller columns as it goes left.
    places = np.arange(48)
    early, late = (np.abs(b[0].astype(int) - a[0]).sum(-1).sum(1 - pixel_axis) for a, b in pairwise(seen))
    assert (places * late).sum() / late.sum() < (places * early).sum() / early.sum() - 1


SHIFTS = [
    *(Condition(camera=(0.05, 0.0, 0.0)), Condition(camera_turn=(0.0, 0.1, 0.0)), Condition(light=0.6)),
    *(Condition(colour=0.5, colour_seed=1), Condition(texture=1.0)),
]
DYNAMICS = Condition(friction=0.5, mass=2.0, damping=3.0)


@pytest.mark.parametrize("condition", SHIFTS)
def test_picture_conditions_change_every_camera_and_nothing_else(stove, condition):
    stove.reset(SEEN)
    plain, before = stove.observe(), scene(stove)
    stove.reset(SEEN, condition)
    for image, shifted in zip(plain.images, stove.observe().images, strict=True):
        assert np.abs(image.astype(int) - shifted).mean() > 1
    np.testing.assert_array_equal(scene(stove), before)
    stove.reset(SEEN)
    np.testing.assert_array_equal(stove.observe().images, plain.images)


def test_another_view_is_agentviews_alone_of_every_moment_that_was_recorded(stove):
    """Live, and from stored states: the same pictures."""
    turned, commands = Condition(view=(30, 15, 1, 0, 0), picture_noise=5), random_commands(2)
    stove.reset(SEEN)
    model, plain, live, states = stove.origin().model_file, [], [], []
    for condition, seen in ((Condition(), plain), (turned, live)):
        stove.reset(SEEN, condition)
        for command in commands:
            stove.simulator.sim.forward()  # positions are those before the last 2 ms
            seen.append(stove.observe().images)
            states.append(stove.moment().state)
            stove.step(command)
    camera = stove._model.camera("agentview")
    np.testing.assert_allclose(camera.pos, [0.3693, 0.2132, 1.7532], atol=1e-12)
    np.testing.assert_allclose(camera.quat, [0.4754, 0.1548, 0.2682, 0.8235], atol=1e-4)
    np.testing.assert_array_equal(states[:2], states[2:])
    again = [frame.images for frame in seen_again(stove, np.stack(states[:2]), model, turned, SEEN)]
    for before, after, restored in zip(plain, live, again, strict=True):
        assert np.abs(after[0].astype(int) - before[0]).mean() > 5
        np.testing.assert_array_equal(after[1], before[1])
        np.testing.assert_array_equal(restored, after)


@pytest.mark.parametrize("start", [SEEN, DRAWN])
def test_a_start_of_the_arm_has_two_readings(stove, monkeypatch, start):
    """Published: it stands where it did, and its hand turns while things settle. Pose: it is there."""
    robot, pose = stove.simulator.robots[0], arm_starts.pose(450)

    def begun(reading, steps):
        monkeypatch.setattr(stove, "_settle_steps", steps)
        stove.reset(start, Condition(arm_start=450, arm_start_reading=reading) if reading else Condition())
        arm = stove._data.qpos[robot._ref_joint_pos_indexes].copy()
        others = np.setdiff1d(np.arange(stove._model.nq), robot._ref_joint_pos_indexes)
        return (
            arm,
            stove._data.qpos[others].copy(),
            robot.controller.goal_ori.copy(),
            robot.controller.ee_ori_mat.copy(),
        )

    plain, things, usual_goal, _ = begun(None, 0)
    assert np.array_equal(plain, arm_starts.NOMINAL) == (start == DRAWN)
    arm, same, biased, _ = begun("published", 0)
    np.testing.assert_array_equal(arm, plain)
    np.testing.assert_array_equal(same, things)
    np.testing.assert_array_equal(robot.controller.initial_joint, pose)
    arm, same, goal, hand = begun("pose", 0)
    np.testing.assert_array_equal(arm, pose)
    np.testing.assert_array_equal(same, things)
    np.testing.assert_array_equal(robot.controller.initial_joint, pose)
    np.testing.assert_allclose(goal, hand)
    np.testing.assert_allclose(biased, goal, atol=1e-6)
    assert angle(usual_goal, biased) > 10
    assert angle(begun("published", 10)[3], biased) < 0.5 * angle(usual_goal, biased)
    np.testing.assert_array_equal(begun(None, 0)[2], usual_goal)


@pytest.mark.parametrize("start", [SEEN, DRAWN])
def test_what_lies_about_is_displaced_and_fixtures_are_not(stove, monkeypatch, start):
    monkeypatch.setattr(stove, "_settle_steps", 0)

    def places(condition):
        stove.reset(start, condition)
        objects, fixtures = (
            np.stack([stove._data.body(thing.root_body).xpos for thing in things.values()])
            for things in (stove.simulator.objects_dict, stove.simulator.fixtures_dict)
        )
        return objects, fixtures

    (plain, fixed), (moved, same) = places(Condition()), places(Condition(displaced=5, displaced_seed=1))
    away = moved - plain
    assert 0.005 < np.linalg.norm(away[:, :2], axis=1).min() < np.linalg.norm(away[:, :2], axis=1).max() <= 0.1
    np.testing.assert_allclose(away[:, 2], 0, atol=1e-12)
    np.testing.assert_array_equal(same, fixed)
    np.testing.assert_array_equal(places(Condition())[0], plain)


def test_noise_is_of_agentview_from_the_first_picture_on_and_differs_from_step_to_step(stove):
    seen = {}
    for condition in (Condition(), Condition(picture_noise=10)):
        stove.reset(SEEN, condition)
        first = stove.observe().images
        np.testing.assert_array_equal(stove.observe().images, first)
        stove.step(IDLE)
        seen[condition.picture_noise] = first, stove.observe().images
    for step, (plain, noisy) in enumerate(zip(seen[0], seen[10], strict=True)):
        np.testing.assert_array_equal(noisy[0], spoiled(plain[0], 10, SEEN, step))
        np.testing.assert_array_equal(noisy[1], plain[1])


def angle(one, other):
    """Between two attitudes (3, 3) [degrees]."""
    return np.degrees(np.arccos(np.clip((np.trace(one.T @ other) - 1) / 2, -1, 1)))


def test_loose_objects_keep_their_textures(stove):
    model = stove.simulator.sim.model._model
    stove.reset(SEEN)
    worn = model.mat_texid.copy()
    stove.reset(SEEN, Condition(texture=1.0))
    changed = np.unique(model.geom_bodyid[np.isin(model.geom_matid, np.flatnonzero((model.mat_texid != worn).any(1)))])
    assert len(changed)
    assert not any("bowl" in model.body(model.body_rootid[body]).name for body in changed)


def test_dynamics_are_of_what_they_should_be(stove):
    model = stove.simulator.sim.model
    stove.reset(SEEN)
    mass, friction, damping = model.body_mass.copy(), model.geom_friction.copy(), model.dof_damping.copy()
    stove.reset(SEEN, DYNAMICS)
    bowl, hand = (model.body_name2id(name) for name in ("akita_black_bowl_1_main", "robot0_right_hand"))
    assert model.body_mass[bowl] / mass[bowl] == 2.0
    assert model.body_mass[hand] == mass[hand]
    np.testing.assert_allclose(model.geom_friction, friction * [0.5, 1.0, 1.0])
    np.testing.assert_allclose(model.dof_damping, damping * 3.0)


def test_action_conditions_are_executed(stove):
    condition = Condition(yaw=1.0, gain=(0.5, 1.0, 1.0), latency=1, mirror="x", gripper_flipped=True)
    commands = random_commands(4)
    executed = [IDLE, *(execute(command, condition) for command in commands[:-1])]  # open until it is told to close
    late = play(stove, SEEN, commands, condition)
    np.testing.assert_array_equal(late, play(stove, SEEN, executed))


@pytest.mark.parametrize("command", [np.zeros(4), np.zeros((1, 7)), np.full(7, np.nan)])
def test_bad_commands(stove, command):
    stove.reset(SEEN)
    with pytest.raises(ValueError, match=f"{TASK} must be 7 finite numbers"):
        stove.step(command)


def test_bad_starts(stove):
    with pytest.raises(ValueError, match="Seed must be between 0"):
        stove.reset(-1)


def test_bad_names_are_refused_before_anything_is_built():
    with pytest.raises(ValueError, match=r"no cameras named \['topview'\]; choose from agentview, eye_in_hand"):
        Libero(TASK, cameras=("topview",))
    with pytest.raises(ValueError, match="no LIBERO task named 'put_the_bowl'; near: put_the_bowl"):
        Libero("put_the_bowl")
    with pytest.raises(ValueError, match="image_size 0 and settle_steps -1"):
        Libero(TASK, image_size=0, settle_steps=-1)


def test_episodes_for_evaluation_are_initial_states():
    assert [episode_start(TASK, 0, number) for number in range(50)] == list(range(50))
    starts = [episode_start(TASK, draw, number) for draw in range(5) for number in range(10)]
    assert sorted(starts) == list(range(50))
    with pytest.raises(ValueError, match="episode 50 of put_the_bowl"):
        episode_start(TASK, 0, 50)
    assert WORLD.demo_steps(TASK) == 300


def test_what_belongs_into_a_drawer_is_drawn_there():
    task = "pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate"
    with Libero(task) as env:  # nobody looks, so it has no renderer
        for start in (60, 61, 60):  # the cabinet stands elsewhere each time
            env.reset(start)
            states = env.simulator.object_states_dict
            assert states["wooden_cabinet_1_top_region"].check_contain(states["akita_black_bowl_1"])


def test_a_recording_tells_where_everything_stood(stove, tmp_path):
    """LIBERO's official layout, whole: state and scene bring another simulator to the recorded moment."""
    stove.reset(DRAWN)
    stove.simulator.sim.forward()  # things still fall; MuJoCo's positions are those before the last 2 ms
    origin, moment, frame = stove.origin(), stove.moment(), stove.observe()
    np.testing.assert_allclose(moment.robot_state[2:5], frame.state[:3], atol=1e-6)
    np.testing.assert_allclose(moment.robot_state[:2], frame.state[6:], atol=1e-6)
    stove.reset(DRAWN + 1)
    assert np.abs(stove.observe().images.astype(int) - frame.images).mean() > 0.1
    restore(stove, moment.state, origin.model_file)
    np.testing.assert_array_equal(stove.moment().state, moment.state)
    assert np.abs(stove.observe().images.astype(int) - frame.images).mean() < 0.01
    assert origin.bddl_file_name == "bddl_files/libero_goal/put_the_bowl_on_the_stove.bddl"
    assert "(:language" in origin.bddl_file_content.lower()
    seen = (np.stack([values] * 2) for values in (frame.images, frame.state))
    recording = Recording(Demo(stove.instruction, *seen, np.zeros((2, 7), np.float32)))
    path = tmp_path / f"{TASK}_demo.hdf5"
    libero_hdf5.write_official(path, [recording._replace(origin=origin, moments=(moment,) * 2)], WORLD.cameras, {})
    (demo,) = libero_hdf5.read(path, WORLD.cameras)
    np.testing.assert_array_equal(demo.images, recording.demo.images)


def test_what_is_out_of_view_is_not_missed(stove, monkeypatch):
    from metalora_jax.envs import libero

    play(stove, SEEN, random_commands(4))
    seen = stove.observe().images
    left_out = [libero.out_of_view(stove._model, stove._data, camera).sum() for camera in stove._cameras]
    assert min(left_out) > 10
    monkeypatch.setattr(libero, "out_of_view", lambda model, data, camera: np.zeros(model.ngeom, bool))
    np.testing.assert_array_equal(stove.observe().images, seen)
