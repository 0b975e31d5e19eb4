"""LeRobot datasets that are as they should be, or nearly: what is read, and read the same."""

import json
import shutil

import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, sources
from tests.data.lerobot_sets import DATA, EPISODES, KEY, VIDEO, read_all, refusals
from tests.demo_formats import CAMERAS, FPS, assert_same, edit_info, edit_rows, write_video

pytestmark = pytest.mark.parquet


@pytest.mark.parametrize("shift", [0.2, -0.2, 0.49, -0.49])
def test_spans_half_a_frame_away(v3, demos, shift):
    def move(rows):
        for row in rows[2:]:
            for side in ("from", "to"):
                row[f"videos/{KEY}/{side}_timestamp"] += shift / FPS

    edit_rows(v3 / EPISODES, move)
    assert_same(read_all(v3), demos)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_jitter_of_a_wall_clock(sound, tmp_path, demos, version):
    root, rng = shutil.copytree(sound / version, tmp_path / "jitter"), np.random.default_rng(0)

    def jitter(rows):
        for row in rows:
            row["timestamp"] += rng.uniform(-4e-3, 4e-3)

    for file in (root / "data").rglob("*.parquet"):
        edit_rows(file, jitter)
    assert_same(read_all(root), demos)


def test_drift_beyond_half_a_frame_says_where(v3):
    def drift(rows):
        for row in rows:
            row["timestamp"] *= 1.12

    edit_rows(v3 / DATA, drift)
    said = refusals(v3)
    assert "timestamp: frame 5 at 0.560 s, expected 0.500 s" in said[2]
    assert set(said) == {2, 3, 4}  # the others are too short to be half a frame away


def test_a_video_whose_own_times_drift_with_its_spans(v3, demos):
    images = np.concatenate([demo.images[:, 1] for demo in demos])
    write_video(v3 / VIDEO, images, times=(np.arange(len(images)) * 1000 // FPS * 1.05).astype(int))  # a whole frame

    def follow(rows):
        for row in rows:
            for side in ("from", "to"):
                row[f"videos/{KEY}/{side}_timestamp"] *= 1.05

    edit_rows(v3 / EPISODES, follow)
    assert_same(read_all(v3), demos)


def test_numbers_with_gaps(v3, demos):
    def renumber(rows):
        for row in rows:
            row["episode_index"] += 2 * (row["episode_index"] > 1) + 1

    edit_rows(v3 / EPISODES, renumber)
    edit_rows(v3 / DATA, renumber)
    assert_same(read_all(v3), demos)
    assert [episode.number for episode in sources.open(v3, ()).listing()] == [1, 2, 5, 6, 7]


def test_an_episode_that_was_deleted_from_the_tables_alone(v3, demos, caplog):
    gone = len(demos[2].actions)
    edit_rows(v3 / EPISODES, lambda rows: rows.pop(2))
    info = json.loads((v3 / "meta" / "info.json").read_text())
    edit_info(v3, total_episodes=4, total_frames=info["total_frames"] - gone, splits={"train": "0:4"})
    assert_same(read_all(v3), [*demos[:2], *demos[3:]])
    assert "left out rows of episodes that the metadata do not list: 2" in caplog.text


def test_numbers_with_gaps_in_version_2(v2, demos):
    gone = len(demos[1].actions)
    lines = (v2 / "meta" / "episodes.jsonl").read_text().splitlines()
    (v2 / "meta" / "episodes.jsonl").write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    info = json.loads((v2 / "meta" / "info.json").read_text())
    frames = {"total_frames": info["total_frames"] - gone, "total_videos": 8}
    edit_info(v2, total_episodes=4, splits={"train": "0:4"}, **frames)
    assert_same(read_all(v2), [demos[0], *demos[2:]])


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_jitter_in_a_video(sound, tmp_path, demos, version):
    root, rng = shutil.copytree(sound / version, tmp_path / "jitter"), np.random.default_rng(0)
    for file in (root / "videos").rglob("*.mp4"):
        camera = int("wrist" in str(file) or "image2" in str(file))
        episode = int(file.stem[-6:]) if version == "v2" else None
        images = [demo.images[:, camera] for i, demo in enumerate(demos) if episode in (None, i)]
        count = sum(map(len, images))
        write_video(file, np.concatenate(images), times=np.arange(count) * 1000 // FPS + rng.integers(0, 5, count))
    assert_same(read_all(root), demos)


def test_several_files_of_videos(tmp_path, demos, monkeypatch):
    monkeypatch.setattr(lerobot_v3, "_VIDEO_MIB", 0)
    lerobot_v3.write(tmp_path / "v3", demos, CAMERAS, FPS, pictures="h264-lossless")
    assert len(list((tmp_path / "v3" / "videos" / KEY).rglob("*.mp4"))) > 1
    assert_same(read_all(tmp_path / "v3"), demos)
