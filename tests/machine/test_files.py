import ast
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from metalora_jax.machine import files


class Killed(BaseException):
    pass


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_text("old")
    return tmp_path / "file"


@pytest.fixture
def full_disk(monkeypatch):
    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", full)


@pytest.fixture
def steps(monkeypatch):
    """What is flushed and renamed, in order."""
    done = []
    replace = os.replace
    monkeypatch.setattr(files, "_sync", lambda path: done.append(("flush", path.name.split(".new")[0])))
    monkeypatch.setattr(files.os, "replace", lambda new, old: (done.append("replace"), replace(new, old)))
    return done


@pytest.mark.parametrize("there", [True, False])
def test_a_file_is_there_when_the_block_has_ended(tmp_path, there):
    path = tmp_path / "file"
    if there:
        path.write_text("old")
    with files.atomic_file(path) as staging:
        assert staging.parent == tmp_path  # a rename from another file system would be a copy
        staging.write_text("new")
        assert path.exists() == there
        assert not there or path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Killed])
def test_an_exception_leaves_the_old_file_and_nothing_else(file, error):
    def write():
        with files.atomic_file(file) as staging:
            staging.write_text("ne")
            raise error

    with pytest.raises(error):
        write()
    assert file.read_text() == "old"
    assert names(file.parent) == ["file"]


@pytest.mark.usefixtures("full_disk")
def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(file):
    with pytest.raises(OSError, match="no space"):
        files.write_text(file, "new")
    assert file.read_text() == "old"
    assert names(file.parent) == ["file"]


def test_readers_meet_whole_files_only(tmp_path):
    path, ends, seen = tmp_path / "file", threading.Event(), set()
    contents = [letter * 100_000 for letter in "ab"]
    files.write_text(path, contents[0])

    def read():
        while not ends.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        files.write_text(path, contents[number % 2])
    ends.set()
    reader.join()
    assert seen <= set(contents)
    assert seen


def test_two_writers_of_one_file_do_not_meet(file):
    with files.atomic_file(file) as first, files.atomic_file(file) as second:
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first"  # whose block ends last
    assert names(file.parent) == ["file"]


def test_a_file_is_flushed_before_it_takes_its_place_and_its_directory_after(file, steps):
    files.write_text(file, "new")
    assert steps == [("flush", ".file"), "replace", ("flush", file.parent.name)]


def test_what_need_not_last_is_not_flushed(file, steps):
    with files.atomic_file(file, durable=False) as staging:
        staging.write_text("new")
    assert steps == ["replace"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_text(tmp_path / "file", "text")
        with files.atomic_directory(tmp_path / "directory"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "directory").stat().st_mode) == 0o755


def test_text_is_utf8(tmp_path):
    files.write_text(tmp_path / "file", "größer\n")
    assert (tmp_path / "file").read_bytes() == "größer\n".encode()


def test_json_as_it_stands_in_the_file(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"b": [1], "a": "ö"})
    assert path.read_text() == '{\n "b": [\n  1\n ],\n "a": "\\u00f6"\n}\n'
    files.write_json(path, {"b": 1, "a": 2}, indent=2, sort_keys=True)
    assert path.read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'
    assert files.read_json(path) == {"a": 2, "b": 1}


def test_what_json_cannot_say_leaves_the_old_file(file):
    for value, options in (({"x": float("nan")}, {"allow_nan": False}), ({"x": object()}, {})):
        with pytest.raises((ValueError, TypeError)):
            files.write_json(file, value, **options)
    assert file.read_text() == "old"
    assert names(file.parent) == ["file"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"not a readable JSON file \(.*No such file"),
        (b'{"a": ', r"not a readable JSON file \(damaged or truncated, no valid JSON from line 1, column 7 on"),
        (b"\xff", r"not a readable JSON file \(it is not UTF-8 text"),
        (b"[1]", "holds no JSON object"),
        (b"null", "holds no JSON object"),
    ],
)
def test_a_file_without_a_json_object_is_named(tmp_path, content, complaint):
    path = tmp_path / "value.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"value\.json: {complaint}") as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def write_directory(path, text, **options):
    with files.atomic_directory(path, **options) as staging:
        (staging / "file").write_text(text)


def test_a_directory_is_there_when_the_block_has_ended(tmp_path):
    with files.atomic_directory(tmp_path / "directory") as staging:
        (staging / "file").write_text("new")
        assert not (tmp_path / "directory").exists()
    assert (tmp_path / "directory" / "file").read_text() == "new"
    assert names(tmp_path) == ["directory"]


def test_a_directory_with_content_is_replaced_only_where_that_is_wanted(tmp_path):
    write_directory(tmp_path / "directory", "old")
    with pytest.raises(OSError, match="not empty"):
        write_directory(tmp_path / "directory", "new")
    assert (tmp_path / "directory" / "file").read_text() == "old"
    write_directory(tmp_path / "directory", "new", overwrite=True)
    assert (tmp_path / "directory" / "file").read_text() == "new"
    assert names(tmp_path) == ["directory"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_exception_leaves_the_old_directory_and_nothing_else(tmp_path, overwrite):
    def write():
        with files.atomic_directory(tmp_path / "directory", overwrite=overwrite) as staging:
            (staging / "file").write_text("ne")
            raise Killed

    write_directory(tmp_path / "directory", "old")
    with pytest.raises(Killed):
        write()
    assert (tmp_path / "directory" / "file").read_text() == "old"
    assert names(tmp_path) == ["directory"]


@pytest.mark.usefixtures("full_disk")
def test_a_disk_that_is_full_leaves_no_directory(tmp_path):
    with pytest.raises(OSError, match="no space"):
        write_directory(tmp_path / "directory", "new")
    assert names(tmp_path) == []


@pytest.mark.parametrize("one_step", [True, False])
def test_exchange_swaps_directories(tmp_path, monkeypatch, one_step):
    if not one_step:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *args, **kwargs: object())
    else:
        monkeypatch.setattr(files.os, "rename", None)  # for between two of them there is a moment without either
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    files._exchange(tmp_path / "new", tmp_path / "old")
    assert {p.name: (p / "file").read_text() for p in tmp_path.iterdir()} == {"old": "new", "new": "old"}


def test_a_tree_is_flushed_from_its_leaves_up(tmp_path, steps):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    files.sync_tree(tmp_path)
    assert steps == [("flush", name) for name in ("file", "b", "a", tmp_path.name)]


def test_nothing_but_the_standard_library_is_imported():
    with open(files.__file__) as source:
        tree = ast.parse(source.read())
    modules = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(tmp_path / "a.json") == {"a": 1}


def test_bytes_are_written_whole(tmp_path):
    files.write_bytes(tmp_path / "a.png", b"\x89")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"\x89")]


WRITE = """
import os, signal, sys
from pathlib import Path
from metalora_jax.machine import files
with files.atomic_directory(Path(sys.argv[1])) as staging:
    (staging / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path):
    path = tmp_path / "directory"
    done = subprocess.run([sys.executable, "-c", WRITE, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    [left] = names(tmp_path)
    others = [".directory.new-mine", ".other.new-abcdefgh", ".directory.new-abcdefgh.old", "directory.new-abcdefgh"]
    for other in others:
        (tmp_path / other).mkdir()
    (tmp_path / ".directory.new-abcdefgh").mkdir()  # a copy that was being exchanged, which the one aside tells
    (tmp_path / ".directory.new-file0000").touch()
    write_directory(path, "new")
    kept = [*others, "directory", ".directory.new-abcdefgh", ".directory.new-file0000"]
    assert names(tmp_path) == sorted(kept)
    assert left not in kept


def test_two_writers_of_one_directory_do_not_meet(tmp_path):
    path = tmp_path / "directory"
    with files.atomic_directory(path, overwrite=True) as first:
        (first / "file").write_text("first")
        write_directory(path, "second")
    assert (path / "file").read_text() == "first"  # whose block ends last
    assert names(tmp_path) == ["directory"]
