"""Maps of commands in closed form: what made the pairs is found, and what they do not show stays as it is."""

import jax
import numpy as np
import pytest

from metalora_jax.adaptation.agent import Agent, Executing
from metalora_jax.adaptation.identification import ActionMap, fit_calibration, fit_linear, fit_yaw, residual
from metalora_jax.envs.conditions import Condition, command_labels, execute
from tests.tiny_base import make_base, make_demos

STEPS, FRAMES = 10, 30
ARM = (0, 1, 2)


def base_commands(width=4, seed=0):
    """What a base would do: chunks (FRAMES, STEPS, width) within the limits, whatever is turned."""
    return np.random.default_rng(seed).uniform(-0.6, 0.6, (FRAMES, STEPS, width)).astype(np.float32)


def no_pad():
    return np.zeros((FRAMES, STEPS), bool)


def linear(predicted, demonstrated, is_pad=None, ridge=1e-9, moved=ARM, **fields):
    scale = {"mean": np.full(predicted.shape[-1], 0.1), "std": np.linspace(0.3, 0.6, predicted.shape[-1])}
    pads = no_pad() if is_pad is None else is_pad
    return fit_linear(predicted, demonstrated, pads, ridge=ridge, moved=moved, **scale | fields)


@pytest.mark.parametrize("yaw", [-3.0, -0.4, 0.0, 1.0, 3.14])
@pytest.mark.parametrize("width", [4, 7])
def test_a_yaw_is_recovered_and_undone(yaw, width):
    """A map fitted to a shifted robot's demonstrations makes that robot do what the base wants."""
    wanted, condition = base_commands(width), Condition(yaw=yaw)
    said = np.stack([command_labels(chunk, condition) for chunk in wanted])
    found = fit_yaw(wanted, said, no_pad())
    assert np.arctan2(found.matrix[1, 0], found.matrix[0, 0]) == pytest.approx(-yaw, abs=1e-6)
    new = base_commands(width, seed=1)
    np.testing.assert_allclose(execute(found(new), condition), new, atol=1e-6)


def driven(offset, moving=(0, 1, 2, 3)):
    """A base that goes from where it is told to be towards a place that it sees; joints beyond `moving` stay."""
    rng = np.random.default_rng(4)
    begin, goal = rng.uniform(-30, 30, (2, FRAMES, 1, 4))
    share = np.linspace(0.1, 0.9, STEPS)[:, None] * np.isin(np.arange(4), moving)
    here = begin + offset
    return here + share * (goal - here) + 0.5 * np.sin(here / 10)


def test_a_calibration_is_recovered_and_undone():
    """The robot reads and is told `offset` less than where its joints are; a step past the pad counts for nothing."""
    offset, std = np.array([9.0, -6.0, 0.0, 3.0]), np.array([20.0, 15.0, 10.0, 5.0])
    said = driven(offset) - offset
    is_pad = no_pad()
    is_pad[-5:, 6:] = True
    said[is_pad] = 1e3
    found = fit_calibration(driven, said, is_pad, ridge=1e-9, std=std, moved=range(4))
    np.testing.assert_allclose(found.reading, offset, atol=0.05)
    np.testing.assert_allclose(found(driven(found.reading))[~is_pad], said[~is_pad], atol=0.2)


def test_a_joint_that_shows_no_calibration_keeps_its_own():
    """One that stays where it is told to be is right under every offset; one that is not to be moved is left alone."""
    offset = np.array([9.0, -6.0, 0.0, 3.0])

    def ask(offset):
        still = driven(offset, moving=(0, 1, 3))
        still[..., 2] = offset[2]
        return still

    found = fit_calibration(ask, ask(offset) - offset, no_pad(), ridge=1e-4, std=np.full(4, 20.0), moved=(0, 1, 2))
    assert found.reading[3] == 0
    assert found.reading[2] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.reading[:2], offset[:2], atol=0.5)


@pytest.mark.parametrize(
    ("ridge", "pad", "moved", "message"),
    [(0.0, False, range(4), "ridge is 0"), (0.1, True, range(4), "no step"), (0.1, False, (), "moved is empty: name")],
)
def test_what_tells_no_calibration_is_refused(ridge, pad, moved, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(driven, driven(0.0), np.full((FRAMES, STEPS), pad), ridge=ridge, std=np.ones(4), moved=moved)


def test_an_agent_with_a_calibration_reads_and_commands_through_it():
    base, demo, offset = make_base(), make_demos("reach")[0], np.array([0.3, 0.0, -0.2, 0.0])
    acts, key = (demo.images[0], demo.state[0], demo.instruction), jax.random.key(0)
    found = ActionMap(np.eye(4), -offset, reading=offset)
    moved = Agent(base).act(acts[0], acts[1] + offset, acts[2], key) - offset
    np.testing.assert_allclose(Agent(base, action_map=found).act(*acts, key), moved, atol=1e-5)


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("moved", [ARM, (0, 1, 2, 3)])
def test_a_linear_map_with_a_lag_is_recovered(lag, moved):
    rng = np.random.default_rng(3)
    matrix, offset = np.eye(4), np.zeros(4)
    matrix[np.ix_(moved, moved)] = rng.normal(size=(len(moved), len(moved)))
    offset[list(moved)] = rng.normal(size=len(moved))
    truth = ActionMap(matrix, offset, lag)
    wanted = base_commands().astype(np.float64)
    is_pad = no_pad()
    is_pad[-5:, 6:] = True  # demonstrations end
    said = truth(wanted)
    said[is_pad] = 1e3
    found = linear(wanted, said, is_pad, moved=moved)
    assert found.lag == lag
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-4)
    np.testing.assert_allclose(found.offset, offset, atol=1e-4)
    inside = slice(0, STEPS - lag)
    np.testing.assert_allclose(found(wanted)[:-5, inside], said[:-5, inside], atol=1e-4)
    assert residual(found, wanted, said, is_pad, np.ones(4)) < 1e-6


def test_a_shift_of_all_kinds_is_one_linear_map():
    condition = Condition(yaw=2.0, gain=(0.7, 1.3, 0.9), latency=2)
    episode = np.random.default_rng(0).uniform(-0.5, 0.5, (80, 4)).astype(np.float32)
    said = command_labels(episode, condition)
    chunks = [np.stack([each[t : t + STEPS] for t in range(60)]) for each in (episode, said)]
    found = linear(*chunks, is_pad=np.zeros((60, STEPS), bool))
    assert found.lag == 2
    np.testing.assert_allclose(found(chunks[0])[:, :8], chunks[1][:, :8], atol=1e-4)


def test_what_is_not_shown_stays_as_the_base_commands_it():
    wanted = base_commands()
    wanted[..., 2] = 0.1  # never leaves its mean
    said = wanted * np.array([-1, -1, 1, 1], np.float32)
    found = linear(wanted, said, ridge=0.01)
    np.testing.assert_allclose(found.matrix[2], [0, 0, 1, 0], atol=0.02)
    np.testing.assert_allclose(np.diag(found.matrix), [-1, -1, 1, 1], atol=0.1)
    strong = linear(wanted, said, ridge=1e6)
    np.testing.assert_allclose(strong.matrix, np.eye(4), atol=1e-4)
    np.testing.assert_allclose(strong.offset, 0, atol=1e-4)


def test_a_gripper_is_left_alone():
    wanted = base_commands()
    said = wanted.copy()
    said[..., 3] = 1.0
    found = linear(wanted, said)
    np.testing.assert_array_equal(found(wanted)[..., 3], wanted[..., 3])


def test_demonstrations_that_determine_nothing_are_refused():
    wanted = base_commands()
    still = np.zeros_like(wanted)
    with pytest.raises(ValueError, match=r"no sideways motion .* adapt to others"):
        fit_yaw(wanted, still, no_pad())
    with pytest.raises(ValueError, match="no sideways motion"):
        fit_yaw(wanted, wanted, ~no_pad())
    wanted[..., 2] = 0.1
    with pytest.raises(ValueError, match="a direction of the map open: set a ridge above 0"):
        linear(wanted, wanted, ridge=0.0)
    with pytest.raises(ValueError, match="too short to tell a lag of 2 steps"):
        linear(wanted, wanted, ~no_pad())
    with pytest.raises(ValueError, match=r"lags \(0, 10\) must lie in \[0, 10\)"):
        linear(wanted, wanted, lags=(0, 10))
    with pytest.raises(ValueError, match="commands of 4 or 7 numbers; these have 6"):
        fit_yaw(np.ones((1, 2, 6)), np.ones((1, 2, 6)), np.zeros((1, 2), bool))
    with pytest.raises(ValueError, match="must be"):
        fit_yaw(wanted, wanted[:, :5], no_pad())
    with pytest.raises(ValueError, match="not finite"):
        fit_yaw(wanted * np.nan, wanted, no_pad())


def test_an_agent_commands_through_its_map():
    demo, base = make_demos("reach")[0], make_base()
    turn = ActionMap(np.diag([-1.0, -1.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.2, 0.0]), 1)
    seen = demo.images[0], demo.state[0], demo.instruction, jax.random.key(0)
    plain, agent = Agent(base).act(*seen), Agent(base, action_map=turn)
    np.testing.assert_allclose(agent.act(*seen), turn(plain), atol=1e-6)
    np.testing.assert_array_equal(agent.act(*seen)[-1], agent.act(*seen)[-2])  # a chunk's last command is repeated
    with pytest.raises(ValueError, match="leave out executing"):
        agent.act(*seen, Executing(plain[:1], np.ones(1)))
    agent.swap(None)
    np.testing.assert_array_equal(agent.act(*seen), plain)
    with pytest.raises(ValueError, match="the map is of 3 numbers, a command of this base has 4"):
        agent.swap(None, action_map=ActionMap(np.eye(3), np.zeros(3)))
