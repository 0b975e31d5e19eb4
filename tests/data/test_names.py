"""Names of features: which one is meant, and which is suggested."""

import pytest

from metalora_jax.data import sources
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.names import feature_names, read_keys


@pytest.mark.parametrize(
    ("present", "camera", "likely"),
    [
        (("timestamp", "observation.images.wrist", "observation.images.cam_high"), "agentview", "cam_high"),
        (("observation.images.top", "observation.images.gripper"), "eye_in_hand", "gripper"),
        (("observation.image",), "agentview", "observation.image"),
        (("observation.images.left", "observation.images.front_stereo"), "front", "front_stereo"),
    ],
)
def test_the_likeliest_feature_is_suggested(tmp_path, present, camera, likely):
    features = ("index", "observation.state", "action", *present)
    with pytest.raises(DemoError, match=rf"name its feature with keys, such as {camera}=\S*{likely}[,;]"):
        feature_names(tmp_path, features, (camera,), {}, [name for name in present if "image" in name])


def test_no_feature_is_suggested_where_none_fits(tmp_path):
    with pytest.raises(
        DemoError, match=r"state .* is not there; name its feature with keys; the features are: audio, x"
    ):
        feature_names(tmp_path, ("index", "audio", "x", "action"), (), {})
    with pytest.raises(DemoError, match=r"such as state=observation\.joint_positions"):
        feature_names(tmp_path, ("index", "observation.joint_positions", "action"), (), {})


def test_a_camera_of_a_dataset_without_pictures_is_no_vector(tmp_path):
    with pytest.raises(DemoError, match=r"agentview .* is not there; .*; the pictures are: none"):
        feature_names(tmp_path, ("observation.state", "action"), ("agentview",), {}, [])


def test_what_flags_and_callers_say(tmp_path):
    assert read_keys([" state = observation.joints "]) == {"state": "observation.joints"}
    for odd in ("state", "state=", "=x"):
        with pytest.raises(DemoError, match="expected part=feature, such as state="):
            read_keys([odd])
    for cameras, complaint in (
        ("front", r"cameras are 'front' \(text\), expected a list of names"),
        ([3], "a camera is 3"),
        (["a", "a"], "cameras name 'a' twice"),
    ):
        with pytest.raises(DemoError, match=complaint):
            sources.open(tmp_path, cameras)
    with pytest.raises(DemoError, match="keys give 3 "):
        sources.open(tmp_path, (), {"state": 3})


def test_cameras_that_can_be_asked_for_are_named(tmp_path):
    present = ("observation.images.top", "observation.images.wrist", "observation.pose", "next.pose", "action")
    with pytest.raises(DemoError, match="or ask for the cameras top,wrist;"):
        feature_names(tmp_path, present, ["agentview"], {}, present[:2])
    with pytest.raises(DemoError, match=r"state=observation\.pose; the features are: observation\.pose, action$"):
        feature_names(tmp_path, present, ["top"], {}, present[:2])
