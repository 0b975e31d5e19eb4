"""The SO-101 in simulation: repeatable, told and read in LeRobot's units, shifted as a wrong calibration shifts it."""

import json
import sys

import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, libero_hdf5, sources
from metalora_jax.data.demos import DemoError
from metalora_jax.envs.collect import RecordingJob, record_file
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.envs.conditions import Condition, execute_joints
from metalora_jax.envs.experts import record
from metalora_jax.envs.so101 import model, simulator
from metalora_jax.envs.so101.kinematics import Arm, Pose
from metalora_jax.envs.so101.simulator import CAMERAS, JOINTS, LIMITS, SO101, WORLD
from metalora_jax.envs.so101.tasks import CUBES, MARKERS, SIDE, TASKS, Scene, instruction, solved
from metalora_jax.types import Demo

SEED = 11
ENDS = np.array(LIMITS)


@pytest.fixture(scope="module")
def lift():
    with SO101("lift-red", image_size=48) as env:
        yield env


@pytest.fixture(scope="module")
def demo(lift):
    return record(lift, SEED, max_steps=60, limits=ENDS)


def play(env, commands, condition=Condition()):  # noqa: B008 (frozen)
    """Whether any of these succeeds."""
    env.reset(SEED, condition)
    return any([env.step(command).success for command in commands])


def test_every_instruction_is_its_own_and_names_what_is_in_the_scene():
    said = [instruction(task) for task in TASKS]
    assert len(set(said)) == len(said) >= 12
    assert instruction("place-blue-white") == "place the blue cube on the white marker"
    assert {task.verb for task in TASKS.values()} == {"lift", "place", "push"} == {WORLD.suite(task) for task in TASKS}
    with pytest.raises(ValueError, match="no SO-101 task named 'lift-redd'; choose from lift-red"):
        instruction("lift-redd")


HERE, THERE = np.array([0.2, 0.0, SIDE / 2]), np.array([0.2, 0.1, SIDE / 2])


@pytest.mark.parametrize(
    ("task", "at", "moved", "change", "done"),
    [
        ("lift-red", HERE, (0, 0, 0.051), {}, True),
        ("lift-red", HERE, (0, 0, 0.049), {}, False),
        ("place-red-white", THERE, (0.02, 0, 0), {}, True),
        ("place-red-white", THERE, (0.03, 0, 0), {}, False),
        ("place-red-white", THERE, (0, 0, 0.01), {}, False),
        ("place-red-white", THERE, (0, 0, 0), {"touched": True}, False),
        ("place-red-white", THERE, (0, 0, 0), {"speed": 0.1}, False),
        ("push-red", HERE, (0.051, 0, 0), {}, True),
        ("push-red", HERE, (0.051, 0, 0.01), {}, False),
        ("push-red", HERE, (0, 0.1, 0), {}, False),  # aside is not away
        ("push-red", HERE, (0.06, 0, 0), {"speed": 0.1}, False),
    ],
)
def test_when_a_task_is_done(task, at, moved, change, done):
    scene = Scene(at + np.array(moved), HERE, 0.0, THERE if TASKS[task].marker else None, False)._replace(**change)
    assert solved(TASKS[task], scene) is done


def test_places_do_not_overlap_and_do_not_depend_on_the_task():
    loose = [True] * len(CUBES) + [False] * len(MARKERS)
    for seed in range(30):
        places = np.stack([place for place, _ in simulator._places(loose, np.random.default_rng(seed))])
        gaps = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(len(loose), 1)]
        assert gaps.min() > 0.07
        assert np.ptp(np.hypot(*places.T)) < 0.1


def test_clustered_meshes_are_smaller_and_as_large():
    angle = np.random.default_rng(0).normal(size=(4000, 3, 3))
    sphere = angle / np.linalg.norm(angle, axis=-1, keepdims=True)  # triangles all over, of all sizes
    vertices, faces = model.clustered(sphere, 0.25)
    assert len(vertices) < 500
    assert faces.min() == 0
    assert faces.max() < len(vertices)
    assert np.abs(np.ptp(vertices, axis=0) - 2).max() < 0.1
    assert len(np.unique(np.sort(faces, axis=1), axis=0)) == len(faces)


def test_a_damaged_mesh_is_named(tmp_path):
    (tmp_path / "jaw.stl").write_bytes(b"\0" * 80 + (2).to_bytes(4, "little") + b"\0" * 50)
    with pytest.raises(ValueError, match=r"jaw\.stl: 134 bytes are no binary STL of 2 triangles"):
        model.read_stl(tmp_path / "jaw.stl")


def test_without_the_package_the_world_is_known_and_says_what_to_install(monkeypatch):
    monkeypatch.setattr(model, "PACKAGE", "no_such_package_of_arms")
    assert len(WORLD.tasks()) == 12
    with pytest.raises(model.MissingSO101, match=r"install it with: pip install 'metalora_jax\[so101\]'"):
        model.folder()


@pytest.mark.so101
def test_the_limits_are_the_model_s(lift):
    degrees = np.degrees(lift._model.jnt_range[: len(JOINTS)])
    np.testing.assert_allclose(ENDS[:-1], degrees[:-1], atol=0.01)
    assert [lift._model.jnt(k).name for k in range(len(JOINTS))] == list(JOINTS)


@pytest.mark.so101
def test_the_package_s_own_code_is_never_imported(lift):
    assert lift.instruction
    assert not {model.PACKAGE, "lerobot", "torch"} & set(sys.modules)


@pytest.mark.so101
def test_joints_are_found_for_a_pose_within_reach(lift):
    arm, point = Arm(lift._model), np.array([0.02, 0.0, -0.0972])
    wanted = Pose(np.array([0.2, 0.05, 0.03]), np.array([1.0, 0.25, 0.0]) / np.hypot(1, 0.25))
    joints = arm.solve(wanted, np.radians(simulator.HOME[:5]), point)
    found = arm.pose(joints, point)
    assert np.linalg.norm(found.place - wanted.place) < 5e-4
    assert found.jaw @ wanted.jaw > 0.999


@pytest.mark.so101
def test_equal_starts_give_equal_episodes_whatever_ran_before(lift):
    commands = np.array(simulator.HOME) + np.random.default_rng(0).uniform(-20, 20, (4, 6))
    seen = []
    for between in (Condition(), Condition(joint_offset=(5.0,) * 6, latency=2, camera=(0.05, 0, 0), colour=0.5)):
        lift.reset(SEED + 1, between)
        lift.step(commands[0])
        lift.reset(SEED)
        seen.append([lift._data.qpos.copy() for command in commands if lift.step(command)])
        seen[-1].append(lift.observe().images)
    for first, second in zip(*seen, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.so101
@pytest.mark.parametrize("task", ["lift-green", "place-blue-purple", "push-red"])
@pytest.mark.parametrize("fps", simulator.RATES)
def test_the_expert_solves_each_kind_of_task_at_each_rate(task, fps):
    with SO101(task, image_size=8, fps=fps) as env:
        for seed in (1, 2):
            env.reset(seed)
            act = env.expert()
            assert any(env.step(act()).success for _ in range(6 * fps)), seed


@pytest.mark.so101
def test_the_state_is_what_the_arm_was_told(lift):
    lift.reset(SEED)
    target = np.array([20.0, -50.0, 40.0, 60.0, 10.0, 70.0])
    for _ in range(15):
        lift.step(target)
    frame = lift.observe()
    assert frame.images.shape == (len(CAMERAS), 48, 48, 3)
    np.testing.assert_allclose(frame.state, target, atol=4.0)  # the servos give way to gravity


@pytest.mark.so101
def test_a_demonstration_replays_to_success_and_a_wrong_calibration_spoils_it(lift, demo):
    assert demo.instruction == "lift the red cube"
    assert play(lift, demo.actions)
    assert not play(lift, demo.actions, Condition(joint_offset=(0.0, -8.0, 0.0, 0.0, 0.0, 0.0)))


@pytest.mark.so101
def test_relabelled_demonstrations_succeed_under_the_shift_and_read_as_it_reads(lift, demo):
    condition = Condition(joint_offset=(8.0, -6.0, 5.0, -5.0, 4.0, 3.0), joint_gain=(0.9, 1.1, 1.0, 1.05, 1.0, 1.0))
    shifted = record(lift, SEED, condition, max_steps=60, limits=ENDS)
    np.testing.assert_array_equal(shifted.images, demo.images)  # the arm moves the same
    np.testing.assert_allclose(execute_joints(shifted.actions, condition), demo.actions, atol=1e-3)
    np.testing.assert_allclose(execute_joints(shifted.state, condition), demo.state, atol=1e-3)
    assert play(lift, shifted.actions, condition)
    lift.reset(SEED, condition)
    np.testing.assert_allclose(lift.observe().state, shifted.state[0], atol=1e-3)


@pytest.mark.so101
def test_latency_delays_targets(lift):
    commands = np.array(simulator.HOME) + np.random.default_rng(1).uniform(-20, 20, (5, 6))
    lift.reset(SEED, Condition(latency=2))
    hold = [lift._queue[0] for _ in range(2)]
    late = [lift._data.qpos.copy() for command in commands if lift.step(command)]
    lift.reset(SEED)
    early = []
    for command in [*((radians - lift._zero) * lift._scale for radians in hold), *commands[:-2]]:
        lift.step(command)
        early.append(lift._data.qpos.copy())
    np.testing.assert_allclose(late, early, atol=1e-9)


@pytest.mark.so101
def test_one_camera_moves_alone(lift):
    def seen(condition):
        lift.reset(SEED, condition)
        return lift.observe().images.astype(int)

    plain = seen(Condition())
    for k, name in enumerate(CAMERAS):
        moved = np.abs(seen(Condition(camera=(0.02, 0.0, 0.0), camera_turn=(0.0, 0.0, 0.1), moved=(name,))) - plain)
        assert moved[k].mean() > 1
        assert moved[1 - k].max() == 0


@pytest.mark.so101
@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (Condition(yaw=1.0), "condition yaw does not fit the world so101, whose commands are joint targets"),
        (Condition(joint_offset=(1.0, 2.0)), "joint_offset has 2 numbers; so101 has 6 joints: shoulder_pan"),
        (Condition(moved=("top",)), "moved names no camera of so101: 'top'; known: front, wrist"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(lift, condition, said):
    with pytest.raises(ValueError, match=said):
        lift.reset(SEED, condition)


@pytest.mark.so101
@pytest.mark.parametrize("command", [np.zeros(4), np.full(6, np.nan)])
def test_bad_commands(lift, command):
    lift.reset(SEED)
    with pytest.raises(ValueError, match="lift-red must be 6 finite numbers"):
        lift.step(command)


def test_settings_that_are_not_there():
    with pytest.raises(ValueError, match=r"no cameras named \['top'\]; choose from front, wrist"):
        SO101("lift-red", cameras=("top",))
    with pytest.raises(ValueError, match="fps = 50 is no rate of the SO-101's world; choose from 10, 30"):
        SO101("lift-red", fps=50)


@pytest.mark.so101
def test_collecting_under_conditions_says_where_it_came_from(tmp_path):
    conditions = ConditionRange(joint_offset=(4.0,) * 5 + (0.0,))
    path = tmp_path / "push-green_demo.hdf5"
    job = RecordingJob("push-green", path, 2, SEED, 1.0, "so101", 16, conditions, {"fps": 10})
    assert record_file(job).failures <= 2
    demos = libero_hdf5.read(path, CAMERAS)
    assert [demo.state.shape[1] for demo in demos] == [6, 6]
    known = libero_hdf5.provenance_of(path)
    assert known["simulator"] == {"fps": 10}
    assert all(len(drawn["joint_offset"]) == 6 for drawn in known["conditions"])


@pytest.mark.parquet
def test_a_lerobot_dataset_has_lerobot_s_names_of_the_joints(tmp_path):
    demo = Demo("lift the red cube", np.zeros((3, 2, 8, 8, 3), np.uint8), np.ones((3, 6), "f"), np.ones((3, 6), "f"))
    joints = [f"{joint}.pos" for joint in JOINTS]
    named = {"state": joints, "action": joints}
    lerobot_v3.write(tmp_path / "set", [demo], CAMERAS, fps=10, robot_type="so101_follower", joints=named)
    features = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())["features"]
    assert features["action"]["names"] == features["observation.state"]["names"] == joints
    assert joints[0] == "shoulder_pan.pos"
    assert {"observation.images.front", "observation.images.wrist"} <= set(features)
    [back] = sources.open(tmp_path / "set", CAMERAS).demos("lift the red cube")
    np.testing.assert_array_equal(back.actions, demo.actions)
    with pytest.raises(DemoError, match="has 6 dimensions, and 5 joints are named"):
        lerobot_v3.write(tmp_path / "other", [demo], CAMERAS, fps=10, joints={"action": joints[:5]})


@pytest.mark.so101
def test_a_damaged_model_is_built_again(tmp_path, monkeypatch):
    mujoco = pytest.importorskip("mujoco")
    small = "<mujoco><worldbody><body><joint/><geom size='1'/></body></worldbody></mujoco>"
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path))
    monkeypatch.setattr(model, "build", lambda source: mujoco.MjSpec.from_string(small))
    assert model.load().nq == 1
    [kept] = (tmp_path / "so101").iterdir()
    whole = kept.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:-8] + b"damaged!"):
        kept.write_bytes(damaged)
        assert model.load().nq == 1
        assert kept.read_bytes() == whole


@pytest.mark.so101
def test_a_view_says_where_things_are_in_the_pictures(lift):
    seen = 0
    for start in range(3):
        view = lift.view(start, np.array([25.0 * start - 25, -50, 30, 80, 0, 30]))
        assert view.points.shape == (2, len(simulator.THINGS), 2)
        red = view.frame.images[0].astype(int)
        red = (red[..., 0] > 120) & (red[..., 1:].max(axis=-1) < 90)  # the front camera's, and nothing else is red
        middle = (np.argwhere(red).mean(axis=0)[::-1] + 0.5) / (red.shape[0] / 2) - 1
        np.testing.assert_allclose(view.points[0, simulator.THINGS.index("red cube")], middle, atol=0.12)
        seen += int(np.isfinite(view.points[1]).all(axis=-1).sum())
        assert np.isnan(view.points).any(axis=-1).sum() == np.isnan(view.points).all(axis=-1).sum()
    assert 0 < seen < 3 * len(simulator.THINGS)  # the wrist's camera sees some
    np.testing.assert_allclose(view.frame.state, [25, -50, 30, 80, 0, 30], atol=1e-3)
    with pytest.raises(RuntimeError, match="call reset"):
        lift.observe()  # the episode is over
