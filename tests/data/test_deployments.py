"""Other robots of the same kind, against formulas in closed form."""

import numpy as np
import pytest

from metalora_jax.data import joints
from metalora_jax.data.deployments import Deployment, DeploymentRange, View, deployed
from metalora_jax.types import Demo
from tests.tiny_base import make_demos

GAIN, OFFSET = np.array([1.1, 0.9, 1.0]), np.array([5.0, 0.0, -2.0])
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


def robot(**changes) -> Deployment:
    same = Deployment((1.0,) * 4, (0.0,) * 4, True, 0, (View(),), 1.0)
    return same._replace(**changes)


def test_an_arm_told_what_it_reads_stays_where_it_is():
    physical = np.random.default_rng(1).normal(size=(5, 3))
    said = joints.observed(physical, GAIN, OFFSET)
    np.testing.assert_allclose(joints.executed(said, GAIN, OFFSET), physical)
    np.testing.assert_allclose(joints.executed(np.array([10.0, 10.0, 10.0]), GAIN, OFFSET), [16.0, 9.0, 8.0])


def test_commands_under_latency_happen_when_they_were_recorded():
    executed = np.arange(5.0)[:, None]
    said = joints.said_ahead(executed, 2)
    np.testing.assert_array_equal(said[:, 0], [2, 3, 4, 4, 4])
    np.testing.assert_array_equal(said[:-2][:3], executed[2:])  # at step t + 2, what was said at t
    np.testing.assert_array_equal(joints.said_ahead(executed, 0), executed)


@pytest.mark.parametrize("reading", [True, False])
def test_what_the_shifted_robot_is_told_makes_it_do_the_same(reading):
    [demo] = make_demos("reach", 1)
    shift = robot(gain=(1.1, 0.9, 1.0, 1.0), offset=(0.5, 0.0, -0.2, 0.0), reading=reading, latency=1)
    moved = shift.demo(demo)
    np.testing.assert_allclose(
        joints.executed(moved.actions, np.array(shift.gain), np.array(shift.offset))[:-1], demo.actions[1:], atol=1e-6
    )
    wanted = (demo.state - shift.offset) / shift.gain if reading else demo.state
    np.testing.assert_allclose(moved.state, wanted, atol=1e-6)
    assert moved.images is demo.images  # nothing is copied where nothing is seen otherwise
    assert moved.state.dtype == moved.actions.dtype == np.float32


def test_a_tilt_by_a_right_angle_is_a_turn_and_twice_a_flip():
    np.testing.assert_array_equal(View(tilt=np.pi / 2).apply(PICTURES), np.rot90(PICTURES, 1, (1, 2)))
    np.testing.assert_array_equal(View(tilt=np.pi).apply(PICTURES), PICTURES[:, ::-1, ::-1])
    np.testing.assert_array_equal(View().apply(PICTURES), PICTURES)


def test_a_shift_moves_whole_pixels_and_repeats_the_border():
    seen = View(right=2 / 8, down=1 / 8).apply(PICTURES)
    np.testing.assert_array_equal(seen[:, :-1, :-2], PICTURES[:, 1:, 2:])
    np.testing.assert_array_equal(seen[:, :-1, -1], PICTURES[:, 1:, -1])


def test_a_crop_sees_the_middle_larger():
    ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[None, None, :, None], (1, 16, 16, 3))
    seen = View(keep=0.5).apply(ramp)[0, 8, :, 0]
    np.testing.assert_allclose(seen, 75 + 5 * (np.arange(16) - 7.5), atol=1)


def test_light_is_a_factor_that_saturates():
    seen = View().apply(np.array([[[[10, 100, 250]]]], np.uint8), light=1.2)
    np.testing.assert_array_equal(seen.ravel(), [12, 120, 255])


def test_copies_are_tasks_of_their_own_on_one_robot_each():
    demos = {task: make_demos(task, 2) for task in ("reach", "push")}
    wanted = DeploymentRange.from_config(dict(copies=2, offset=0.3, tilt=0.2, joints=(0, 2)))
    made = deployed(demos, wanted)
    copies = [f"{task}@deployment_{k}" for task in ("reach", "push") for k in (1, 2)]
    assert list(made) == ["reach", "push", *copies]
    offsets = []
    for task in copies:
        plain = demos[task.partition("@")[0]]
        apart = np.concatenate([a.actions - b.actions for a, b in zip(plain, made[task], strict=True)])
        np.testing.assert_allclose(apart, np.broadcast_to(apart[0], apart.shape), atol=1e-6)  # of the whole task
        assert apart[0, 1] == apart[0, 3] == 0
        assert 0 < np.abs(apart[0, [0, 2]]).min() <= np.abs(apart).max() <= 0.3
        offsets.append(apart[0, 0])
        assert (made[task][0].images != plain[0].images).any()
    assert len(set(offsets)) == 4
    again = deployed(demos, wanted)
    np.testing.assert_array_equal(again[copies[3]][1].images, made[copies[3]][1].images)


def test_offsets_come_with_both_signs():
    wanted = DeploymentRange.from_config(dict(copies=1, offset=5.0, gain=0.1))
    drawn = [wanted.sample(np.random.default_rng(seed), 6, 1) for seed in range(50)]
    for field, middle in (("offset", 0.0), ("gain", 1.0)):
        values = np.array([getattr(one, field) for one in drawn]) - middle
        assert 0.3 < (values > 0).mean() < 0.7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(copies=2), "copies is 2, and they would all be alike: set one of gain, offset"),
        (dict(offset=5, reading=False), r"offset is 5, and there are no copies .*: set deployments\.copies"),
        (dict(copies=1, gain=1.0), r"gain is 1.0; it must lie in \[0, 1\)"),
        (dict(copies=1, latency=-1), "latency is -1; it must not be negative"),
    ],
)
def test_ranges_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DeploymentRange.from_config(fields)


def test_joints_and_readings_that_are_not_there_are_refused():
    demos = {"reach": make_demos("reach", 1)}
    with pytest.raises(ValueError, match="joints holds 4; actions have 4 numbers, from 0 to 3"):
        deployed(demos, DeploymentRange(1, offset=1.0, joints=(4,)))
    [demo] = demos["reach"]
    wide = Demo(demo.instruction, demo.images, np.zeros((len(demo.state), 8), np.float32), demo.actions)
    with pytest.raises(ValueError, match=r"the state has 8 numbers, an action 4: .* set deployments.reading to False"):
        deployed({"reach": [wide]}, DeploymentRange(1, offset=1.0))
    assert deployed({"reach": [wide]}, DeploymentRange(1, offset=1.0, reading=False))
