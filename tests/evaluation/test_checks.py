"""A base is held against the world that it is to act in, and episodes that all end by an error measure nothing."""

import pytest

from metalora_jax.envs.control import Control
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import checks
from tests.evaluation.fake_world import make_world
from tests.tiny_base import make_base

WORLD = make_world({"a": "push a"})
CONTROL = Control(("agentview",), 1, 100)


def test_a_base_of_this_world_passes():
    rollout.check_base(make_base(), CONTROL, WORLD)


@pytest.mark.parametrize(
    ("where", "control", "complaint"),
    [
        (
            WORLD._replace(state_dim=8),
            CONTROL,
            "the world metaworld: state has 8 dimensions, the base's 4; evaluate it in",
        ),
        (WORLD._replace(action_dim=7), CONTROL, "the world metaworld: actions have 7 dimensions, the base's 4"),
        (WORLD, CONTROL._replace(cameras=("agentview", "eye_in_hand")), "there are 2 cameras, the base takes 1"),
        (WORLD, CONTROL._replace(execute=1000), "control.execute = 1000 must lie in"),
    ],
)
def test_a_base_of_another_world_is_refused(where, control, complaint):
    with pytest.raises(ValueError, match=complaint):
        rollout.check_base(make_base(), control, where)


def test_episodes_that_all_end_by_an_error(monkeypatch):
    said = []
    monkeypatch.setattr(checks.logging, "warning", lambda text, *args: said.append(text % args))
    checks.check_outcomes([], "log")
    checks.check_outcomes([None, None], "log")
    assert said == []
    checks.check_outcomes([None, "X: no", "X: no"], "log")
    assert said == ["2 of 3 episodes ended by an error and count as failures; 2 of them by: X: no"]
    with pytest.raises(RuntimeError, match=r"every one of 2 episodes ended by an error, 2 of them by: X: no\. Nothing"):
        checks.check_outcomes(["X: no", "X: no"], "log")
