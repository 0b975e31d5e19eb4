"""What a policy is shown in place of the cameras' pictures, to know what they are worth."""

from types import SimpleNamespace

import numpy as np
import pytest

from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.world import Frame, Step
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol.plan import base_job
from metalora_jax.evaluation.rollout import PICTURES, Rollout, pictures
from tests.evaluation.fake_world import make_world

WHERE = make_world({"reach": "reach"})


class Counting:
    """A simulator whose pictures count its steps."""

    task, instruction, now = "reach", "reach", 0

    def reset(self, start, condition):
        self.now = 10

    def observe(self):
        return Frame(np.full((1, 4, 4, 3), self.now, np.uint8), np.zeros(4, np.float32))

    def step(self, command):
        self.now += 1
        return Step(0.0, False)


def shown(kind, monkeypatch):
    """The pictures of an episode of three looks."""
    monkeypatch.setattr(rollout, "world", lambda name: WHERE)
    seen = []
    agent = SimpleNamespace(act=lambda images, *_: seen.append(images) or np.zeros((4, 4)))
    outcome = rollout.episode(
        Counting(), agent, Control(("agentview",), 2, 6), Rollout("k", Condition(), 3, None, kind)
    )
    assert outcome.error is None
    return np.stack(seen)


def test_pictures_are_replaced_as_named(monkeypatch):
    assert shown("true", monkeypatch)[:, 0, 0, 0, 0].tolist() == [10, 12, 14]
    assert shown("first", monkeypatch)[:, 0, 0, 0, 0].tolist() == [10, 10, 10]
    assert set(shown("grey", monkeypatch).ravel()) == {128}
    noise, again = shown("noise", monkeypatch), shown("noise", monkeypatch)
    np.testing.assert_array_equal(noise, again)
    assert noise.std() > 50
    assert not np.array_equal(noise[0], noise[1])


def test_a_base_is_judged_on_the_pictures_asked_for():
    assert {kind: base_job("reach", 0, WHERE, "", kind).rollouts[0].pictures for kind in PICTURES} == {
        kind: kind for kind in PICTURES
    }
    with pytest.raises(ValueError, match="pictures = 'blurred' is unknown; choose from true, noise, grey, first"):
        pictures("blurred", *np.zeros((2, 1, 4, 4, 3), np.uint8), [0])
