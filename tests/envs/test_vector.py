"""Simulators in worker processes: as one would be alone, and untouched by what befalls another."""

import os
import time

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed; enable with: pip install -e '.[metaworld]'")

from gymnasium.utils.env_checker import check_env

from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.vector import SimulatorEnv, VectorSimulators
from metalora_jax.envs.world import Frame, Step, World

GOAL = 3.0


class Walk:
    """Adds up commands from its start, and reaches its goal at 3. A task says what goes wrong, from which start on."""

    def __init__(self, task, cameras, image_size, speed=1.0):
        if task == "unbuildable":
            raise ValueError("no such room")
        self.task, self.instruction, self._speed = task, task, speed
        self._shape = (len(cameras), image_size, image_size, 3)
        self._at = 0.0

    def close(self):
        pass

    def reset(self, start, condition=Condition()):  # noqa: B008 (frozen)
        self._at = (start % 3) * condition.gain[0]
        self._bad = start >= 100
        if self._bad and self.task == "raises at reset":
            raise ValueError("objects find no room")

    def observe(self):
        return Frame(np.full(self._shape, np.uint8(self._at), np.uint8), np.array([self._at], np.float32))

    def step(self, command):
        if self._bad:
            if self.task == "dies":
                os._exit(1)
            if self.task == "hangs":
                time.sleep(60)
            if self.task == "raises":
                raise RuntimeError("the arm is gone")
        self._at += float(command[0]) * self._speed
        return Step(float(self._at >= GOAL), self._at >= GOAL)


def no_instruction(task):
    return task


WORLD = World(("front", "top"), 1, 2, tuple, no_instruction, Walk, max, len, no_instruction)


def vector(*tasks, **settings):
    return VectorSimulators(WORLD, tasks, **({"image_size": 4, "max_steps": 5, "execute": 2} | settings))


def ahead(count, execute=2):
    return np.tile(np.array([1.0, 0.0], np.float32), (count, execute, 1))


@pytest.fixture(scope="module")
def mixed():
    envs = vector("fine", "dies", "hangs", "raises", timeout=2.0)
    yield envs
    envs.close()


@pytest.mark.filterwarnings("ignore:.*observation space .*infinity")  # a state has no bounds
def test_one_simulator_is_a_gymnasium_environment():
    check_env(SimulatorEnv(WORLD, "fine", image_size=4, max_steps=5), skip_render_check=True)


def test_a_step_is_a_chunk_that_ends_early_at_success_or_at_the_cap():
    env = SimulatorEnv(WORLD, "fine", image_size=4, max_steps=5, execute=2)
    observation, info = env.reset(options={"start": 1})
    assert observation["images"].shape == (2, 4, 4, 3)
    assert observation["state"].tolist() == [1.0]
    assert info == {"start": 1}
    assert env.step(ahead(1)[0])[1:] == (1.0, True, False, {"steps": 2})
    env.reset(options={"start": 0})
    chunks = [env.step(0 * ahead(1)[0])[2:] for _ in range(3)]
    assert chunks == [(False, False, {"steps": 2}), (False, False, {"steps": 4}), (False, True, {"steps": 5})]


def test_starts_settings_and_conditions_reach_the_simulator():
    env = SimulatorEnv(WORLD, "fine", cameras=("top",), image_size=4, max_steps=5, speed=0.5)
    observation, _ = env.reset(options={"start": 2, "condition": Condition(gain=(2.0, 1.0, 1.0))})
    assert (observation["images"].shape, observation["state"].tolist()) == ((1, 4, 4, 3), [4.0])
    env.reset(options={"start": 0})
    assert env.step(ahead(1, 1)[0])[0]["state"].tolist() == [0.5]
    assert env.reset(seed=3)[1] == env.reset(seed=3)[1]
    with pytest.raises(ValueError, match=r"unknown reset options \['begin'\]; known: start, condition"):
        env.reset(options={"begin": 1})


def test_what_befalls_one_worker_is_its_own_affair(mixed):
    mixed.reset(options={"starts": [0, 100, 100, 100]})
    _, _, _, truncated, info = mixed.step(ahead(4))
    assert truncated.tolist() == [False, True, True, True]
    assert info["error"][0] is None
    assert [error.split(":")[0] for error in info["error"][1:]] == [
        "its worker process died",
        "its worker process did not answer within 2 s",
        "RuntimeError",
    ]
    _, rewards, terminated, truncated, info = mixed.step(ahead(4))
    assert terminated.tolist() == [True, False, False, False]
    assert rewards.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert truncated.tolist() == [False, True, True, True]
    assert info["steps"][0] == 3
    # All are there again for the next episode.
    _, info = mixed.reset(options={"starts": [1, 1, 1, 1]})
    assert info["error"].tolist() == [None] * 4
    _, _, terminated, _, _ = mixed.step(ahead(4))
    assert terminated.all()


def test_those_that_are_not_reset_stay_as_they_are(mixed):
    mixed.reset(options={"starts": [1, 0, 0, 0]})
    mixed.step(ahead(4))
    observation, _ = mixed.reset(options={"starts": [2] * 4, "reset_mask": np.array([True, True, False, False])})
    assert observation["state"][:, 0].tolist() == [2.0, 2.0, 2.0, 2.0]
    assert mixed.step(0 * ahead(4))[0]["state"][:, 0].tolist() == [2.0, 2.0, 2.0, 2.0]
    assert not mixed.terminated.any()


def test_an_episode_that_cannot_begin_is_a_failed_one():
    envs = vector("fine", "raises at reset")
    _, info = envs.reset(options={"starts": [100, 100]})
    assert info["error"].tolist() == [None, "ValueError: objects find no room"]
    _, _, terminated, truncated, _ = envs.step(ahead(2))
    assert (terminated.tolist(), truncated.tolist()) == ([True, False], [False, True])
    envs.close()


def test_a_simulator_that_cannot_be_built_is_an_error():
    with pytest.raises(RuntimeError, match="unbuildable: cannot build its simulator: ValueError: no such room"):
        vector("fine", "unbuildable")


def test_misuse(mixed):
    with pytest.raises(ValueError, match=r"actions have shape \(4, 2\), expected \(4, 2, 2\)"):
        mixed.step(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="and no seed"):
        mixed.reset(seed=1)
    with pytest.raises(ValueError, match=r"each of 4, not \['starts'\] of 2, 4, 4"):
        mixed.reset(options={"starts": [1, 2]})


@pytest.mark.metaworld
def test_a_worker_s_episode_is_the_one_of_a_simulator_alone():
    from metalora_jax.envs.metaworld import WORLD as METAWORLD

    commands = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4)).astype(np.float32)
    how = {"image_size": 16, "max_steps": 100, "execute": 3}
    alone = SimulatorEnv(METAWORLD, "drawer-close", **how)
    alone.reset(options={"start": 11})
    envs = VectorSimulators(METAWORLD, ("drawer-close",), **how)
    envs.reset(options={"starts": [11]})
    for chunk in commands:
        there, here = envs.step(chunk[None]), alone.step(chunk)
        for name in ("images", "state"):
            np.testing.assert_array_equal(there[0][name][0], here[0][name])
        assert there[1][0] == here[1]
    alone.close()
    envs.close()
