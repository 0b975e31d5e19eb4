"""Demonstrations of any format: recognised, found by name, the same through each, refused by name where damaged."""

import h5py
import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, libero_hdf5, sources
from metalora_jax.data.config import DataConfig, read_demos
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.names import feature_names
from tests.demo_formats import (
    CAMERAS,
    FPS,
    TASKS,
    assert_same,
    make_libero_demos,
    recordings,
    write_lerobot_v2,
    write_rlds,
)

FORMATS = {
    "hdf5": (),
    "lerobot-v2-images": (pytest.mark.parquet,),
    "lerobot-v2-videos": (pytest.mark.parquet,),
    "lerobot-v3-png": (pytest.mark.parquet,),
    "lerobot-v3-h264-lossless": (pytest.mark.parquet,),
    "rlds": (pytest.mark.rlds, pytest.mark.filterwarnings("ignore")),
}
every_format = pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks) for kind, marks in FORMATS.items()])


def write_as(kind, root, demos):
    """Both tasks in one place, in a format without loss."""
    if kind == "hdf5":
        for task in TASKS:
            path = root / f"{task.replace(' ', '_')}_demo.hdf5"
            chosen = [demo for demo in demos if demo.instruction == task]
            libero_hdf5.write_official(path, recordings(chosen), CAMERAS, {})
    elif kind.startswith("lerobot-v2"):
        write_lerobot_v2(root, demos, video=kind.endswith("videos"))
    elif kind.startswith("lerobot-v3"):
        lerobot_v3.write(root, demos, CAMERAS, FPS, pictures=kind.removeprefix("lerobot-v3-"))
    else:
        return write_rlds(root, demos).parent
    return root


def ordered(demos):
    """TFDS stores episodes in an order of its own."""
    return sorted(demos, key=lambda demo: len(demo.actions))


@every_format
def test_a_demonstration_is_the_same_through_every_format(tmp_path, kind):
    first, second = (make_libero_demos(task, count) for task, count in zip(TASKS, (3, 2), strict=True))
    mixed = [first[0], second[0], first[1], second[1], first[2]]
    source = sources.open(write_as(kind, tmp_path / "made", mixed), CAMERAS)
    assert [source.tasks()[source.find(task)] for task in TASKS] == [3, 2]
    assert_same(ordered(source.demos(TASKS[0])), first)
    assert_same(ordered(source.demos(TASKS[1].replace(" ", "_"))), second)
    assert len(list(source.demos(TASKS[0], 2))) == 2
    with pytest.raises(DemoError, match=r"4 demonstrations .*requested, 3 found"):
        list(source.demos(TASKS[0], 4))
    with pytest.raises(DemoError, match=r"no task 'turn off the stove'.*did you mean turn on the stove"):
        list(source.demos("turn off the stove"))


@every_format
def test_config_and_camera_order(tmp_path, kind):
    demos = make_libero_demos(TASKS[0]) + make_libero_demos(TASKS[1])
    root = write_as(kind, tmp_path / "made", demos)
    scene = f"KITCHEN_SCENE3_{TASKS[1].replace(' ', '_')}" if kind != "hdf5" else TASKS[1]
    config = {"directory": str(root), "tasks": [scene], "demos": 2, "cameras": ["eye_in_hand"]}
    found = read_demos(DataConfig.from_config(config))
    assert_same(ordered(found[scene]), [demo._replace(images=demo.images[:, 1:]) for demo in demos[2:]])


@every_format
def test_without_cameras_pictures_stay_unread(tmp_path, kind):
    demos = make_libero_demos(TASKS[0]) + make_libero_demos(TASKS[1])
    source = sources.open(write_as(kind, tmp_path / "made", demos), ())
    for demo, wanted in zip(ordered(source.demos(TASKS[0])), demos, strict=False):
        assert demo.images.shape == (len(wanted.actions), 0, 0, 0, 3)
        np.testing.assert_array_equal(demo.actions, wanted.actions)


def test_a_file_is_a_source_of_its_one_task(tmp_path):
    write_as("hdf5", tmp_path, make_libero_demos(TASKS[0]) + make_libero_demos(TASKS[1]))
    source = sources.open(tmp_path / "turn_on_the_stove_demo.hdf5", CAMERAS)
    assert source.tasks() == {"turn_on_the_stove": 2}
    assert source.only() == "turn_on_the_stove"
    with pytest.raises(DemoError, match="has 2 tasks; name one, such as 'pick_up"):
        sources.open(tmp_path, CAMERAS).only()


def test_scenes_are_not_mixed_up(tmp_path):
    demos = recordings(make_libero_demos("turn on the stove"))
    for scene in (3, 8):
        path = tmp_path / f"KITCHEN_SCENE{scene}_turn_on_the_stove_demo.hdf5"
        libero_hdf5.write_official(path, demos, CAMERAS, {})
    source = sources.open(tmp_path, CAMERAS)
    assert source.find("KITCHEN_SCENE8_turn_on_the_stove") == "KITCHEN_SCENE8_turn_on_the_stove"
    with pytest.raises(DemoError, match=r"is ambiguous: KITCHEN_SCENE3\w* or KITCHEN_SCENE8\w*; name one"):
        source.find("turn on the stove")
    with pytest.raises(DemoError, match="no task 'KITCHEN_SCENE9_turn_on_the_stove' among 2"):
        source.find("KITCHEN_SCENE9_turn_on_the_stove")


def test_two_names_of_one_task(tmp_path):
    write_as("hdf5", tmp_path, make_libero_demos(TASKS[0]) + make_libero_demos(TASKS[1]))
    source = sources.open(tmp_path, CAMERAS)
    with pytest.raises(DemoError, match="'turn on the stove' and 'turn_on_the_stove' are the same task there"):
        sources.read(source, ["turn_on_the_stove", "turn on the stove"])


def test_demonstrations_that_do_not_agree(tmp_path):
    for task, size in zip(TASKS, (16, 8), strict=True):
        path = tmp_path / f"{task.replace(' ', '_')}_demo.hdf5"
        libero_hdf5.write_official(path, recordings(make_libero_demos(task, size=size)), CAMERAS, {})
    with pytest.raises(DemoError, match=r"differ: .*0: \(2, 16, 16, 3, 8, 7\); .*0: \(2, 8, 8, 3, 8, 7\)"):
        sources.read(sources.open(tmp_path, CAMERAS), TASKS)


def test_what_is_no_source(tmp_path):
    with pytest.raises(DemoError, match="no such demonstration file or directory; check the path"):
        sources.open(tmp_path / "nothing", CAMERAS)
    (tmp_path / "inner" / "meta").mkdir(parents=True)
    (tmp_path / "inner" / "meta" / "info.json").write_text("{}")
    with pytest.raises(
        DemoError, match=r"not a known demonstration format; looked for \*\.hdf5 .*did you mean \S*/inner"
    ):
        sources.open(tmp_path, CAMERAS)
    (tmp_path / "reach_demo.hdf5").write_bytes(b"\x80\x04not HDF5")
    with pytest.raises(DemoError, match=r"recah_demo\.hdf5: no such .* \(did you mean reach_demo\.hdf5\?\)"):
        sources.open(tmp_path / "recah_demo.hdf5", CAMERAS)
    with pytest.raises(DemoError, match=r"reach_demo\.hdf5: damaged"):
        list(sources.open(tmp_path, CAMERAS).demos("reach"))
    with pytest.raises(
        DemoError, match="keys name 'topview'; known: state, action, instruction, paraphrases and the cameras agentview"
    ):
        sources.open(tmp_path, CAMERAS, {"topview": "front"})


def test_keys_of_a_camera_in_hdf5(tmp_path):
    write_as("hdf5", tmp_path, make_libero_demos(TASKS[0]) + make_libero_demos(TASKS[1]))
    (demo, _) = sources.open(tmp_path, ("front",), {"front": "agentview_rgb"}).demos(TASKS[0])
    np.testing.assert_array_equal(demo.images, make_libero_demos(TASKS[0])[0].images[:, :1])
    with pytest.raises(DemoError, match="state has fixed keys in HDF5"):
        sources.open(tmp_path, CAMERAS, {"state": "ee_pos"})


def test_names_of_features(tmp_path):
    openpi = ("image", "wrist_image", "state", "actions")
    assert feature_names(tmp_path, openpi, CAMERAS, {}) == (("image", "wrist_image"), "state", "actions")
    hub = ("observation.images.image", "observation.images.image2", "observation.state", "action")
    assert feature_names(tmp_path, hub, CAMERAS[::-1], {}).cameras == (
        "observation.images.image2",
        "observation.images.image",
    )
    own = (*hub, "observation.images.front")
    assert feature_names(tmp_path, own, ("front",), {}).cameras == ("observation.images.front",)
    assert feature_names(tmp_path, own, ("front",), {"front": hub[0]}).cameras == hub[:1]
    with pytest.raises(DemoError, match=r"agentview is ambiguous: observation\.images\.image, image; name its feature"):
        feature_names(tmp_path, (*hub, "image"), CAMERAS, {})
    with pytest.raises(DemoError, match=r"topview .* not there; .* the features are: image, wrist_image"):
        feature_names(tmp_path, openpi, ("topview",), {})


def test_one_episode_in_memory_at_a_time(tmp_path, monkeypatch):
    write_as("hdf5", tmp_path, make_libero_demos(TASKS[0], 4) + make_libero_demos(TASKS[1]))
    reads = []
    get = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key: reads.append(self.name) or get(self, key))
    source = sources.open(tmp_path, CAMERAS)
    stream = source.demos(TASKS[0])
    assert reads == []
    next(stream)
    assert {name.split("/")[2] for name in reads} == {"demo_0"}
