"""Closed loop: a worker's episode is complete, and its commands with its seed are enough to see it again."""

import os

import jax
import numpy as np
import pytest

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.identification import ActionMap
from metalora_jax.adaptation.learner import learner
from metalora_jax.adapters import LoRA, Rule
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.metaworld import MetaWorld
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.rollout import Job, Rollout
from tests.tiny_base import make_base

pytestmark = pytest.mark.metaworld


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


RULES = (Rule("action_.*", LoRA(rank=2, alpha=2.0, b_std=0.5)),)
CONDITION = Condition(yaw=1.0, latency=1)
CONTROL = Control(cameras=("agentview",), execute=2, max_steps=5)
TURN = ActionMap(np.diag([-1.0, -1.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.1, 0.0]))
SHIFTED, PLAIN = Rollout(("shifted", 3), CONDITION, 3), Rollout("plain", Condition(), 3)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("world") / "base"
    bases.save(directory, make_base())
    theta = jax.tree.map(np.asarray, learner(make_base(), RULES, jax.random.key(0)).theta)
    jobs = [
        Job("drawer-close", (), None, (SHIFTED, PLAIN)),
        Job("drawer-close", RULES, theta, (PLAIN._replace(key="adapted"),)),
        Job("drawer-close", (), None, (PLAIN._replace(key="mapped"),), action_map=TURN),
        Job("drawer-close", RULES, {"theta": Deadly()}, (PLAIN._replace(key="killed"),)),
        Job("drawer-close", RULES, jax.tree.map(np.zeros_like, theta), (PLAIN._replace(key="adapted by nothing"),)),
        Job("drawer-close", RULES, jax.tree.map(lambda x: x * np.nan, theta), (PLAIN._replace(key="broken"),)),
    ]
    return {outcome.key: outcome for outcome in rollout.run(jobs, directory, CONTROL, workers=1)}


def test_every_episode_comes_back(outcomes):
    assert set(outcomes) == {SHIFTED.key, "plain", "adapted", "adapted by nothing", "mapped", "broken", "killed"}
    for key in (SHIFTED.key, "plain", "adapted"):
        outcome = outcomes[key]
        assert outcome.error is None
        assert not outcome.success  # five steps of a random policy
        assert outcome.length == len(outcome.commands) == CONTROL.max_steps
        assert outcome.commands.shape == (5, 4)
        assert outcome.commands.dtype == np.float32
        assert np.isfinite(outcome.episode_return)


def test_adapters_reach_the_robot(outcomes):
    plain = outcomes["plain"].commands
    np.testing.assert_allclose(outcomes["adapted by nothing"].commands, plain, atol=1e-6)
    assert np.abs(outcomes["adapted"].commands - plain).max() > 1e-3


def test_a_map_stands_between_the_policy_and_the_robot(outcomes):
    plain, mapped = outcomes["plain"].commands, outcomes["mapped"].commands
    np.testing.assert_allclose(mapped[: CONTROL.execute], TURN(plain)[: CONTROL.execute], atol=1e-6)
    assert np.abs(outcomes["adapted by nothing"].commands - plain).max() < 1e-6  # the next policy has none


def test_a_condition_is_not_seen_before_it_acts(outcomes):
    one, other = outcomes[SHIFTED.key].commands, outcomes["plain"].commands
    np.testing.assert_array_equal(one[: CONTROL.execute], other[: CONTROL.execute])
    assert not np.array_equal(one[CONTROL.execute :], other[CONTROL.execute :])


def test_an_episode_that_breaks_is_a_failure_with_its_reason(outcomes):
    broken = outcomes["broken"]
    assert not broken.success
    assert broken.length == 0
    assert broken.commands.shape == (0, 4)
    assert "the commands are not finite" in broken.error


def test_an_episode_whose_process_dies_is_a_failure_and_the_others_go_on(outcomes):
    killed = outcomes["killed"]
    assert not killed.success
    assert "died without an error message" in killed.error


def test_policies_run_where_the_control_says(tmp_path):
    bases.save(tmp_path / "base", make_base())
    jobs = [Job("drawer-close", (), None, (PLAIN,))]
    with pytest.raises(RuntimeError, match="abacus"):
        list(rollout.run(jobs, tmp_path / "base", CONTROL._replace(platform="abacus"), workers=1))
    assert [outcome.error for outcome in rollout.run(jobs, tmp_path / "base", CONTROL._replace(platform="cpu"), 1)] == [
        None
    ]


def test_step_caps_by_suite():
    control = CONTROL._replace(max_steps={"metaworld": 7})
    assert control.cap("reach") == 7
    with pytest.raises(ValueError, match=r"control\.max_steps lacks 'metaworld'"):
        list(rollout.run([Job("reach", (), None, ())], None, CONTROL._replace(max_steps={"x": 7}), 1))


def test_commands_replay_the_episode(outcomes):
    outcome = outcomes[SHIFTED.key]
    with MetaWorld("drawer-close", image_size=16) as env:
        env.reset(SHIFTED.start, SHIFTED.condition)
        steps = [env.step(command) for command in outcome.commands]
    assert any(step.success for step in steps) == outcome.success
    assert sum(step.reward for step in steps) == pytest.approx(outcome.episode_return, abs=1e-9)


def test_replay_shows_the_episode(outcomes):
    commands = outcomes[SHIFTED.key].commands
    frames = rollout.replay(CONTROL, "drawer-close", SHIFTED, commands, "topview", 48, every=2)
    seen = []
    with MetaWorld("drawer-close", ("topview",), image_size=48) as env:
        env.reset(SHIFTED.start, SHIFTED.condition)
        for command in commands:
            seen.append(env.observe().images[0])
            env.step(command)
        seen.append(env.observe().images[0])
    np.testing.assert_array_equal(frames, [seen[0], seen[2], seen[4], seen[5]])
    assert not np.array_equal(frames[0], frames[-1])


def test_an_ensemble_averages_what_overlapping_chunks_say(tmp_path, monkeypatch):
    bases.save(tmp_path / "base", make_base())
    monkeypatch.setattr(rollout, "one_core_each", lambda workers: 0)  # this process is the worker
    monkeypatch.setattr(rollout, "_worker", None)
    with pytest.raises(ValueError, match=r"control\.execute = 6 must lie in \[1, 5\]"):
        rollout._start(tmp_path / "base", CONTROL._replace(execute=6), 1)
    rollout._start(tmp_path / "base", CONTROL, 1)
    worker = rollout._worker

    def commands(env, **fields):
        outcome = rollout.episode(env, worker.agent, CONTROL._replace(**fields), PLAIN)
        assert outcome.error is None
        return outcome.commands

    with MetaWorld("drawer-close", CONTROL.cameras) as env:
        first_chunk = commands(env, execute=5)
        newest, mean = commands(env), commands(env, ensemble=0.0)
        oldest, youngest = commands(env, ensemble=100.0), commands(env, ensemble=-100.0)
    assert np.abs(newest[2:4] - first_chunk[2:4]).max() > 1e-3
    np.testing.assert_array_equal(mean[:2], newest[:2])
    np.testing.assert_allclose(mean[2:4], (first_chunk[2:4] + newest[2:4]) / 2, atol=1e-6)
    np.testing.assert_allclose(oldest, first_chunk, atol=1e-6)
    np.testing.assert_allclose(youngest, newest, atol=1e-6)
