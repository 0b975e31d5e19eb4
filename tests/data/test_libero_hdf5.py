"""Demonstration files: whole or not at all, read strictly, and every refusal names the file and the place."""

import errno

import h5py
import numpy as np
import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.data.libero_hdf5 import DemoError
from metalora_jax.machine import files
from tests.tiny_base import make_demos

CAMERAS = ("agentview", "topview")


@pytest.fixture
def demos():
    return make_demos("reach", count=3, cameras=2, image_size=8)


@pytest.fixture
def file(tmp_path, demos):
    path = tmp_path / "made" / "reach_demo.hdf5"
    libero_hdf5.write(path, demos, CAMERAS, "reach", {"seeds": [1, 2, 3]})
    return path


def test_what_is_written_is_read(file, demos):
    assert libero_hdf5.count(file) == 3
    for read, written in zip(libero_hdf5.read(file, CAMERAS), demos, strict=True):
        assert read.instruction == written.instruction
        for got, wanted in zip(read[1:4], written[1:4], strict=True):
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)


def test_limit_and_camera_order(file, demos):
    [first] = libero_hdf5.read(file, ("topview", "agentview"), limit=1)
    np.testing.assert_array_equal(first.images, demos[0].images[:, ::-1])
    [first] = libero_hdf5.read(file, ("topview",), limit=1)
    np.testing.assert_array_equal(first.images, demos[0].images[:, 1:])


def test_layout_is_libero_s(file, demos):
    with h5py.File(file) as opened:
        data = opened["data"]
        assert data.attrs["total"] == sum(len(demo.actions) for demo in demos)
        assert data["demo_1"].attrs["num_samples"] == len(data["demo_1/actions"]) == 7
        assert data["demo_1/dones"][()].tolist() == [0] * 6 + [1]
        assert data["demo_1/obs/agentview_rgb"].shape == (7, 8, 8, 3)


def test_no_file(tmp_path):
    assert libero_hdf5.count(tmp_path / "none.hdf5") == 0
    with pytest.raises(DemoError, match=r"none\.hdf5: no such demonstration file; record it with"):
        libero_hdf5.read(tmp_path / "none.hdf5", CAMERAS)


def test_a_misspelt_file_gets_the_near_ones(file):
    with pytest.raises(DemoError, match=r"recah_demo\.hdf5: no such .* \(did you mean reach_demo\.hdf5\?\)"):
        libero_hdf5.read(file.with_name("recah_demo.hdf5"), CAMERAS)


@pytest.mark.parametrize("kept", [0.1, 0.9])
def test_truncated_file(file, kept):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    for read in (libero_hdf5.count, lambda path: libero_hdf5.read(path, CAMERAS)):
        with pytest.raises(DemoError, match=r"reach_demo\.hdf5: damaged or truncated; record it again"):
            read(file)


def remove(key):
    def change(data):
        del data[key]

    return change


def put(key, value):
    def change(data):
        if key in data:
            del data[key]
        data[key] = value

    return change


def forget(attribute):
    def change(data):
        del data.attrs[attribute]

    return change


def declare(count):
    return lambda data: data.attrs.modify("num_demos", count)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (remove("demo_1/obs/ee_pos"), "key missing .*ee_pos"),
        (remove("demo_2"), "num_demos is 3, there are 2 demonstrations; fix"),
        (remove("demo_0/obs/topview_rgb"), "key missing .*topview_rgb"),
        (forget("problem_info"), "key missing .*problem_info"),
        (declare(2), "num_demos is 2, there are 3 demonstrations; fix the attribute"),
        (declare(-1), "num_demos is -1, there are 3"),
        (lambda data: data.move("demo_1", "demo_01"), "data/demo_01 has no number that counts from 0, such as demo_0"),
        (
            put("demo_1/actions", np.full((7, 4), 1e30)),
            r"demo_1: actions at step 0 is implausibly large \(1e\+30 in dimension 0\)",
        ),
        (
            put("demo_1/actions", np.zeros((7, 4), int)),
            r"demo_1: actions are int64 \(7, 4\), expected floats .*; convert",
        ),
        (put("demo_1/obs/agentview_rgb", np.zeros((7, 0, 0, 3), np.uint8)), "demo_1: "),
        (put("demo_0/actions", np.array([[0.0] * 4] * 4 + [[np.nan] * 4] * 2)), "demo_0: actions at step 4"),
        (put("demo_1/obs/ee_pos", np.full((7, 3), np.inf)), "demo_1: state at step 0"),
        (put("demo_1/actions", np.zeros((5, 4))), "ee_pos .7, 3., .* for actions .5, 4., expected as many rows"),
        (put("demo_1/actions", np.zeros((0, 4))), "demo_1: .* for actions .0, 4."),
        (put("demo_1/obs/gripper_states", np.zeros((6, 1))), "demo_1: .*gripper_states .6, 1. for actions .7, 4."),
        (put("demo_0/obs/agentview_rgb", np.zeros((6, 8, 8, 3), np.float32)), "images are float32"),
    ],
)
def test_damage_inside(file, change, complaint):
    with h5py.File(file, "a") as opened:
        change(opened["data"])
    with pytest.raises(DemoError, match=complaint) as error:
        libero_hdf5.read(file, CAMERAS)
    assert "reach_demo.hdf5" in str(error.value)


def test_more_demonstrations_than_there_are(file):
    with pytest.raises(DemoError, match="4 demonstrations requested, 3 found"):
        libero_hdf5.read(file, CAMERAS, limit=4)


def test_what_cannot_be_written(tmp_path, demos):
    path = tmp_path / "reach_demo.hdf5"
    with pytest.raises(DemoError, match="no demonstration to write"):
        libero_hdf5.write(path, [], CAMERAS, "reach", {})
    with pytest.raises(DemoError, match="must share one instruction"):
        libero_hdf5.write(path, [demos[0], demos[1]._replace(instruction="push")], CAMERAS, "reach", {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(file, demos):
    before = file.read_bytes()
    with pytest.raises(IndexError):
        libero_hdf5.write(file, demos, (*CAMERAS, "a camera that was not recorded"), "reach", {})
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file, demos, monkeypatch):
    before = file.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        DemoError, match=r"reach_demo\.hdf5: cannot be written \(No space left on device\); free some space"
    ):
        libero_hdf5.write(file, demos[:1], CAMERAS, "reach", {})
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
