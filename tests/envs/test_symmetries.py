"""Symmetries against physics: mirrored commands do the mirrored thing, and cameras see it."""

import warnings

import numpy as np
import pytest

from metalora_jax.data.symmetry import NAMES, symmetry
from metalora_jax.envs.metaworld import CAMERAS, MetaWorld
from metalora_jax.envs.symmetries import ROBOTS
from metalora_jax.types import Demo

MIRROR = symmetry(ROBOTS["metaworld"], ("topview",), "mirror")
START = 5


@pytest.fixture(scope="module")
def reach():
    with MetaWorld("reach", ("topview",), image_size=64) as env:
        yield env


def played(env, actions):
    """The demonstration that `actions` make of an episode."""
    env.reset(START)
    seen = []
    for action in actions:
        seen.append(env.observe())
        env.step(action)
    images, states = zip(*seen, strict=True)
    return Demo(env.instruction, np.stack(images), np.stack(states), np.asarray(actions, np.float32))


@pytest.mark.metaworld
def test_metaworld_s_cameras_are_where_they_are_said_to_be(reach):
    data, model = reach._env.data, reach._env.model
    reach.reset(START)
    for camera, eye in ROBOTS["metaworld"].eyes.items():
        number = model.camera(CAMERAS[camera]).id
        right, up, _ = data.cam_xmat[number].reshape(3, 3).T
        turned = -1 if CAMERAS[camera] == "corner2" else 1  # its pictures are turned upright
        place = eye.position if camera == "topview" else (0.75, 0.075, 0.7)
        np.testing.assert_allclose(data.cam_xpos[number], place, atol=1e-6)
        np.testing.assert_allclose((eye.right, eye.up), (turned * right, turned * up), atol=1e-3)


@pytest.mark.metaworld
@pytest.mark.parametrize("name", NAMES)
def test_moved_commands_take_the_hand_the_moved_way(reach, name):
    rng = np.random.default_rng(0)
    moves = np.repeat(rng.uniform(-1, 1, (8, 4)), 5, axis=0)  # held long enough to go somewhere
    moves[:, 2] = np.abs(moves[:, 2]) * 0.3  # stay clear of the table
    demo = played(reach, moves)
    moved = symmetry(ROBOTS["metaworld"], ("topview",), name).demo(demo)
    again = played(reach, moved.actions)
    wanted, way = (each.state[:, :3] - each.state[0, :3] for each in (moved, again))
    unmoved = demo.state[:, :3] - demo.state[0, :3]
    np.testing.assert_allclose(way, wanted, atol=0.02)  # the arm behind the hand is not quite symmetric
    assert np.abs(way - unmoved).max() > 0.1


@pytest.mark.metaworld
def test_a_mirrored_scene_is_seen_as_the_mirrored_picture(reach):
    import mujoco

    def changed(x):
        """Where the picture differs for a puck at (x, 0.75) from one without."""
        pictures = []
        for place in ((x, 0.75, 0.02), (0.0, -2.0, 0.02)):
            reach.reset(START)
            reach._env._set_obj_xyz(np.array(place))
            mujoco.mj_forward(reach._env.model, reach._env.data)
            pictures.append(reach.observe().images)
        shown, empty = (picture[None].astype(int) for picture in pictures)
        return np.abs(shown - empty).max(axis=-1, keepdims=True).repeat(3, axis=-1) > 20

    here, there = changed(0.15), changed(-0.15)
    state, action = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
    mirrored = MIRROR.demo(Demo("", here.astype(np.uint8), state, action)).images.astype(bool)
    both = (mirrored & there).sum() / (mirrored | there).sum()
    assert here.any()
    assert both > 0.8, both
    assert (here & there).sum() == 0


@pytest.fixture(scope="module")
def panda():
    """LIBERO's arm, gripper and controller over a table of robosuite's: that needs none of LIBERO's assets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # robosuite warns that nobody has configured it
        import robosuite
        from robosuite.controllers import load_controller_config

        env = robosuite.make(
            "Lift",
            robots="Panda",
            controller_configs=load_controller_config(default_controller="OSC_POSE"),
            initialization_noise=None,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            hard_reset=False,
            control_freq=20,
        )
    yield env
    env.close()


def panda_state(env):
    """(8,), as policies for LIBERO get it."""
    from robosuite.utils.transform_utils import convert_quat, quat2axisangle

    data = env.sim.data
    turn = quat2axisangle(convert_quat(data.get_body_xquat(env.robots[0].robot_model.eef_name), to="xyzw"))
    fingers = data.qpos[env.robots[0]._ref_gripper_joint_pos_indexes]
    return np.concatenate([data.site_xpos[env.robots[0].eef_site_id], turn, fingers])


def mirrored_by_hand(states, actions=None):
    actions = np.zeros((len(states), 7)) if actions is None else actions
    images = np.zeros((len(states), 2, 4, 4, 3), np.uint8)
    both = symmetry(ROBOTS["libero"], ("agentview", "eye_in_hand"), "mirror")
    return both.demo(Demo("", images, np.array(states, np.float32), np.array(actions, np.float32)))


@pytest.mark.libero
def test_an_arm_with_mirrored_joints_reports_the_mirrored_state(panda):
    """A Panda is its own mirror image joint by joint: about the axes that stand upright, angles change sign."""
    panda.reset()
    rng, states, others = np.random.default_rng(0), [], []
    data, arm, gripper = (
        panda.sim.data,
        panda.robots[0]._ref_joint_pos_indexes,
        panda.robots[0]._ref_gripper_joint_pos_indexes,
    )
    nominal = data.qpos[arm].copy()
    for _ in range(50):
        joints = nominal + 0.5 * rng.normal(size=7)
        fingers = rng.uniform(0, 0.04, 2) * [1, -1]
        opposite = joints * [-1, 1, -1, 1, -1, 1, -1]
        opposite[6] += np.pi / 2  # the hand is mounted at 45 degrees
        for wanted, ends, seen in ((joints, fingers, states), (opposite, -fingers[::-1], others)):
            data.qpos[arm], data.qpos[gripper] = wanted, ends
            panda.sim.forward()
            seen.append(panda_state(panda))
    assert np.linalg.norm(np.array(states)[:, 3:6], axis=1).max() > np.pi
    np.testing.assert_allclose(mirrored_by_hand(states).state, others, atol=2e-3)


@pytest.mark.libero
def test_mirrored_commands_move_and_turn_the_arm_the_mirrored_way(panda):
    rng = np.random.default_rng(1)
    actions = np.repeat(rng.uniform(-1, 1, (8, 7)) * [1, 1, 1, 0.4, 0.4, 0.4, 1], 4, axis=0)

    def played(actions):
        panda.reset()
        panda.robots[0].gripper.current_action = np.zeros(1)  # it outlasts a reset
        states = []
        for action in actions:
            states.append(panda_state(panda))
            panda.step(action)
        return np.array(states)

    states = played(actions)
    mirrored = mirrored_by_hand(states, actions)
    again = played(mirrored.actions)
    errors = np.abs(again - mirrored.state).max(axis=0)
    assert errors[:3].max() < 1e-3  # [m]
    assert errors[3:6].max() < 1e-2  # [rad]
    assert errors[6:].max() < 1e-3  # [m]
    assert (np.ptp(states, axis=0) > [0.05, 0.05, 0.05, 0.2, 0.2, 0.2, 0.01, 0.01]).all()


@pytest.mark.libero
def test_libero_s_hand_camera_is_where_it_is_said_to_be(panda):
    panda.reset()
    eye, model = ROBOTS["libero"].eyes["eye_in_hand"], panda.sim.model
    number = model.camera_name2id("robot0_eye_in_hand")
    assert model.body_id2name(model.cam_bodyid[number]) == panda.robots[0].robot_model.eef_name
    np.testing.assert_allclose(model.cam_pos[number], eye.position, atol=1e-6)
    w, x, y, z = model.cam_quat[number]
    right = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    np.testing.assert_allclose(right, eye.right, atol=1e-4)
