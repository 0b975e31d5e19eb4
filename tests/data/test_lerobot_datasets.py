"""LeRobot datasets: what is written is read, and what the metadata do not describe is refused by name."""

import json

import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, sources
from metalora_jax.data.demos import DemoError
from tests.demo_formats import (
    CAMERAS,
    FPS,
    TASKS,
    edit_info,
    make_libero_demos,
    write_lerobot_v2,
    write_lines,
)

pytestmark = pytest.mark.parquet
V2_DATA, V3_DATA = "data/chunk-000/episode_000001.parquet", "data/chunk-000/file-000.parquet"
EPISODES = {"v2": "meta/episodes.jsonl", "v3": "meta/episodes/chunk-000/file-000.parquet"}


@pytest.fixture
def demos():
    return make_libero_demos(TASKS[0], 3) + make_libero_demos(TASKS[1])


@pytest.fixture
def v2(tmp_path, demos):
    write_lerobot_v2(tmp_path / "v2", demos)
    return tmp_path / "v2"


@pytest.fixture
def v3(tmp_path, demos):
    lerobot_v3.write(tmp_path / "v3", demos, CAMERAS, FPS)
    return tmp_path / "v3"


def read_all(root, cameras=CAMERAS, keys=None):
    source = sources.open(root, cameras, keys)
    return [demo for task in source.names() for demo in source.demos(task)]


def edit_table(path, change):
    import pyarrow.parquet as pq

    pq.write_table(change(pq.read_table(path)), path)


def put(name, values):
    """A change of a table: the column `name` anew."""

    def change(table):
        import pyarrow as pa

        column = values if not callable(values) else values(table[name].to_pylist())
        return table.set_column(table.column_names.index(name), name, pa.array(column))

    return change


def test_many_files(tmp_path, demos, monkeypatch):
    monkeypatch.setattr(lerobot_v3, "_DATA_MIB", 0)
    lerobot_v3.write(tmp_path / "v3", demos, CAMERAS, FPS)
    assert len(list((tmp_path / "v3" / "data").rglob("*.parquet"))) == 5
    for demo, wanted in zip(read_all(tmp_path / "v3"), demos, strict=True):
        np.testing.assert_array_equal(demo.images, wanted.images)


def test_one_row_group_of_many_episodes(v3, demos):
    import pyarrow.parquet as pq

    table = pq.read_table(v3 / V3_DATA)
    pq.write_table(table, v3 / V3_DATA, row_group_size=8)  # none ends where an episode ends
    for demo, wanted in zip(read_all(v3), demos, strict=True):
        np.testing.assert_array_equal(demo.images, wanted.images)
        np.testing.assert_array_equal(demo.actions, wanted.actions)


def test_videos_lose_little(tmp_path):
    smooth = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3)
    demos = [
        demo._replace(images=np.broadcast_to(smooth, demo.images.shape).astype(np.uint8))
        for demo in make_libero_demos()
    ]
    lerobot_v3.write(tmp_path / "v3", demos, CAMERAS, FPS, pictures="h264")
    for demo, wanted in zip(read_all(tmp_path / "v3"), demos, strict=True):
        assert 0 < np.abs(demo.images.astype(int) - wanted.images).mean() < 16


def test_statistics_for_lerobot(v3, demos):
    stats = json.loads((v3 / "meta" / "stats.json").read_text())
    actions = np.concatenate([demo.actions for demo in demos])
    pixels = np.concatenate([demo.images[:, 0].reshape(-1, 3) for demo in demos]) / 255
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["q99"], np.quantile(actions, 0.99, axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["observation.images.image"]["std"], pixels.std(0).reshape(3, 1, 1), atol=1e-6)
    assert stats["action"]["count"] == [len(actions)]


def test_channels_may_be_declared_first(v3):
    features = json.loads((v3 / "meta" / "info.json").read_text())["features"]
    for key in ("observation.images.image", "observation.images.image2"):
        features[key] |= {"shape": [3, 16, 16], "names": ["channels", "height", "width"]}
    edit_info(v3, features=features)
    assert read_all(v3)[0].images.shape == (5, 2, 16, 16, 3)


def test_a_dataset_of_links(v3, demos, tmp_path):
    (tmp_path / "links").mkdir()
    for file in [path for path in v3.rglob("*") if path.is_file()]:  # as the hub's cache keeps it
        link = tmp_path / "links" / file.relative_to(v3)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    assert len(read_all(tmp_path / "links")) == len(demos)


def test_own_names(tmp_path, demos):
    keys = {"agentview": "observation.images.front", "state": "observation.pose"}
    lerobot_v3.write(tmp_path / "v3", demos, CAMERAS, FPS, keys=keys)
    with pytest.raises(DemoError, match=r"agentview .* is not there; name its feature with keys"):
        read_all(tmp_path / "v3")
    np.testing.assert_array_equal(read_all(tmp_path / "v3", keys=keys)[0].images, demos[0].images)


@pytest.mark.parametrize("file", ["meta/info.json", "meta/tasks.jsonl", EPISODES["v2"], V2_DATA])
@pytest.mark.parametrize("kept", [None, 0.5])
def test_truncated_and_missing_files_of_version_2(v2, file, kept):
    damage(v2, file, kept)


@pytest.mark.parametrize("file", ["meta/info.json", "meta/tasks.parquet", EPISODES["v3"], V3_DATA])
@pytest.mark.parametrize("kept", [None, 0.5])
def test_truncated_and_missing_files_of_version_3(v3, file, kept):
    damage(v3, file, kept)


def damage(root, file, kept):
    content = (root / file).read_bytes()
    (root / file).unlink()
    if kept is not None:
        (root / file).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DemoError) as error:
        read_all(root)
    assert file.split("/")[-1] in str(error.value) or "total_episodes is 5" in str(error.value)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"codebase_version": "v4.0"}, r"codebase_version v4\.0 is unknown; known: v2\.0"),
        ({"total_episodes": 6}, "total_episodes is 6, but the metadata list 5"),
        ({"total_frames": 1}, "total_frames is 1, but the metadata list 29"),
        ({"total_tasks": 3}, "total_tasks is 3, but the metadata list 2"),
        ({"fps": 20}, r"frame 1 at 0\.100 s, expected 0\.050 s at the declared fps 20"),
        ({"fps": 0}, "fps is 0"),
        ({"features": 3}, "damaged"),
        ({"data_path": "../../data/{chunk_index}.parquet"}, "leads out of the dataset"),
        ({"data_path": "data/{nothing}.parquet"}, "key missing .*nothing"),
    ],
)
def test_declarations_that_do_not_fit(v3, fields, complaint):
    edit_info(v3, **fields)
    with pytest.raises(DemoError, match=complaint):
        read_all(v3)


@pytest.mark.parametrize(
    ("key", "change", "complaint"),
    [
        ("action", {"shape": [6]}, r"action has 7 dimensions, info\.json declares shape \(6,\)"),
        ("action", {"dtype": "float64"}, r"action holds float, but info\.json declares float64"),
        (
            "observation.images.image",
            {"shape": [8, 8, 3]},
            r"frame 0 is \(16, 16, 3\), but info\.json declares shape \(8, 8, 3\)",
        ),
        ("observation.images.image", {"dtype": "float32"}, "is of dtype float32, expected image or video"),
    ],
)
def test_features_that_do_not_fit(v3, key, change, complaint):
    features = json.loads((v3 / "meta" / "info.json").read_text())["features"]
    edit_info(v3, features={**features, key: {**features[key], **change}})
    with pytest.raises(DemoError, match=complaint):
        read_all(v3)


def first(value):
    return lambda cells: [value, *cells[1:]]


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("action", first(None), "action has empty cells"),
        ("action", first([1.0] * 6), "action is not of constant width"),
        ("actions", None, "actions at step 2 is not finite"),
        ("observation.state", lambda cells: [["x"] * 8 for _ in cells], "state holds string, but info"),
        ("episode_index", first(1), r"4 rows of episode 0 \(episode_index\), but the metadata declare length 5"),
        ("frame_index", first(3), "episode 0: frame_index does not count from 0 to 4"),
        ("task_index", first(1), "episode 0: frames of .*turn on the stove.*, but the metadata say 'pick up"),
        ("task_index", first(7), "episode 0: frames of task_index 7, but the tasks are 0 to 1"),
        ("observation.images.image", first({"bytes": b"", "path": "a.png"}), "frame 0 is not in the table; embed"),
        ("observation.images.image", first({"bytes": b"\x89PNG\r\n", "path": ""}), "frame 0: not a valid PNG or JPEG"),
    ],
)
def test_damaged_tables(v3, column, values, complaint):
    if column == "actions":
        column, values = "action", lambda cells: [*cells[:2], [float("nan")] * 7, *cells[3:]]
    edit_table(v3 / V3_DATA, lambda table: cast(put(column, values)(table), table))
    with pytest.raises(DemoError, match=complaint) as error:
        read_all(v3)
    assert V3_DATA in str(error.value)


def cast(table, like):
    """Float columns as they were, in lists of any length."""
    import pyarrow as pa

    for i, name in enumerate(table.column_names):
        if str(table[name].type) == "list<item: double>":
            table = table.set_column(i, name, table[name].cast(pa.list_(pa.float32())))
    return table


def test_a_column_that_is_not_there(v3):
    edit_table(v3 / V3_DATA, lambda table: table.drop_columns(["action"]))
    with pytest.raises(DemoError, match=r"file-000\.parquet: key missing .*action"):
        read_all(v3)


def test_missing_episodes(v2):
    rows = [json.loads(line) for line in (v2 / EPISODES["v2"]).read_text().splitlines()]
    write_lines(v2 / EPISODES["v2"], [*rows[:1], *rows[2:], rows[2]])
    edit_info(v2, total_frames=sum(row["length"] for row in rows) + 1)
    with pytest.raises(DemoError, match="episode_index 2 after 4, expected each once, in ascending order"):
        read_all(v2)


def test_an_episode_of_two_tasks(v2):
    rows = [json.loads(line) for line in (v2 / EPISODES["v2"]).read_text().splitlines()]
    write_lines(v2 / EPISODES["v2"], [{**rows[0], "tasks": list(TASKS)}, *rows[1:]])
    with pytest.raises(DemoError, match="episode 0 has 2 tasks, expected one"):
        read_all(v2)


def test_what_cannot_be_written(tmp_path, demos):
    root = tmp_path / "v3"
    with pytest.raises(DemoError, match="no demonstration to write"):
        lerobot_v3.write(root, [], CAMERAS, FPS)
    with pytest.raises(DemoError, match=r"demonstration 1 has .* earlier ones have"):
        lerobot_v3.write(root, [demos[0], demos[1]._replace(state=demos[1].state[:, :4])], CAMERAS, FPS)
    with pytest.raises(DemoError, match="pictures='gif' is unknown; known: png, h264"):
        lerobot_v3.write(root, demos, CAMERAS, FPS, pictures="gif")
    assert list(tmp_path.iterdir()) == []
    root.mkdir()
    with pytest.raises(DemoError, match="exists; choose another"):
        lerobot_v3.write(root, demos, CAMERAS, FPS)
