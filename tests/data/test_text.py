"""Text in files: UTF-8 whatever the locale, types before use, and instructions that are words, not names of files."""

import json
import os
import subprocess
import sys
import unicodedata

import h5py
import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, libero_hdf5, sources, text
from metalora_jax.data.demos import DemoError
from metalora_jax.data.libero_names import NAMES
from metalora_jax.data.libero_words import choose
from tests.data.libero_golden import libero_tasks
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

EPISODES, LABELS = "meta/episodes/chunk-000/file-000.parquet", "meta/tasks.parquet"
CAFE = "put the café au lait\u2028on the tray"  # with a line separator, which JSON may hold as it is


def read_all(root, cameras=()):
    return [demo for _, demo in sources.open(root, cameras).survey()]


@pytest.mark.parquet
class TestJsonOfVersion2:
    @pytest.fixture
    def demos(self):
        return make_libero_demos(CAFE) + make_libero_demos(TASKS[1])

    @pytest.fixture
    def root(self, tmp_path, demos):
        write_lerobot_v2(tmp_path / "v2", demos)
        for name in ("info.json", "tasks.jsonl", "episodes.jsonl"):
            path = tmp_path / "v2" / "meta" / name
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return tmp_path / "v2"

    @pytest.mark.parametrize("change", [bytes, lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n\r\n")])
    def test_a_byte_order_mark_and_other_ends_of_lines(self, root, demos, change):
        for path in (root / "meta").iterdir():
            path.write_bytes(change(path.read_bytes()))
        assert_same(read_all(root, CAMERAS), demos)

    def test_another_locale(self, root):
        code = f"from metalora_jax.data import sources; print(ascii(sources.open({str(root)!r}, ()).names()[0]))"
        env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ascii(CAFE)

    @pytest.mark.parametrize(
        ("file", "old", "new", "complaint"),
        [
            ("tasks.jsonl", "é", b"\xe9", r"tasks\.jsonl: line 1 is not UTF-8 text; save the file as UTF-8"),
            (
                "tasks.jsonl",
                '"task": "turn',
                b'"task": turn',
                r"tasks\.jsonl: line 2: damaged .* no valid JSON from line 1,",
            ),
            ("tasks.jsonl", '"turn on the stove"', b"17", r"task 1 is 17 \(a number\), expected text"),
            ("tasks.jsonl", '"turn on the stove"', b'["turn"]', r"task 1 is \['turn'\] \(a list\), expected text"),
            ("tasks.jsonl", '"task_index": 1', b'"task_index": "1"', r"task_index is '1' \(text\), expected a whole"),
            (
                "episodes.jsonl",
                '"length": 5',
                b'"length": 5.5',
                r"episode 0: length is 5\.5 \(a number\), expected a whole",
            ),
            (
                "episodes.jsonl",
                '["turn on the stove"]',
                b"17",
                r"episode 2: tasks are 17 \(a number\), expected a list",
            ),
            (
                "episodes.jsonl",
                '["turn on the stove"]',
                b"[17]",
                r"episode 2: its task is 17 \(a number\), expected text",
            ),
            ("episodes.jsonl", '["turn on the stove"]', b"[]", "episode 2 has 0 tasks, expected one"),
            ("info.json", '"fps": 10', b'"fps": "10"', r"fps is '10' \(text\), expected a positive number"),
            ("info.json", '"fps": 10', b'"fps": true', r"fps is True \(a truth value\), expected"),
            ("info.json", '"fps": 10', b'"fps": NaN', r"fps is nan \(a number\), expected"),
            ("info.json", '"total_tasks": 2', b'"total_tasks": "2"', r"total_tasks is '2' \(text\), expected a whole"),
            ("info.json", '"chunks_size": 1000', b'"chunks_size": 0', "chunks_size is 0, expected a positive"),
            (
                "info.json",
                '"dtype": "float32"',
                b'"dtype": 32',
                r"feature state: dtype is 32 \(a number\), expected text",
            ),
            ("info.json", '"float32"', b'"object"', "state is of dtype object, expected numbers"),
            ("info.json", '"v2.1"', b"2.1", r"codebase_version 2\.1 \(a number\) is unknown"),
            ("info.json", "{", b"[{", "damaged"),
        ],
    )
    def test_other_types(self, root, file, old, new, complaint):
        path = root / "meta" / file
        assert old.encode() in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old.encode(), new, 1))
        with pytest.raises(DemoError, match=complaint) as error:
            raise next((demo for demo in read_all(root) if isinstance(demo, DemoError)), AssertionError("none"))
        assert file in str(error.value)

    def test_a_task_given_as_text_is_one_task(self, root, demos):
        path = root / "meta" / "episodes.jsonl"
        path.write_text(path.read_text("utf-8").replace('["turn on the stove"]', '"turn on the stove"'), "utf-8")
        assert_same(read_all(root, CAMERAS), demos)


def test_oddities():
    decomposed = unicodedata.normalize("NFD", "café")
    assert text.oddities(["open the door", "turn on light 2", "move the cup to row 3"]) == []
    [one, other] = text.oddities(["café", decomposed])
    assert "decomposed letters" in one
    assert "are the same words in two forms" in other
    assert "stray white space" in text.oddities([" open  the door\r"])[0]
    hidden = text.oddities(["open the door", "open the\u200b door"])
    assert "invisible characters" in hidden[0]
    assert "the same words in two forms" in hidden[1]
    for ids in ("language_3", "view_1_2", "tb_9", "view 0 0 100 2 352 initstate 0", "demo (1)"):
        assert "ends like a file's name" in text.oddities([f"open the door {ids}"])[0]


@pytest.mark.parquet
def test_oddities_are_said_when_a_dataset_is_opened(tmp_path, caplog):
    composed, decomposed = "fill the café", unicodedata.normalize("NFD", "fill the café")
    lerobot_v3.write(tmp_path / "v3", make_libero_demos(composed) + make_libero_demos(decomposed), CAMERAS, FPS)
    source = sources.open(tmp_path / "v3", ())
    assert "are the same words in two forms, and so two tasks" in caplog.text
    assert (source.find(composed), source.find(decomposed)) == (composed, decomposed)
    with pytest.raises(DemoError, match="is ambiguous"):
        source.find(composed.upper())


class TestWordsOfLiberoFiles:
    SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"

    def test_the_names_are_those_of_the_benchmark(self):
        assert set(libero_tasks()) == NAMES

    @pytest.mark.parametrize(
        "ending", ["_view_0_0_100_2_352_initstate_0", "_light_1", "_language_3", " (1)", "_2025_03_01"]
    )
    def test_ids_are_no_words(self, ending):
        assert choose(self.SOUP + ending, "grab the soup") == ("grab the soup", "")

    def test_older_words_of_a_benchmark_task(self):
        words = choose(self.SOUP, "pick the alphabet soup and place it in the basket")
        assert words.instruction == self.SOUP.replace("_", " ")
        assert "the words recorded in the file are 'pick the alphabet soup" in words.note
        assert choose(self.SOUP, "Pick up the alphabet soup and place it in the basket.").note == ""

    def test_quite_other_words(self):
        words = choose(self.SOUP, "open the top drawer")
        assert words.instruction == "open the top drawer"
        assert "as recorded in the file, whose name is of another task" in words.note

    def test_the_choice_is_logged_once_and_the_task_is_found_by_what_is_told(self, tmp_path, caplog):
        path = tmp_path / f"{self.SOUP}_language_3_demo.hdf5"
        libero_hdf5.write_official(path, recordings(make_libero_demos("grab the soup")), CAMERAS, {})
        source = sources.open(path, ())
        assert source.find("Grab the soup") == f"{self.SOUP}_language_3"
        with h5py.File(path, "a") as file:
            del file["data"].attrs["provenance"]
            file["data"].attrs["problem_info"] = json.dumps(
                {"language_instruction": "pick the alphabet soup and place it in the basket"}
            )
        source = sources.open(path.rename(tmp_path / f"{self.SOUP}_demo.hdf5"), ())
        for _ in range(2):
            assert next(source.demos(source.only())).instruction == self.SOUP.replace("_", " ")
        assert caplog.text.count("after the file's name") == 1

    @pytest.mark.parametrize(
        ("attribute", "value", "complaint"),
        [
            ("problem_info", "[]", r"problem_info is \[\] \(a list\), expected a JSON object"),
            ("problem_info", "{", "problem_info is damaged, no valid JSON"),
            ("problem_info", 3, r"problem_info is .*3.*, expected text"),
            ("num_demos", "2", r"num_demos is '2' \(text\), expected a whole number"),
            ("macros_image_convention", 1, "macros_image_convention is .*, expected text"),
        ],
    )
    def test_other_types(self, tmp_path, attribute, value, complaint):
        path = tmp_path / "push_demo.hdf5"
        libero_hdf5.write_official(path, recordings(make_libero_demos("push")), CAMERAS, {})
        with h5py.File(path, "a") as file:
            file["data"].attrs[attribute] = value
        with pytest.raises(DemoError, match=complaint):
            list(sources.open(path, CAMERAS).demos("push"))

    def test_attributes_as_bytes(self, tmp_path):
        path, demos = tmp_path / "push_demo.hdf5", make_libero_demos("push")
        libero_hdf5.write_official(path, recordings(demos), CAMERAS, {})
        with h5py.File(path, "a") as file:
            for name in ("problem_info", "macros_image_convention"):
                file["data"].attrs[name] = np.bytes_(file["data"].attrs[name].encode())
        assert_same(sources.open(path, CAMERAS).demos("push"), demos)


@pytest.mark.parquet
class TestDatasetsAsPeopleHaveThem:
    @pytest.fixture
    def demos(self):
        return make_libero_demos(TASKS[0]) + make_libero_demos(TASKS[1])

    @pytest.fixture
    def v3(self, tmp_path, demos):
        lerobot_v3.write(tmp_path / "v3", demos, CAMERAS, FPS)
        return tmp_path / "v3"

    def test_episodes_without_tasks(self, v3, demos):
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(v3 / EPISODES).drop_columns(["tasks"]), v3 / EPISODES)
        assert sources.open(v3, CAMERAS).tasks() == dict.fromkeys(TASKS, 2)
        assert_same(read_all(v3, CAMERAS), demos)
        edit_rows(v3 / "data/chunk-000/file-000.parquet", lambda rows: rows[2].update(task_index=1))
        [fault] = sources.open(v3, CAMERAS).faults()
        assert (fault.number, fault.task) == (0, "")
        assert "episode 0: its rows name 2 tasks (task_index)" in fault.message

    def test_the_index_of_tasks_is_named(self, v3, demos):
        import pyarrow.parquet as pq

        table = pq.read_table(v3 / LABELS)
        pq.write_table(table.rename_columns(["task_index", "task"]), v3 / LABELS)
        assert_same(read_all(v3, CAMERAS), demos)
        pq.write_table(table.rename_columns(["task_index", "words"]), v3 / LABELS)
        with pytest.raises(DemoError, match="has the columns task_index, words, expected task_index and task"):
            read_all(v3)

    def test_depth_and_annotations_are_left_out(self, v3, demos, caplog):
        caplog.set_level("INFO", logger="absl")
        features = json.loads((v3 / "meta" / "info.json").read_text())["features"]
        depth = {"dtype": "video", "shape": [16, 16, 1], "names": None, "info": {"is_depth_map": True}}
        more = {"observation.images.depth": depth, "language_persistent": {"dtype": "language", "shape": [1]}}
        edit_info(v3, features={**features, **more})
        assert_same(read_all(v3, CAMERAS), demos)
        assert "left out depth: observation.images.depth" in caplog.text
        assert "left out annotations in words (keys use them: instruction=subtask" in caplog.text
        with pytest.raises(
            DemoError, match=r"observation\.images\.depth holds depth, not colours; name another camera"
        ):
            sources.open(v3, ("depth",))
        with pytest.raises(DemoError) as error:
            sources.open(v3, ("topview",))
        assert "the pictures are: observation.images.image, observation.images.image2" in str(error.value)
