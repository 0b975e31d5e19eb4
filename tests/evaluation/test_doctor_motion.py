"""Commands held against the motion that they are to explain, without a simulator."""

import numpy as np
import pytest

from metalora_jax.evaluation.doctor.motion import HANDS, Fit

HAND = HANDS["libero"]


def driven(leaning: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Commands (T, 7) and state (T, 8): a hand that does as it is told, then leans on a table for some steps."""
    rng = np.random.default_rng(0)
    free = np.repeat(rng.uniform(-1, 1, (10, 3)), 8, axis=0)
    commands = np.concatenate([free, np.tile([0.1, 0, -0.9], (leaning, 1))])
    moves = HAND.gain * commands * (np.arange(len(commands)) < len(free))[:, None]
    places = np.cumsum(np.pad(moves, ((1 + HAND.lag, 0), (0, 0))), axis=0)[: len(commands)]
    return np.pad(scale * commands, ((0, 0), (0, 4))), np.pad(places, ((0, 0), (0, 5)))


@pytest.mark.parametrize("leaning", [0, 40, 110])
def test_leaning_on_something_is_no_trouble(leaning):
    assert Fit.of([driven(leaning)]).trouble(HAND) is None


@pytest.mark.parametrize("leaning", [0, 40])
def test_commands_of_another_scale_are_named_with_their_mend(leaning):
    what, mend = Fit.of([driven(leaning, scale=0.2)]).trouble(HAND)
    assert "moves 5 times as far" in what
    assert mend.startswith("divide displacements by the controller's largest step")
