"""A bad demonstration is named, by the dataset's own number, and the others stay readable."""

import json

import h5py
import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, libero_hdf5, sources
from metalora_jax.data.config import DataConfig, read_demos
from metalora_jax.data.demos import DemoError
from tests.demo_formats import (
    CAMERAS,
    FPS,
    TASKS,
    assert_same,
    edit_info,
    edit_rows,
    make_libero_demos,
    recordings,
    write_lerobot_v2,
)

V3_DATA = "data/chunk-000/file-000.parquet"
parquet = pytest.mark.parquet
KINDS = ["hdf5", pytest.param("v2", marks=parquet), pytest.param("v3", marks=parquet)]


@pytest.fixture
def demos():
    return make_libero_demos(TASKS[0], 4)


def nan_in(root, kind, number):
    """Makes one demonstration's actions bad."""
    if kind == "hdf5":
        with h5py.File(next(root.glob("*.hdf5")), "a") as file:
            file[f"data/demo_{number}/actions"][2, 1] = np.nan
        return

    def spoil(rows):
        row = [row for row in rows if row["episode_index"] == number][2]
        key = "action" if "action" in row else "actions"
        row[key] = [0.0, float("nan"), *row[key][2:]]

    edit_rows(root / (V3_DATA if kind == "v3" else f"data/chunk-000/episode_{number:06d}.parquet"), spoil)


def write_as(kind, root, demos):
    if kind == "hdf5":
        path = root / f"{TASKS[0].replace(' ', '_')}_demo.hdf5"
        libero_hdf5.write_official(path, recordings(demos), CAMERAS, {})
    elif kind == "v2":
        write_lerobot_v2(root, demos)
    else:
        lerobot_v3.write(root, demos, CAMERAS, FPS)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_demonstration(tmp_path, demos, kind, caplog):
    root = write_as(kind, tmp_path / "made", demos)
    nan_in(root, kind, 1)
    source = sources.open(root, CAMERAS)
    with pytest.raises(
        DemoError, match=r"actions at step 2 is not finite \(nan in dimension 1\); .*, or leave episode 1"
    ):
        list(source.demos(TASKS[0]))
    [fault] = source.faults()
    assert (fault.number, fault.task) == (1, source.only())
    assert fault.message.startswith(str(fault.file))
    assert [isinstance(demo, DemoError) for _, demo in source.survey()] == [False, True, False, False]
    assert_same(source.demos(TASKS[0], 1), demos[:1])  # the bad one is not asked for
    for chosen in ({"drop": [1]}, {"skip_bad": True}, {"episodes": ["0", 2, 3]}):
        caplog.clear()
        source = sources.open(root, CAMERAS, **chosen)
        assert_same(source.demos(TASKS[0], 3), [demos[0], *demos[2:]])
        assert [episode.number for episode, _ in source.recorded(TASKS[0], 3)] == [0, 2, 3]
        assert ("left out 1 of 4 demonstrations" in caplog.text) == ("skip_bad" in chosen)
    with pytest.raises(DemoError, match=r"4 of 'pick up .*requested, but only 3 of 4 can be used; .*not finite"):
        list(sources.open(root, CAMERAS, skip_bad=True).demos(TASKS[0], 4))
    with pytest.raises(DemoError, match=r"4 demonstrations .* requested, 3 found"):
        list(sources.open(root, CAMERAS, drop=(1,)).demos(TASKS[0], 4))


@pytest.mark.parametrize("kind", KINDS)
def test_none_that_can_be_used(tmp_path, demos, kind):
    root = write_as(kind, tmp_path / "made", demos[:2])
    for number in (0, 1):
        nan_in(root, kind, number)
    with pytest.raises(DemoError, match=r"at least one of .* requested, but only 0 of 2 can be used"):
        list(sources.open(root, (), skip_bad=True).demos(TASKS[0]))


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"drop": 3}, r"drop is 3 \(a number\), expected a list of episode numbers"),
        ({"drop": "3,7"}, r"drop is '3,7' \(text\), expected a list"),
        ({"drop": [True]}, r"drop holds True \(a truth value\), expected numbers"),
        ({"episodes": [1.5]}, r"episodes holds 1\.5 \(a number\), expected numbers"),
        ({"episodes": [-1]}, "episodes holds -1"),
        ({"drop": ["x"]}, "drop holds 'x'"),
        ({"drop": [4]}, "no episode 4 to select or to drop; there are 0 to 3"),
        ({"episodes": [1, 2], "drop": [2]}, "episode 2 is both in episodes and in drop"),
        ({"skip_bad": "yes"}, r"skip_bad is 'yes' \(text\), expected True or False"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_selections_that_cannot_be_meant(tmp_path, demos, kind, chosen, complaint):
    root = write_as(kind, tmp_path / "made", demos)
    with pytest.raises(DemoError, match=complaint):
        sources.open(root, (), **chosen)


def test_a_selection_that_leaves_nothing_is_what_is_blamed(tmp_path):
    one, two = make_libero_demos(TASKS[0], 2), make_libero_demos(TASKS[1], 1)
    root = write_as("v3", tmp_path / "made", one + two)
    with pytest.raises(DemoError, match=r"no task .* among 1 of the selected episodes \(see episodes, drop"):
        sources.open(root, (), drop=[0, 1]).find(TASKS[0])
    with pytest.raises(DemoError, match="no demonstration is left of those selected; change episodes, drop"):
        sources.open(root, (), drop=[0, 1, 2]).only()


def test_numbers_in_a_directory_of_files(tmp_path):
    made = {task: make_libero_demos(task, 3) for task in ("push", "reach")}
    for task, demos in made.items():
        libero_hdf5.write_official(tmp_path / f"{task}_demo.hdf5", recordings(demos), CAMERAS, {})
    with pytest.raises(DemoError, match="episode 1 could be of any of 2 files; write 'push:1'"):
        sources.open(tmp_path, (), drop=[1])
    source = sources.open(tmp_path, CAMERAS, drop=["push:1"])
    assert source.tasks() == {"push": 2, "reach": 3}
    assert_same(source.demos("push"), made["push"][::2])
    with pytest.raises(DemoError, match="no episode push:3 to select or to drop"):
        sources.open(tmp_path, (), drop=["push:3"])


def test_a_file_that_cannot_be_read_is_one_fault_among_others(tmp_path):
    for task in ("push", "reach"):
        libero_hdf5.write_official(tmp_path / f"{task}_demo.hdf5", recordings(make_libero_demos(task)), CAMERAS, {})
    (tmp_path / "push_demo.hdf5").write_bytes(b"no HDF5")
    source = sources.open(tmp_path, CAMERAS)
    assert [(fault.number, fault.task, fault.file.name) for fault in source.faults()] == [
        (None, "push", "push_demo.hdf5")
    ]
    assert len(list(source.demos("reach"))) == 2


def test_numbers_with_gaps_in_hdf5_and_the_tenth_after_the_ninth(tmp_path):
    demos = make_libero_demos(TASKS[0], 12)
    path = write_as("hdf5", tmp_path, demos)
    with h5py.File(next(path.glob("*.hdf5")), "a") as file:
        del file["data/demo_3"]
        file["data"].attrs["num_demos"] = 11
        file["data"].attrs["total"] -= len(demos[3].actions)
    source = sources.open(path, CAMERAS)
    assert [episode.number for episode in source.listing()] == [0, 1, 2, *range(4, 12)]
    assert_same(source.demos(TASKS[0]), [*demos[:3], *demos[4:]])


@pytest.mark.parametrize(
    ("key", "rows", "complaint"),
    [
        ("dones", 4, r"demo_1: dones \(4,\) for 6 actions, expected as many rows"),
        ("rewards", 7, r"demo_1: rewards \(7,\)"),
        ("states", 5, r"demo_1: states \(5,\)"),
        ("obs/agentview_rgb", 5, "demo_1: 5 pictures in obs/agentview_rgb for 6 actions"),
    ],
)
def test_arrays_of_hdf5_that_are_not_as_long(tmp_path, demos, key, rows, complaint):
    root = write_as("hdf5", tmp_path, demos)
    with h5py.File(next(root.glob("*.hdf5")), "a") as file:
        del file[f"data/demo_1/{key}"]
        file[f"data/demo_1/{key}"] = np.zeros((rows, 16, 16, 3) if "rgb" in key else rows, np.uint8)
    [fault] = sources.open(root, CAMERAS).faults()
    assert fault.number == 1
    with pytest.raises(DemoError, match=complaint):
        raise DemoError(fault.message)


def test_the_total_of_a_file(tmp_path, demos):
    root = write_as("hdf5", tmp_path, demos)
    with h5py.File(next(root.glob("*.hdf5")), "a") as file:
        file["data"].attrs["total"] += 1
    with pytest.raises(DemoError, match="total is 27, but the demonstrations have 26 steps; fix the attribute"):
        list(sources.open(root, ()).demos(TASKS[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_demonstration_of_one_frame(tmp_path, demos, kind):
    short = demos[0]._replace(**{name: getattr(demos[0], name)[:1] for name in ("images", "state", "actions")})
    root = write_as(kind, tmp_path / "made", [*demos[:1], short])
    [fault] = sources.open(root, ()).faults()
    assert fault.number == 1
    assert "1 frame, expected 2 or more" in fault.message


@pytest.mark.parquet
class TestWhatIsNotAskedFor:
    def test_a_bad_feature(self, tmp_path, demos):
        root = write_as("v3", tmp_path / "made", demos)
        features = json.loads((root / "meta" / "info.json").read_text())["features"]
        other = {
            "torque": {"dtype": "float32"},
            "audio": 3,
            "observation.images.side": {"dtype": "video", "shape": "?"},
        }
        edit_info(root, features={**features, **other})
        assert_same(sources.open(root, CAMERAS).demos(TASKS[0]), demos)
        with pytest.raises(
            DemoError, match=r"feature observation\.images\.side: shape is '\?' \(text\), expected a list"
        ):
            sources.open(root, ("side",))

    def test_a_camera_whose_videos_are_gone(self, tmp_path, demos):
        root = tmp_path / "v2"
        write_lerobot_v2(root, demos, video=True)
        for file in (root / "videos" / "chunk-000" / "wrist_image").iterdir():
            file.unlink()
        wanted = [demo._replace(images=demo.images[:, :1]) for demo in demos]
        assert_same(sources.open(root, CAMERAS[:1]).demos(TASKS[0]), wanted)
        assert len(list(sources.open(root, CAMERAS).faults())) == len(demos)

    def test_an_episode_of_two_tasks(self, tmp_path, demos):
        root = write_as("v3", tmp_path / "made", [*demos, *make_libero_demos(TASKS[1])])
        edit_rows(root / "meta/episodes/chunk-000/file-000.parquet", lambda rows: rows[1].update(tasks=list(TASKS)))
        source = sources.open(root, CAMERAS, skip_bad=True)
        assert_same(source.demos(TASKS[1]), make_libero_demos(TASKS[1]))
        assert [(fault.number, fault.task) for fault in source.faults()] == [(1, "")]

    def test_a_file_of_data_that_is_gone(self, tmp_path, demos):
        root = write_as("v2", tmp_path / "made", demos)
        (root / "data" / "chunk-000" / "episode_000002.parquet").unlink()
        with pytest.raises(DemoError, match=r"episode_000002\.parquet: no such file, named for episode 2"):
            list(sources.open(root, CAMERAS).demos(TASKS[0]))
        assert_same(sources.open(root, CAMERAS, skip_bad=True).demos(TASKS[0]), [*demos[:2], demos[3]])


def test_a_config_selects_and_skips(tmp_path, demos, caplog):
    root = write_as("hdf5", tmp_path / "made", demos)
    nan_in(root, "hdf5", 2)
    config = {"directory": str(root), "tasks": [TASKS[0]], "demos": 2, "cameras": list(CAMERAS)}
    found = read_demos(DataConfig.from_config({**config, "drop": [0], "skip_bad": True}))
    assert_same(found[TASKS[0]], [demos[1], demos[3]])
    assert "left out 1 of 3" in caplog.text
    with pytest.raises(DemoError, match="leave episode 2 out"):
        read_demos(DataConfig.from_config({**config, "drop": [0]}))
    with pytest.raises(ValueError, match=r"data\.tasks is 'turn on the stove'; it must be a list"):
        read_demos(DataConfig.from_config({**config, "tasks": "turn on the stove"}))
    with pytest.raises(ValueError, match=r"data\.cameras is 'agentview'; it must be a list"):
        read_demos(DataConfig.from_config({**config, "cameras": "agentview"}))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_pointer_of_git_lfs_is_not_called_damaged(tmp_path, demos, kind):
    root = write_as(kind, tmp_path / "made", demos)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    file = next(root.rglob("*.hdf5" if kind == "hdf5" else "*.parquet"))
    file.write_text(pointer)
    source = sources.open(root, CAMERAS)
    with pytest.raises(DemoError, match=rf"{file.name}: only a pointer of Git LFS, .* git lfs pull"):
        list(source.demos(source.only()))


@parquet
def test_a_dataset_without_words_says_so(tmp_path, demos):
    root = write_as("v2", tmp_path / "made", [demo._replace(instruction="") for demo in demos])
    with pytest.raises(DemoError, match="the instruction is '', expected text"):
        sources.open(root, CAMERAS).only()
