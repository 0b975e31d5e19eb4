"""Fixtures of the tests of the doctor: a file of demonstrations, and a simulator of the room that they show."""

from pathlib import Path

import numpy as np
import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.evaluation.doctor import setup, simulated
from metalora_jax.evaluation.doctor.findings import Outcome
from metalora_jax.evaluation.doctor.simulated import Played, Visit
from tests.evaluation.doctor_demos import CAMERAS, DEMOS, TASK, scenery


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / f"{TASK}_demo.hdf5"
    libero_hdf5.write(path, DEMOS, CAMERAS, TASK, {"seeds": [0, 1, 2, 3], "noise": 0.0, "condition": {}})
    return path


@pytest.fixture
def simulator(monkeypatch):
    """A room that looks as `scenery`, in which the drawer closes where the commands are those of the seed's episode."""

    def visit(world, task, cameras, image_size, takes):
        if task != TASK:
            raise RuntimeError("a worker process died without an error message")
        return Visit(scenery()[: len(cameras)], 4, tuple(play(take, len(cameras)) for take in takes))

    def play(take, cameras):
        demo = DEMOS[take.start.seed]
        off = np.linalg.norm(take.state[:, :3] - demo.state[: len(take.state), :3], axis=1)
        return Played(
            demo.images[0, :cameras], same(take.actions, demo.actions), demo.state[0], off, remedy(take, demo), ""
        )

    def same(actions, executed):
        return actions.shape == executed.shape and np.allclose(actions, executed)

    def remedy(take, demo):
        return "the sign of the gripper reversed" if same(take.actions * [1, 1, 1, -1], demo.actions) else ""

    monkeypatch.setattr(simulated, "visit", visit)
    for name in ("versions", "graphics"):
        monkeypatch.setattr(setup, name, lambda world, name=name: Outcome(name))
