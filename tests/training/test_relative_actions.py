"""A base that predicts actions relative to the state: adapting, looking, acting and chunks that go on."""

import jax
import numpy as np
import pytest

from metalora_jax.adaptation import adapter, conventions, prediction
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Agent, Executing
from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.adapters import placement
from metalora_jax.data import normalize
from metalora_jax.training import pretrain
from metalora_jax.training.adapt import Options, adapt
from tests.tiny_base import EXPERT, make_base, make_demos

KEY, MASK = jax.random.key(0), np.array([True, True, True, False])


def swing(seed, differences=False, steps=24):
    """A smooth motion of joints that are told to be one step further, far from zero."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * (np.linspace(0, 1, steps)[:, None] * rng.uniform(0.8, 1.2, 4) + rng.uniform(size=4))
    place = (30 + 5 * np.sin(phase)).astype(np.float32)
    ahead = np.concatenate([place[1:], place[-1:]])
    images = rng.integers(0, 256, (steps, 1, 64, 64, 3), dtype=np.uint8)
    [demo] = make_demos("reach", 1)
    return demo._replace(images=images, state=place, actions=ahead - place if differences else ahead)


DEMOS = [swing(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def base():
    plain = make_base()
    known = normalize.compute(DEMOS, relative=MASK, chunk=plain.sizes.chunk)
    return bases.make(plain.model, plain.tokenizer, known)


@pytest.fixture(scope="module")
def start(base):
    return adapter.fresh(base, placement.from_json([EXPERT]))


def test_adapting_to_it_lowers_the_loss_and_the_error_on_what_was_not_learned(base, start):
    adapted = adapt(base, start, DEMOS[:2], Options("adam", 0.01, steps=30, validate_every=30), held_out=DEMOS[2:])
    before, after = adapted.support_loss
    assert after < 0.9 * before
    first, last = adapted.validation
    assert last.error < first.error < 3  # standard deviations of the commands


def test_predictions_and_what_was_recorded_are_absolute(base, start):
    seen = prediction.recorded({"reach": DEMOS[:1]}, base.preprocessor, stride=2)
    np.testing.assert_allclose(seen.states, DEMOS[0].state[1::2], atol=1e-5)
    np.testing.assert_allclose(seen.actions[:, 0], DEMOS[0].actions[1::2], atol=1e-5)
    [frozen] = frozen_outputs(base, [seen.frames], start.learner.stage)
    here, there = (
        prediction.predict(base, start.learner, frozen, seen.target, states, samples=0, loss=False).quiet
        for states in (seen.states, seen.states + 7)
    )
    np.testing.assert_allclose(there - here, np.broadcast_to(7 * MASK, here.shape), atol=1e-4)
    assert np.abs(here - seen.actions)[..., MASK].max() < 25  # near the state at 30, not near 0


def test_what_is_executed_is_held_against_the_new_state(base, start):
    """A chunk was planned from one state, and the next one begins at another: absolute commands go on all the same."""
    agent, demo = Agent(base, start.learner), DEMOS[0]
    seen = demo.images[8], demo.state[8], demo.instruction, KEY
    left = agent.act(demo.images[0], demo.state[0], demo.instruction, KEY)[:2] + 3 * MASK
    free, bound = agent.act(*seen), agent.act(*seen, Executing(left, np.ones(2)))
    assert np.abs(bound[:2] - left).max() < 0.1 * np.abs(free[:2] - left)[..., MASK].mean()


def test_demonstrations_of_differences_are_refused(base):
    there = [swing(seed, differences=True, steps=60) for seed in range(3)]
    with pytest.raises(ValueError, match=r"reach: the recorded actions are differences already.*take demonstrations"):
        conventions.quick(base, {"reach": there})
    assert conventions.quick(base, {"reach": [swing(seed, steps=60) for seed in range(3)]}) == []
    legacy = bases.make(base.model, base.tokenizer, base.statistics._replace(of_differences=True))
    assert conventions.quick(legacy, {"reach": there}) == []


class Recipe:
    relative = ("all_but_gripper",)


def test_a_recipe_names_what_is_relative(base):
    made = pretrain.statistics(Recipe, DEMOS, {}, base.sizes.chunk, ())
    assert made.digest() == base.statistics.digest()
    with pytest.raises(ValueError, match=r"config\.relative: the recorded actions are differences already"):
        pretrain.statistics(Recipe, [swing(seed, True, 60) for seed in range(3)], {}, 5, ())


def test_convert_says_it_and_a_base_keeps_it(base, tmp_path):
    bases.save(tmp_path / "base", base)
    again, _ = bases.convert(tmp_path / "base", DEMOS)  # statistics of other data, the same convention
    np.testing.assert_array_equal(again.statistics.relative, MASK)
    assert again.statistics.digest() == base.statistics.digest()
    told, _ = bases.convert(tmp_path / "base", relative=["3"], of_differences=True)
    assert told.statistics.of_differences
    assert told.statistics.relative.tolist() == [False, False, False, True]
    with pytest.raises(ValueError, match="said to be absolute, and relative"):
        bases.convert(tmp_path / "base", DEMOS, absolute=True, relative=["0"])
    with pytest.raises(ValueError, match="not which: name them"):
        bases.convert(tmp_path / "base", DEMOS, of_differences=True)
