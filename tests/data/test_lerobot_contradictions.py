"""Every number that a LeRobot dataset holds twice is held against the other one, with half a frame to spare."""

import copy
import json
import shutil

import numpy as np
import pytest

from metalora_jax.data import lerobot_v3
from metalora_jax.data.demos import DemoError
from tests.data.lerobot_sets import COUNT, DATA, EPISODES, KEY, LABELS, VIDEO, read_all, refusals
from tests.demo_formats import CAMERAS, FPS, assert_same, edit_info, edit_rows, write_video

pytestmark = pytest.mark.parquet


def numbers(value, path=()):
    """The places of all numbers in a JSON object."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    own = [path] if isinstance(value, int | float) and not isinstance(value, bool) else []
    return own + [found for name, part in parts for found in numbers(part, (*path, name))]


def changed(value, path, change):
    value = copy.deepcopy(value)
    holder = value
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = change(holder[path[-1]])
    return value


UNREAD = {"chunks_size", "data_files_size_in_mb", "video_files_size_in_mb"}  # said once
COUNTERS = {"timestamp", "frame_index", "episode_index", "index", "task_index"}  # whose widths are not read


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_any_number_in_the_info(sound, tmp_path, version):
    info = json.loads((sound / version / "meta" / "info.json").read_text())
    places = [path for path in numbers(info) if path[0] not in UNREAD and not COUNTERS & set(path)]
    assert len(places) == {"v2": 14, "v3": 20}[version]
    root = shutil.copytree(sound / version, tmp_path / "flipped")
    for path in places:
        for by in (1, -1):
            (root / "meta" / "info.json").write_text(json.dumps(changed(info, path, lambda value, by=by: value + by)))
            said = refusals(root)
            name = next(part for part in reversed(path) if isinstance(part, str))
            assert said, path
            assert all(name in message for message in said.values()), (path, said)


def test_the_splits_in_the_info(v3):
    for span in ("0:4", "0:6", "1:5", "3:2", "all", 5, ["0:5"]):
        edit_info(v3, splits={"train": span})
        assert "splits" in refusals(v3)[None]
    edit_info(v3, splits={"train": "0:3", "test": "2:5"})
    assert "overlap" in refusals(v3)[None]
    edit_info(v3, splits={"test": "3:5", "train": "0:3"})
    assert refusals(v3) == {}


FIELDS = [
    *("episode_index", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index"),
    *("meta/episodes/chunk_index", "meta/episodes/file_index"),
    *(f"videos/{KEY}/{name}" for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")),
]


@pytest.mark.parametrize("row", range(COUNT))
@pytest.mark.parametrize("field", FIELDS)
def test_any_number_in_the_table_of_episodes(v3, field, row):
    for by in (1, -1, 7):
        whole = shutil.copytree(v3, v3.parent / f"by{by}")
        step = by / FPS if "timestamp" in field else by
        edit_rows(whole / EPISODES, lambda rows, step=step: rows[row].update({field: rows[row][field] + step}))
        said = refusals(whole)
        assert said, by
        assert field.split("/")[-1] in said.get(row, said.get(None, said.get(row + by, ""))), said


def test_the_columns_of_the_episodes_that_follow_each_other(v3):
    """Both ends of an episode are moved, so that its length is still right."""
    for names in (("dataset_from_index", "dataset_to_index"), [f"videos/{KEY}/{s}_timestamp" for s in ("from", "to")]):
        for row in range(COUNT):
            whole = shutil.copytree(v3, v3.parent / f"{row}{names[0][-5:]}")

            def move(rows, row=row, names=names):
                rows[row] |= {name: rows[row][name] + (1 / FPS if "time" in name else 1) for name in names}

            edit_rows(whole / EPISODES, move)
            said = refusals(whole)
            assert names[0] in said[row]
            assert set(said) == {row}


@pytest.mark.parametrize("column", ["frame_index", "index", "episode_index", "task_index", "timestamp"])
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_any_number_in_the_data(sound, tmp_path, demos, version, column):
    starts = np.cumsum([0, *(len(demo.actions) for demo in demos)])
    for episode, frame in ((0, 0), (1, 0), (2, 3), (4, len(demos[4].actions) - 1)):
        for by in (1, -1):
            root = shutil.copytree(sound / version, tmp_path / f"{episode}{by}")
            file = DATA if version == "v3" else f"data/chunk-000/episode_{episode:06d}.parquet"
            place = starts[episode] + frame if version == "v3" else frame
            edit_rows(root / file, lambda rows, p=place, b=by: rows[p].update({column: rows[p][column] + b}))
            assert column in refusals(root)[episode]


def test_the_table_of_tasks(v3):
    for row in (0, 1):
        root = shutil.copytree(v3, v3.parent / f"tasks{row}")
        edit_rows(root / LABELS, lambda rows, row=row: rows[row].update(task_index=rows[row]["task_index"] + 2))
        said = refusals(root)
        assert said
        assert all("task_index" in message for message in said.values())
    edit_rows(v3 / LABELS, lambda rows: rows[1].update(task_index=0))
    assert "task_index 0 appears twice" in refusals(v3)[None]


@pytest.mark.parametrize("frames", [-1, 1])
def test_a_video_with_more_or_fewer_frames_than_its_episodes(v3, demos, frames):
    images = np.concatenate([demo.images[:, 1] for demo in demos])
    write_video(v3 / VIDEO, images[:-1] if frames < 0 else np.concatenate([images, images[-1:]]))
    said = refusals(v3)
    assert set(said) == set(range(COUNT))  # any of them may lack the frame
    assert "the video holds" in said[0]
    assert KEY in said[0]


def test_a_length_that_is_wrong_everywhere_but_in_the_data_and_the_video(v3):
    def shorten(rows):
        rows[1]["length"] -= 1
        for row in rows[1:]:
            for name, by in (("dataset_{}_index", 1), (f"videos/{KEY}/{{}}_timestamp", 1 / FPS)):
                for side in ("from", "to")[row is rows[1] :]:
                    row[name.format(side)] -= by

    edit_rows(v3 / EPISODES, shorten)
    edit_info(v3, total_frames=json.loads((v3 / "meta" / "info.json").read_text())["total_frames"] - 1)
    said = refusals(v3)
    assert set(said) == {1, 2, 3, 4}  # the first one lies before the fault
    assert "5 rows of episode 1 (episode_index), but the metadata declare length 4" in said[1]


def test_a_wrong_length_that_the_total_does_not_share_is_the_episode_s_fault(v2, demos):
    lines = (v2 / "meta" / "episodes.jsonl").read_text().replace('"length": 6', '"length": 9', 1)
    (v2 / "meta" / "episodes.jsonl").write_text(lines)
    said = refusals(v2)
    assert "length is 9, but the data hold 6 rows" in said[2]
    assert_same(read_all(v2)[:2], demos[:2])


def test_episodes_of_one_frame_or_none(v3):
    for length, words in ((0, "length is 0, no frames"), (1, "length is 1, 1 frame, expected 2 or more")):
        edit_rows(v3 / EPISODES, lambda rows, n=length: rows[2].update(length=n))
        assert words in refusals(v3)[2]


def test_files_of_two_episodes_that_are_swapped(tmp_path, demos, monkeypatch):
    monkeypatch.setattr(lerobot_v3, "_VIDEO_MIB", 0)
    same = [*demos[:2], *demos[:2], demos[0]]  # of one length
    lerobot_v3.write(tmp_path / "v3", same, CAMERAS, FPS, pictures="h264-lossless")
    name = f"videos/{KEY}/file_index"

    def swap(rows):
        rows[2][name], rows[3][name] = rows[3][name], rows[2][name]

    edit_rows(tmp_path / "v3" / EPISODES, swap)
    said = refusals(tmp_path / "v3")
    assert set(said) == {2, 3}
    assert "file_index are not in the order of the episodes" in said[2]


def test_two_lengths_that_make_up_for_each_other(v2, demos):
    path = v2 / "meta" / "episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["length"], rows[3]["length"] = rows[1]["length"] + 1, rows[3]["length"] - 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert set(refusals(v2)) == {1, 3}
    assert_same([demo for demo in read_all(v2) if not isinstance(demo, DemoError)], demos[::2])
