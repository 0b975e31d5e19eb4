"""The demonstrations that are adapted to, and those that are judged by."""

from pathlib import Path

import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, support
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.data.support import Wanted
from metalora_jax.types import Demo

pytestmark = pytest.mark.parquet


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Six episodes of one task, whose actions are their numbers."""
    pytest.importorskip("pyarrow")
    root = tmp_path_factory.mktemp("support") / "set"
    numbers = [np.full((4, 6), number, np.float32) for number in range(6)]
    lerobot_v3.write(root, [Demo("lift", np.zeros((4, 1, 8, 8, 3), np.uint8), n, n) for n in numbers], ("top",), 10)
    return root


def wanted(dataset: Path, **fields) -> Wanted:
    return Wanted(dataset, ("top",), {}, "", **dict(shots=2, held_out=()) | fields)


def test_episodes_are_held_out_of_those_that_are_named(dataset):
    read = support.read(wanted(dataset, episodes=["1", "3", "5"], held_out=["last:1"]), Embodiment())
    assert read.episodes == [1, 3]
    assert [demo.actions[0, 0] for demo in (*read.demos, *read.unseen)] == [1, 3, 5]
    assert read.told == "episode 5, held out"


def test_an_episode_that_is_asked_for_and_dropped_is_refused(dataset):
    with pytest.raises(DemoError, match="episode 1 is both in episodes and in drop"):
        support.read(wanted(dataset, episodes=["1", "3"], drop=["1"]), Embodiment())
