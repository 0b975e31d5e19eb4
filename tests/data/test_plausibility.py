"""Quick checks of demonstrations, both ways: what is wrong is named, and sound ones stay unremarked."""

import re

import numpy as np
import pytest

from metalora_jax.data import plausibility
from metalora_jax.data.motions import unlike
from metalora_jax.data.normalize import Statistics
from metalora_jax.types import Demo

DEGREES = Statistics(
    *(np.float32(x) for x in ([3, -5, 0, 2], [25, 30, 20, 35], [0, 0.02, -0.02, 0.2], [0.4, 0.3, 0.35, 0.9798]))
)
STEPS = 40


def demo(phase=0.0, state=1.0, actions=1.0, steps=STEPS, shade=100):
    """A smooth way through the statistics' own range; the last action is a switch, -1 and then 1."""
    t = np.linspace(0, 4, steps)[:, None] + np.arange(4) + phase
    moved = DEGREES.state_mean + 1.3 * DEGREES.state_std * np.sin(t)
    commands = DEGREES.action_mean + 1.3 * DEGREES.action_std * np.cos(t)
    commands[:, 3] = np.where(np.arange(steps) < 0.4 * steps, -1, 1)
    images = np.full((steps, 1, 8, 8, 3), shade, np.uint8)
    return Demo("open it", images, np.float32(moved * state), np.float32(commands * actions))


def said(*demos, statistics=DEGREES):
    return "; ".join(plausibility.doubts(demos, statistics))


@pytest.mark.parametrize("statistics", [DEGREES, None])
def test_sound_demonstrations_stay_unremarked(statistics):
    assert said(demo(), demo(0.1), demo(0.2), statistics=statistics) == ""
    assert said(demo(), statistics=statistics) == ""


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (
            np.pi / 180,
            "state varies 0.01[0-9]* times as much as the base's data, at most; radians for degrees would be 0",
        ),
        (1e-3, "state varies 0.000[0-9]* times as much .* metres for millimetres would be 0.001"),
        (180 / np.pi, "state dimension 0 varies [3-7][0-9] times as much .* degrees for radians would be 57.3"),
    ],
)
def test_state_in_other_units_both_ways(factor, words):
    assert re.search(words, said(demo(state=factor)))
    assert "action" not in said(demo(state=factor))


def test_actions_in_other_units_both_ways():
    small = np.float32([0.02, 0.02, 0.02, 1])  # the switch stays
    assert "actions vary 0.01" in said(demo(actions=small))
    assert "action dimension 1 varies" in said(demo(actions=np.float32([1, 50, 1, 1])))


def test_a_place_far_from_the_bases():
    moved = demo()
    moved = moved._replace(state=moved.state + np.float32([0, 300, 0, 0]))
    assert said(moved) == "state dimension 1 lies +10 standard deviations from the base's data; other units?"


def still(steps=STEPS, noise=0.0):
    rng = np.random.default_rng(0)
    state = np.float32(DEGREES.state_mean + noise * DEGREES.state_std * rng.normal(size=(steps, 4)))
    return demo(steps=steps)._replace(state=state, actions=np.zeros((steps, 4), np.float32))


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_idle_demonstrations_are_named_and_refused(noise):
    assert "nothing moves in demonstration 1 of 3: state and actions stay" in said(demo(), still(noise=noise), demo())
    with pytest.raises(ValueError, match=r"nothing moves in demonstration 1 of 2 \('open it'\): .*; leave it out"):
        plausibility.refuse_idle([demo(), still(noise=noise)], DEGREES, "leave it out")
    plausibility.refuse_idle([demo(), demo(state=np.pi / 180)], DEGREES, "leave it out")  # small, but it moves


def padded(before, after):
    """A demonstration that begins late and ends early."""
    one = demo()
    rows = np.clip(np.arange(-before, STEPS + after), 0, STEPS - 1)
    return one._replace(images=one.images[rows], state=one.state[rows], actions=one.actions[rows])


def test_idle_ends_are_named_with_their_share_and_can_be_trimmed():
    late = padded(20, 15)
    assert "the ends are idle in demonstration 1 (4" in said(demo(), late)
    cut = plausibility.trimmed(late, DEGREES)
    assert STEPS - 4 <= len(cut.actions) <= STEPS + 4
    assert len(cut.images) == len(cut.state) == len(cut.actions)
    assert said(demo(), cut) == ""
    frames = len(late.actions) - len(cut.actions)
    told = plausibility.left_out([demo(), late], [demo(), cut])
    assert told.startswith(
        f"{frames} of {STEPS + len(late.actions)} frames are left out: of demonstration 1 ({frames} of"
    )
    assert plausibility.left_out([demo()], [demo()]).startswith(f"none of {STEPS} frames is left out")
    assert "the ends" not in said(demo(), padded(2, 3))
    assert "the robot rests in 7" in said(padded(60, 60))


def switch(values):
    one = demo()
    actions = one.actions.copy()
    actions[:, 3] = values(actions[:, 3])
    return one._replace(actions=actions)


def test_a_switch_beyond_its_range():
    odd = switch(lambda a: np.where(np.arange(len(a)) % 10 < 3, 2.0, a))
    assert said(odd) == "action dimension 3 is 2 in 30% of the frames, -1 or 1 in the others"
    assert said(odd, statistics=None) == said(odd)


def test_switches_in_another_convention():
    from_zero = switch(lambda a: (a + 1) / 2)
    assert "action dimension 3 is 0 or 1, the base's -1 or 1: map it, a -> 2 a - 1" in said(from_zero)
    assert "is 0 or 1 in demonstration 1, but -1 or 1 in 0: bring them to one" in said(
        demo(), from_zero, statistics=None
    )
    zero_one = DEGREES._replace(action_mean=np.float32([0, 0, 0, 0.6]), action_std=np.float32([0.4, 0.3, 0.35, 0.49]))
    assert "action dimension 3 is -1 or 1, the base's 0 or 1" in said(demo(), statistics=zero_one)
    assert "dimension 3" not in said(from_zero, statistics=zero_one)


def switched(change):
    made = demo()
    made.actions[:, 3] = change(made.actions[:, 3])
    return made


def test_switches_of_other_ranges():
    def two(switch):
        return np.where(np.arange(STEPS) < 12, 2.0, (switch + 1) / 2)

    assert said(switched(two), statistics=None) == "action dimension 3 is 2 in 30% of the frames, 0 or 1 in the others"
    ticks = switched(lambda switch: 127.5 * (switch + 1))
    assert "is 0 or 255 in demonstration 1, but -1 or 1 in 0: bring" in said(demo(), ticks, statistics=None)
    found = said(ticks)
    assert "action dimension 3 is 255 in 60% of the frames, the base's stay in [-1, 1]" in found
    assert "idle" not in found  # one dimension in other units does not make the others look still
    assert "rests" not in found
    assert "in the others" not in said(switched(lambda switch: 100 * switch))  # there are no others


def followed(mirrored=False, home=-30.0):
    """Joints in degrees that follow their commands; the first one's sign may be reversed, in state and command."""
    t = np.linspace(0, 3, STEPS)[:, None]
    commands = np.array([home, 60.0, 0.0, 10.0]) + np.array([25.0, 20.0, 30.0, 5.0]) * (1 - np.cos(t))
    commands[:, 3] = np.clip(0.5 - 0.5 * np.cos(2 * t[:, 0]), 0.01, 1)  # a gripper, by degrees
    commands[:, 0] *= -1 if mirrored else 1
    state = np.concatenate([commands[:1], commands[:-1]])
    return demo()._replace(state=np.float32(state), actions=np.float32(commands))


JOINTS = Statistics(
    *(np.float32(x) for x in ([0, 80, 30, 0.5], [25, 20, 30, 0.4], [0, 80, 30, 0.5], [25, 20, 30, 0.4]))
)


def changed(one, state=(), actions=(), factor=np.pi / 180):
    for values, dimensions in ((one.state, state), (one.actions, actions)):
        values[:, list(dimensions)] *= factor
    return one


def test_one_joint_in_radians_among_degrees():
    assert said(followed(), followed(), statistics=JOINTS) == ""
    odd = changed(followed(), [1])
    one = "state dimension 1 ranges 0.017 times as far as its command in demonstration 1 of 2; radians for degrees"
    assert said(followed(), odd, statistics=None).startswith(one)
    alone = said(odd, statistics=JOINTS)
    assert "dimension 1 ranges 0.017 times as far as its command; radians" in alone
    both = said(changed(followed(), [1], [1]), statistics=JOINTS)
    assert re.search("state dimension 1 varies 0.01[0-9]* times .*, the others .*; radians for degrees would be", both)
    assert "action dimension 1 varies" in both


def test_a_state_of_another_kind_than_its_commands_is_in_no_other_unit():
    assert said(changed(followed(), actions=range(3), factor=1 / 60), statistics=None) == ""


def test_a_joint_that_is_mirrored_in_half_of_the_demonstrations():
    flipped = changed(followed(), [0], factor=-1)
    assert (
        "state dimension 0 moves along with action dimension 0 in demonstration 0, 2, and against it in 1, 3"
        in said(followed(), flipped, followed(), flipped)
    )
    both = followed(mirrored=True)
    assert "state dimension 0 starts near 30 in demonstration 1, 3, and near -30 in 0, 2: mirrored" in said(
        followed(), both, followed(), both
    )
    spread = [followed(home=home) for home in (-30, 5, 30, 12)]  # a start that varies is none
    assert "mirrored" not in said(*spread)


def test_ways_to_the_left_and_to_the_right_are_not_mirrored():
    """Forward motion fits the sideward command better than sideward motion does, with the sign of the side."""
    t = np.linspace(0, 4, STEPS)

    def reach(side):
        forward, sway = 1 - np.cos(t), 0.9 * np.sin(6 * t)
        state = np.stack([side * (forward + sway), forward, 0.1 * t, t], axis=1)
        actions = np.stack([side * forward, forward, 0.1 * t, t], axis=1)
        return demo()._replace(state=np.float32(state), actions=np.float32(actions))

    assert "mirrored" not in said(reach(1), reach(-1), reach(1), reach(-1), statistics=None)


def test_a_gripper_that_moves_by_degrees_and_is_beyond_its_range_in_some_frames():
    odd = followed()
    odd.actions[5:15, 3] = 2.0
    assert "action dimension 3 is 2 in 25% of the frames, at most 0." in said(odd, statistics=None)
    percent = followed()
    percent.state[:, 3] *= 100
    percent.state[5:10, 3] = 250
    assert "state dimension 3 is 250 in 12% of the frames, at most 99.9 in the others" in said(percent)


def test_a_state_or_commands_that_stay_as_they_are():
    frozen = demo()._replace(state=demo().state[:1].repeat(STEPS, 0))
    assert "the state stays as it is in demonstration 1 of 2, the actions do not: was it recorded?" in said(
        demo(), frozen
    )
    silent = demo()._replace(actions=demo().actions[:1].repeat(STEPS, 0))
    assert "the actions stay as they are in demonstration 0 of 2, the state does not" in said(silent, demo())


def test_two_kinds_of_motion_under_one_instruction():
    one, other = [demo(0.1 * i) for i in range(2)], [demo(3.0 + 0.1 * i) for i in range(2)]
    (line,) = unlike([one[0], other[0], one[1], other[1]], DEGREES)
    assert line == (
        "the demonstrations of 'open it' show two kinds of motion: 0, 2 on one side, 1, 3 on the other; is one "
        "instruction given to two tasks?"
    )
    assert unlike([one[0], other[0]], DEGREES) != []
    assert unlike([*one, *one], DEGREES) == []
    assert unlike([demo(0.2 * i) for i in range(6)], DEGREES) == []  # other starts of one motion


def test_two_tight_groups_may_be_nearer_than_two_demonstrations():
    one, other = [demo(0.05 * i) for i in range(2)], [demo(1.2 + 0.05 * i) for i in range(2)]
    assert unlike([one[0], other[0]], DEGREES) == []
    assert unlike([one[0], other[0], one[1], other[1]], DEGREES) != []


def test_less_like_motions_need_scenes_that_differ():
    pair = [demo(), demo(0.9)]
    assert unlike(pair, DEGREES) == []
    assert "in two scenes" in unlike([pair[0], pair[1]._replace(images=pair[1].images + 50)], DEGREES)[0]
