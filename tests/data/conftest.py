"""A sound LeRobot dataset in both versions, and a copy of each that a test may change."""

import shutil

import pytest

from tests.data.lerobot_sets import mixed, write_both


@pytest.fixture(scope="module")
def demos():
    return mixed()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_both(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def v3(tmp_path, sound):
    return shutil.copytree(sound / "v3", tmp_path / "v3")


@pytest.fixture
def v2(tmp_path, sound):
    return shutil.copytree(sound / "v2", tmp_path / "v2")
