"""What a section `data` leaves to the data: tasks, cameras, what is held out; several datasets; datasets on the hub."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, sources
from metalora_jax.data.config import DataConfig, HeldOut, check_named, described, read_demos, resolved, weights
from metalora_jax.data.demos import DemoError
from metalora_jax.data.tasks import draw_tasks
from metalora_jax.types import Demo

TASKS = ("lift the cube", "place the cube", "push the cube", "turn the cube", "drop the cube")


def demos(tasks=TASKS, each=3, joints=6) -> list[Demo]:
    """In turns, each with values of its own."""
    rng = np.random.default_rng(0)

    def one(task: str) -> Demo:
        images = rng.integers(0, 256, (4, 2, 16, 16, 3), dtype=np.uint8)
        return Demo(task, images, *(rng.normal(size=(4, joints)).astype(np.float32) for _ in range(2)))

    return [one(task) for _ in range(each) for task in tasks]


def write(root: Path, recorded: list[Demo], cameras=("top", "wrist")) -> Path:
    lerobot_v3.write(root, recorded, cameras, 10)
    return root


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    pytest.importorskip("pyarrow")
    return write(tmp_path_factory.mktemp("own") / "set", demos())


def section(directory: Path, **fields) -> DataConfig:
    return DataConfig.from_config({"directory": str(directory), **fields})


def test_tasks_cameras_and_episodes_are_read_from_the_data(dataset):
    data, held = resolved(section(dataset, held_out_tasks=0.2, held_out_episodes=("last:1",)))
    assert tuple(data.tasks) == TASKS[:-1]
    assert data.cameras == ("top", "wrist")
    assert held == HeldOut(("drop the cube",), (10, 11, 12, 13))
    assert "held out: 'drop the cube'; held-out episodes: 10,11,12,13" in described(data, held)
    read = read_demos(section(dataset, held_out_tasks=0.2, held_out_episodes=("last:1",)))
    assert {task: len(recorded) for task, recorded in read.items()} == dict.fromkeys(TASKS[:-1], 2)
    for i, task in enumerate(TASKS[:-1]):
        for recorded, episode in zip(read[task], (i, 5 + i), strict=True):
            np.testing.assert_array_equal(recorded.actions, demos()[episode].actions)
    assert resolved(data) == (data, HeldOut((), ()))


def test_episodes_are_held_out_of_those_that_are_named(dataset):
    asked = section(dataset, tasks=TASKS[:1], episodes=(0, 5, 6), held_out_episodes=("last:1",))
    data, held = resolved(asked)
    assert held.episodes == (5,)
    assert (data.episodes, data.drop) == ([0, 6], (5,))
    [[recorded]] = read_demos(asked).values()
    np.testing.assert_array_equal(recorded.actions, demos()[0].actions)


def test_few_tasks_are_all_learned(dataset):
    assert tuple(resolved(section(dataset, held_out_tasks=0.19))[0].tasks) == TASKS


def test_without_pictures_no_camera_is_asked_for(dataset):
    read = read_demos(section(dataset, keys=("front=observation.images.top",)), pictures=False)
    assert read[TASKS[0]][0].images.shape == (4, 0, 0, 0, 3)
    assert resolved(section(dataset, keys=("front=observation.images.top",)))[0].cameras == ("front", "wrist")


def test_datasets_are_mapped_by_name_and_drawn_by_weight(dataset, tmp_path):
    other = write(tmp_path / "other", demos(TASKS[:2]), ("front", "hand"))
    keys = {"top": "observation.images.front", "wrist": "observation.images.hand"}
    more = dict(directory=str(other), cameras=("top", "wrist"), keys=keys, weight=3.0, held_out_episodes=("last:1",))
    data = section(dataset, others={"lab": more})
    read = read_demos(data)
    assert list(read) == [*TASKS, "lab/lift the cube", "lab/place the cube"]
    assert [len(read[task]) for task in read] == [3] * 5 + [2] * 2
    np.testing.assert_array_equal(read["lab/place the cube"][1].images, demos(TASKS[:2])[3].images)
    shares = weights(data, list(read))
    assert shares == pytest.approx([0.05] * 5 + [0.375] * 2)
    drawn = draw_tasks(0, 0, 2000, list(read), dict.fromkeys(read, 2), 1, 1, lambda _: None, shares)
    found = Counter(draw.task.startswith("lab/") for draw in drawn)
    assert found[True] / 2000 == pytest.approx(0.75, abs=0.04)
    assert weights(section(dataset), TASKS) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(held_out_tasks=1.0), "held_out_tasks is 1.0; it is a share, from 0 to below 1"),
        (dict(held_out_tasks=0.5, tasks=("a",)), r"set --config\.data\.held_out_tasks=0 beside"),
        (dict(weight=0.0), "data.weight is 0.0; it must be positive"),
        (dict(others={"a/b": dict(directory="x")}), "choose a name without a slash"),
        (dict(others={"a": dict(directory="x", camera=())}), r"no field data\.camera; .* did you mean cameras"),
    ],
)
def test_sections_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        section(Path("somewhere"), **fields)


def test_what_does_not_fit_together_is_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"data\.directory is not set; --config\.data\.directory=PATH"):
        resolved(section(Path("x"))._replace(directory=""))
    with pytest.raises(ValueError, match=r"test\.tasks is not set; only meta_train reads it from the data"):
        check_named(section(dataset), "test")
    with pytest.raises(DemoError, match="all 3 episodes of 'lift the cube' would be held out"):
        resolved(section(dataset, held_out_episodes=("last:3",)))
    narrow = write(tmp_path / "narrow", demos(joints=5))
    with pytest.raises(ValueError, match=r"state and action differ: .*set: .*6, 6\); .*narrow: .*5, 5\)"):
        read_demos(section(dataset, others={"arm": dict(directory=str(narrow))}))
    apart = write(tmp_path / "apart", demos(), ("top", "side"))
    with pytest.raises(ValueError, match=r"others\.arm has cameras top, side, data top, wrist: name the same"):
        read_demos(section(dataset, others={"arm": dict(directory=str(apart))}))


class Hub:
    """Stands for the hub: remembers what is asked, and answers with a directory or fails."""

    def __init__(self, monkeypatch, answer: Path | Exception):
        self.asked: list = []

        def snapshot_download(name, **options):
            self.asked.append((name, options))
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)


def test_a_dataset_on_the_hub_is_fetched_at_its_revision(dataset, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    hub = Hub(monkeypatch, dataset)
    assert sources.open("lerobot/svla_so100@v3.0", ("top",)).names() == TASKS
    wanted = ["meta/*", "data/*", "videos/*"]
    assert hub.asked == [("lerobot/svla_so100", dict(repo_type="dataset", revision="v3.0", allow_patterns=wanted))]
    assert read_demos(section(Path("lerobot/svla_so100"), tasks=TASKS[:1]))
    assert hub.asked[-1][1]["revision"] is None


def test_without_a_network_one_line_says_which_files_to_put_where(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Hub(monkeypatch, OSError("no network\nat all"))
    with pytest.raises(DemoError) as raised:
        sources.open("lerobot/svla_so100@v3.0", ())
    assert str(raised.value) == (
        "lerobot/svla_so100@v3.0 is no path, nor available from the hub (OSError: no network). Without a network: put "
        "the folders meta, data and videos of the dataset lerobot/svla_so100 at v3.0 into a directory, and name that"
    )


def test_a_mistyped_path_is_not_sought_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demos").mkdir(parents=True)
    hub = Hub(monkeypatch, OSError("no network"))
    with pytest.raises(DemoError, match=r"no such demonstration file or directory \(did you mean demos\?\)"):
        sources.open("runs/demo", ())
    assert not hub.asked
