"""What an agent and `adapt` refuse, since it would act silently as another policy."""

import jax
import numpy as np
import pytest

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Agent, Executing
from metalora_jax.adaptation.identification import ActionMap
from metalora_jax.adapters import placement
from metalora_jax.training.adapt import Options, adapt
from tests.tiny_base import EXPERT, make_base, make_demos

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def start():
    return adapter.fresh(make_base(), placement.from_json([EXPERT]))


def other_base():
    """The same weights under other statistics."""
    base = make_base()
    statistics = base.statistics._replace(action_mean=base.statistics.action_mean + 1)
    return bases.make(base.model, base.tokenizer, statistics)


def test_adapters_of_another_base_are_refused(start):
    with pytest.raises(ValueError, match=r"the adapters are on base \w+, this base is \w+"):
        Agent(other_base(), start.learner)
    with pytest.raises(ValueError, match="the adapters are on base"):
        adapt(other_base(), start, make_demos("reach")[:1], Options(optimizer="adam", learning_rate=0.01))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda theta: {}, "theta: missing"),
        (lambda theta: jax.tree.map(lambda x: np.asarray(x, np.float16), theta), "is float16"),
    ],
)
def test_a_theta_that_does_not_fit_leaves_the_agent_as_it_was(start, change, message):
    agent, demo = Agent(make_base(), start.learner), make_demos("reach")[0]
    before = agent.act(demo.images[0], demo.state[0], demo.instruction, KEY)
    with pytest.raises(ValueError, match=message):
        agent.swap(start.learner, change(start.learner.theta))
    with pytest.raises(ValueError, match="without the adapters that it belongs to"):
        agent.swap(None, start.learner.theta)
    np.testing.assert_array_equal(agent.act(demo.images[0], demo.state[0], demo.instruction, KEY), before)


def test_commands_that_are_not_finite_are_refused(start):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), start.learner.theta)
    agent, demo = Agent(make_base(), start.learner, broken), make_demos("reach")[0]
    with pytest.raises(ValueError, match="the commands are not finite"):
        agent.act(demo.images[0], demo.state[0], demo.instruction, KEY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, state: (np.concatenate([images, images]), state), "show 2 cameras, the policy has 1"),
        (lambda images, state: (images, state * np.nan), "the state is not finite"),
        (lambda images, state: (images, state + 1j), "the state is not finite"),
        (lambda images, state: (images[None][:0], state[None][:0]), "at least one frame"),
        (lambda images, state: (np.concatenate([images, images[..., :1]], -1), state), r"expected \(B, C, H, W, 3\)"),
    ],
)
def test_what_cannot_be_seen_is_refused(change, message):
    demo = make_demos("reach")[0]
    images, state = change(demo.images[0], demo.state[0])
    with pytest.raises(ValueError, match=message):
        Agent(make_base()).act(images, state, demo.instruction, KEY)


def test_a_chunk_goes_on_from_what_is_executed(start):
    base, demo = make_base(), make_demos("reach")[0]
    agent = Agent(base, start.learner)
    seen = demo.images[0], demo.state[0], demo.instruction, KEY
    free = agent.act(*seen)
    left = free[2:4] + base.statistics.action_std
    bound = agent.act(*seen, Executing(left, np.ones(2)))
    assert np.abs(bound[:2] - left).max() < 0.1 * np.abs(free[:2] - left).mean()
    np.testing.assert_allclose(agent.act(*seen, Executing(left, np.zeros(2))), free, atol=1e-5)
    for wrong in (Executing(left[:, :-1], np.ones(2)), Executing(left, np.ones(3))):
        with pytest.raises(ValueError, match=r"the commands that are executed have shape .*a row for each weight"):
            agent.act(*seen, wrong)


@pytest.mark.parametrize("fuse", [False, True])
def test_an_adapter_for_its_own_instruction_leaves_the_others_to_the_base(fuse):
    base, demo = make_base(), make_demos("reach")[0]
    start = adapter.fresh(base, placement.from_json([EXPERT | {"b_std": 0.5}]))
    turn = ActionMap(-np.eye(4), np.zeros(4))
    agents = [
        Agent(base, fuse=fuse),
        Agent(base, start.learner, action_map=turn, fuse=fuse),
        Agent(base, start.learner.replace(only_for=("pick it up",)), action_map=turn, fuse=fuse),
    ]

    def acts(instruction):
        return [agent.act(demo.images[0], demo.state[0], instruction, KEY) for agent in agents]

    plain, adapted, gated = acts("put it down")
    np.testing.assert_array_equal(gated, plain)
    assert np.abs(adapted - plain).max() > 1e-3
    _, adapted, gated = acts("Pick  it up")
    np.testing.assert_array_equal(gated, adapted)
    with pytest.raises(ValueError, match="the adapter is only for 'pick it up'; call act"):
        agents[-1].sample(base.preprocessor.observe(demo.images[:1], demo.state[:1], ""), KEY)
    agents[-1].swap(start.learner)
    np.testing.assert_array_equal(
        acts("put it down")[-1],
        Agent(base, start.learner, fuse=fuse).act(demo.images[0], demo.state[0], "put it down", KEY),
    )
