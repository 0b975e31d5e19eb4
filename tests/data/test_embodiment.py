"""Names travel: what data say of their robot is recorded, and other data are held against it."""

import dataclasses

import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, sources
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.data.sources.embodiment import UNKNOWN, Embodiment, common
from metalora_jax.types import Demo

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
CAMERAS = ("top", "wrist")
SO100 = tuple(f"{name}.pos" for name in JOINTS)


def demos(scale=60.0, width=6):
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.normal(size=(40, width)), axis=0)
    values = (scale * steps / np.abs(steps).max(axis=0)).astype(np.float32)
    return [Demo("lift the cube", np.zeros((40, 2, 8, 8, 3), np.uint8), values, values)]


def write(root, recorded=None, fps=30, joints=SO100, cameras=CAMERAS):
    named = {} if joints is None else {"state": joints, "action": joints}
    lerobot_v3.write(root, recorded or demos(), cameras, fps, "so100_follower", joints=named)
    return root


def one_camera():
    return [demo._replace(images=demo.images[:, :1]) for demo in demos()]


@pytest.fixture
def known(tmp_path):
    """Of a base of +-100 (60 here) that was made from a data set as lerobot writes it."""
    return sources.open(write(tmp_path / "base"), CAMERAS).embodiment.measured(demos())


def held(root, known, cameras=CAMERAS):
    """What every command says that reads data for a base."""
    source = sources.open(root, cameras)
    said = embodiments.check(source.embodiment, known)
    recorded = [demo for demo in source.demos(source.only())]
    return said + embodiments.check_units(source.embodiment.measured(recorded), known)


def test_a_data_set_says_what_it_knows(known):
    told = 30.0, "so100_follower", (8, 8)
    assert known == Embodiment(CAMERAS, SO100, SO100, known.state_units, known.action_units, *told)
    assert known.state_units == (*["degrees or -100 to 100"] * 5, "")
    assert Embodiment.from_json(known.to_json()) == known
    assert UNKNOWN.to_json() == {}


def test_the_same_robot_is_not_warned_of(tmp_path, known):
    bare = write(tmp_path / "bare", joints=JOINTS)  # as datasets of lerobot before 0.4 have them
    assert held(bare, known) == []
    assert held(write(tmp_path / "unnamed", joints=None), known) == []
    assert held(tmp_path / "bare", UNKNOWN) == []


def test_radians_on_a_base_of_100(tmp_path, known):
    [state, action] = held(write(tmp_path / "set", demos(1.2)), known)
    assert state == "state seems to be in radians, that of the base in degrees or -100 to 100"
    assert action.startswith("action seems to be in radians")


def test_degrees_with_other_joint_names(tmp_path, known):
    names = ("waist", *SO100[1:])
    [state, action] = held(write(tmp_path / "set", demos(170.0), joints=names), known)
    assert state == "state has other names than in the base (waist for shoulder_pan.pos): is it the same robot?"
    assert "action has other names" in action


def test_10_frames_per_second_on_a_base_of_30(tmp_path, known):
    [said] = held(write(tmp_path / "set", fps=10), known)
    assert said.startswith("the data have 10 frames per second, the base was trained at 30")


def test_cameras_in_another_order(tmp_path, known):
    [said] = held(write(tmp_path / "set"), known, ("wrist", "top"))
    assert (
        said
        == "cameras are wrist, top, those of the base top, wrist: in another order, so that each is taken for another"
    )


def test_one_camera_alone(tmp_path, known):
    [said] = held(write(tmp_path / "set"), known, ("top",))
    assert said == "cameras are top, those of the base top, wrist: it never sees wrist, which it was trained with"


def test_14_joints_on_a_base_of_6(tmp_path, known):
    names = [f"{side}_{joint}" for side in ("left", "right") for joint in ("waist", *JOINTS)]
    source = sources.open(write(tmp_path / "set", demos(width=14), joints=names), CAMERAS)
    with pytest.raises(
        ValueError, match=r"state has 14 dimensions here \(left_waist, .*\), 6 in the base \(shoulder_p"
    ):
        embodiments.check(source.embodiment, known)


def test_the_same_joints_in_another_order_are_refused(tmp_path, known):
    names = (*SO100[:2], SO100[3], SO100[2], *SO100[4:])
    source = sources.open(write(tmp_path / "set", joints=names), CAMERAS)
    with pytest.raises(
        ValueError, match=r"another order: dimension 2 is 'wrist_flex.pos' here, 'elbow_flex.pos' there"
    ):
        embodiments.check(source.embodiment, known)


def test_cameras_are_chosen_by_name(tmp_path, known):
    swapped = write(tmp_path / "swapped", cameras=("wrist", "top"))
    assert sources.choose_cameras(swapped, known.cameras) == CAMERAS
    assert list(sources.cameras_of(swapped)) == ["wrist", "top"]
    other = write(tmp_path / "other", cameras=("top", "wrist_left"))
    with pytest.raises(DemoError, match=r"wrist .* is not there; .* such as wrist=observation.images.wrist_left"):
        sources.open(other, sources.choose_cameras(other, known.cameras))
    with pytest.raises(DemoError, match=r"the base does not record its cameras; .* there are wrist, top"):
        sources.choose_cameras(swapped, None)
    assert sources.choose_cameras(write(tmp_path / "one", one_camera(), cameras=("top",)), None) == ("top",)


def test_the_packages_own_names_and_the_datas_are_one_camera():
    libero, hdf5 = Embodiment(("image", "image2")), Embodiment(("agentview", "eye_in_hand"))
    assert embodiments.check(libero, hdf5) == []
    assert sources.choose_cameras("", libero.cameras) == hdf5.cameras


def test_keys_name_the_datas_cameras(tmp_path):
    root = write(tmp_path / "set")
    source = sources.open(root, ("agentview",), {"agentview": "observation.images.top"})
    assert source.embodiment.cameras == ("top",)


def test_what_several_data_sets_have_in_common(known):
    slow = dataclasses.replace(known, fps=10.0, robot_type=None)
    robot, said = common([known, slow, slow])
    assert robot == dataclasses.replace(known, fps=None, robot_type=None)
    assert len(said) == 1
    assert "10 frames per second, the first data set was trained at 30" in said[0]


def test_a_small_demonstration_keeps_the_units_of_its_gripper_out(known):
    still = demos()[0]
    still.state[:, 5] = 0.0
    assert embodiments.check_units(dataclasses.replace(known).measured([still]), known) == []
