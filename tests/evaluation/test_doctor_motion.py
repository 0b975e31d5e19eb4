"""Commands held against the motion that they are to explain, without a simulator."""

import numpy as np
import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.envs.conditions import Condition, command_labels
from metalora_jax.evaluation.doctor import motion, recordings
from metalora_jax.evaluation.doctor.motion import HANDS, Fit
from tests.evaluation.doctor_demos import CAMERAS, DEMOS, TASK

HAND = HANDS["libero"]


def driven(leaning: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Commands (T, 7) and state (T, 8): a hand that does as it is told, then leans on a table for some steps."""
    rng = np.random.default_rng(0)
    free = np.repeat(rng.uniform(-1, 1, (10, 3)), 8, axis=0)
    commands = np.concatenate([free, np.tile([0.1, 0, -0.9], (leaning, 1))])
    moves = HAND.gain * commands * (np.arange(len(commands)) < len(free))[:, None]
    places = np.cumsum(np.pad(moves, ((1 + HAND.lag, 0), (0, 0))), axis=0)[: len(commands)]
    return np.pad(scale * commands, ((0, 0), (0, 4))), np.pad(places, ((0, 0), (0, 5)))


def test_commands_are_judged_by_what_they_do_under_their_condition(tmp_path):
    file, shift = tmp_path / f"{TASK}_demo.hdf5", Condition(mirror="x", dead_zone=(0.3,) * 3, gripper_flipped=True)
    told = [demo._replace(actions=command_labels(demo.actions, shift)) for demo in DEMOS]
    for known, wanted in ((shift, 0), (Condition(), 2)):
        libero_hdf5.write(file, told, CAMERAS, TASK, {"conditions": [known.to_json()] * len(told)})
        own = list(recordings.read(file, CAMERAS, {}, lambda name, told: TASK, file.name))
        checks = (motion.ranges(own), motion.gripper(own, "metaworld"), motion.frame(own, "metaworld"))
        assert sum(bool(check.findings) for check in checks) == wanted


@pytest.mark.parametrize("leaning", [0, 40, 110])
def test_leaning_on_something_is_no_trouble(leaning):
    assert Fit.of([driven(leaning)]).trouble(HAND) is None


@pytest.mark.parametrize("leaning", [0, 40])
def test_commands_of_another_scale_are_named_with_their_mend(leaning):
    what, mend = Fit.of([driven(leaning, scale=0.2)]).trouble(HAND)
    assert "moves 5 times as far" in what
    assert mend.startswith("divide displacements by the controller's largest step")
