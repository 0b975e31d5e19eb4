"""Demonstrations of a made-up room, ways to damage their file, and what the doctor finds in it."""

from pathlib import Path

import h5py
import numpy as np

from metalora_jax.envs.metaworld import instruction
from metalora_jax.evaluation.doctor.findings import Outcome
from metalora_jax.evaluation.doctor.run import Request, examine
from metalora_jax.types import Demo

TASK, CAMERAS, STEPS, SIZE = "drawer-close", ("agentview", "topview"), 40, 32


def scenery() -> np.ndarray:
    """What two cameras see of a room without a robot (C, H, W, 3) uint8: patches of colour, nowhere symmetric."""
    patches = np.random.default_rng(0).integers(0, 220, (2, 4, 4, 3), dtype=np.uint8)
    return patches.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


def make_demo(seed: int) -> Demo:
    """A hand that goes where its commands say, closes half way, and is seen as a white spot."""
    rng = np.random.default_rng(seed)
    turns = rng.uniform(-1, 1, (8, 3)).repeat(STEPS // 8, axis=0)
    gripper = np.where(np.arange(STEPS) < STEPS // 2, -1.0, 1.0)
    opening = np.clip(1.0 - 0.1 * np.cumsum(gripper > 0), 0.3, 1.0)
    place = np.cumsum(np.concatenate([[[0.0, 0.6, 0.2]], 0.009 * turns[:-1]]), axis=0)
    images = scenery()[None].repeat(STEPS, axis=0)
    for t, (x, y) in enumerate(((place[:, :2] - [-0.4, 0.2]) * SIZE / 0.9).astype(int)):
        images[t, :, x : x + 3, y : y + 3] = 255
    state = np.concatenate([place, opening[:, None]], axis=1).astype(np.float32)
    actions = np.concatenate([turns, gripper[:, None]], axis=1).astype(np.float32)
    return Demo(instruction(TASK), images, state, actions)


DEMOS = [make_demo(seed) for seed in range(4)]


def examined(file: Path, **fields) -> dict[str, Outcome]:
    request = Request("metaworld", (str(file),), CAMERAS, **fields)
    return {result.outcome.check: result.outcome for result in examine(request)}


def wrong(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: "\n".join(map(str, o.findings)) for name, o in outcomes.items() if o.findings}


def each(change):
    """Changes every demonstration of an HDF5 file."""

    def damage(path):
        with h5py.File(path, "a") as opened:
            for group in opened["data"].values():
                change(group)

    return damage


def put(key, function):
    """Replaces an array by a function of it."""

    def change(group):
        value = function(group[key][()])
        del group[key]
        group[key] = value

    return change


def times(*factors):
    return lambda actions: actions * np.array(factors)
