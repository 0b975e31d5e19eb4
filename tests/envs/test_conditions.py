"""Hidden deployment shifts: undone exactly by relabelling, held out by arcs, and kept in records without loss."""

import dataclasses
import json
import math

import numpy as np
import pytest

from metalora_jax.envs.condition_range import _ARC_COUNT, ConditionRange
from metalora_jax.envs.conditions import (
    Condition,
    command_labels,
    execute,
    execute_joints,
    from_flags,
    joint_labels,
    read_joints,
)
from metalora_jax.envs.world import check_shift
from tests.evaluation.fake_world import make_world

TURN = ConditionRange(yaw=(-math.pi, math.pi))
ORBIT = ConditionRange(view=(tuple(range(-75, 76)), (0.0, 15.0), (1.0,), (0.0,), (0.0,)))
CROOKED = Condition(
    yaw=0.7, gain=(0.8, 1.2, 1.0), tilt=(0.4, -1.1, 0.3), mirror="xz", dead_zone=(0.3, 0.0, 0.1), gripper_flipped=True
)
FAR = Condition(1 / 3, (0.5, 2.0, 1.0), 2, (0.0, -0.1, 0.3), 0.7, (0.1, 0.0, 0.0), 0.5, 3, 0.5, 2.0, 1.5, 0.6, 4)
SPLITS = ("train", "validation", "test")
RECORDED = np.random.default_rng(0).uniform(-1, 1, (12, 4))


@pytest.mark.parametrize("yaw", [0.0, 0.4, -2.5, math.pi])
@pytest.mark.parametrize("gain", [(1.0, 1.0, 1.0), (0.5, 2.0, 1.3)])
def test_relabelled_commands_execute_what_was_recorded(yaw, gain):
    condition = Condition(yaw=yaw, gain=gain)
    np.testing.assert_allclose(execute(command_labels(RECORDED, condition), condition), RECORDED, atol=1e-6)


def test_a_quarter_turn():
    forward = np.array([1.0, 0.0, 0.2, -1.0])
    np.testing.assert_allclose(execute(forward, Condition(yaw=math.pi / 2)), [0, 1, 0.2, -1], atol=1e-7)


def test_execution_is_clipped():
    assert execute(np.array([3.0, -3.0, 0.1, 7.0]), Condition(gain=(1.0, 1.0, 2.0))).tolist() == [1, -1, 0.2, 1]


def test_latency_is_anticipated():
    labels = command_labels(RECORDED, Condition(latency=3))
    np.testing.assert_allclose(labels[:-3], RECORDED[3:], atol=1e-6)
    np.testing.assert_allclose(labels[-3:], np.tile(RECORDED[-1], (3, 1)), atol=1e-6)


def test_no_held_out_condition_lies_in_an_arc_of_another_split():
    rng, arcs = np.random.default_rng(0), {}
    count = _ARC_COUNT
    for split in ("train", "validation", "test"):
        yaws = np.array([TURN.sample(rng, split).yaw for _ in range(1000)])
        assert np.abs(yaws).max() <= math.pi
        arcs[split] = set(np.floor((yaws + math.pi) / (2 * math.pi) * count).astype(int))
    assert [len(arcs[split]) for split in ("train", "validation", "test")] == [count * 4 // 6, count // 6, count // 6]
    assert len(set.union(*arcs.values())) == count


def test_samples_stay_in_their_ranges_and_are_pure():
    wide = ConditionRange((0.0, 1.0), gain=(0.5, 1.5), latency=(1, 3), camera=0.1, light=(0.6, 1.4))
    drawn = [wide.sample(np.random.default_rng(seed), "train") for seed in range(200)]
    assert drawn == [wide.sample(np.random.default_rng(seed), "train") for seed in range(200)]
    assert all(0 <= c.yaw <= 1 and 0.5 <= min(c.gain) <= max(c.gain) <= 1.5 for c in drawn)
    assert {c.latency for c in drawn} == {1, 2, 3}
    assert all(0.6 <= c.light <= 1.4 and max(map(abs, c.camera)) <= 0.1 for c in drawn)


def test_later_fields_are_drawn_where_asked_for_and_change_no_other_draw():
    old = ConditionRange((0.0, 1.0), gain=(0.5, 1.5), latency=(1, 3), camera=0.1, light=(0.6, 1.4))
    new = dataclasses.replace(
        old, camera_turn=0.2, colour=0.3, friction=(0.5, 2.0), mass=(0.8, 1.2), damping=(1.5, 2.0), texture=0.7
    )
    first, drawn = (wide.sample(np.random.default_rng(3), "train") for wide in (old, new))
    names = ("camera_turn", "colour", "colour_seed", "friction", "mass", "damping", "texture", "texture_seed")
    same = {name: getattr(first, name) for name in names}
    assert dataclasses.replace(drawn, **same) == first
    assert same == {name: getattr(Condition(), name) for name in same}
    assert 0 < max(map(abs, drawn.camera_turn)) <= 0.2
    assert (drawn.colour, drawn.colour_seed > 0) == (0.3, True)
    assert 0.5 <= drawn.friction <= 2.0
    assert 0.8 <= drawn.mass <= 1.2
    assert 1.5 <= drawn.damping <= 2.0
    assert (drawn.texture, drawn.texture_seed > 0) == (0.7, True)


def test_only_what_is_seen_or_moves_differently_must_be_recorded_anew():
    assert not Condition(yaw=1.0, gain=(2.0, 1.0, 1.0), latency=2).changes_scene
    fields = {"camera": (0.1, 0.0, 0.0), "light": 0.5, "camera_turn": (0.1, 0.0, 0.0), "colour": 0.1, "texture": 0.1}
    assert all(Condition(**{name: value}).changes_scene for name, value in fields.items())


def test_only_yaw_is_drawn_where_only_yaw_is_asked_for():
    drawn = TURN.sample(np.random.default_rng(0), "test")
    assert drawn == Condition(yaw=drawn.yaw)
    assert not drawn.changes_scene


@pytest.mark.parametrize(
    "condition",
    [Condition(), Condition(yaw=0.1), FAR],
)
def test_json_round_trip(condition):
    fields = json.loads(json.dumps(condition.to_json()))
    assert Condition.from_json(fields) == condition
    assert len(fields) == (0 if condition == Condition() else 1 if condition.light == 1 else 13)


def test_a_condition_from_flags():
    asked = from_flags(["camera=[0,0,0.05]", "mirror=xz", "arm_start=3", 'arm_start_reading="pose"'])
    assert asked == Condition(camera=(0, 0, 0.05), mirror="xz", arm_start=3, arm_start_reading="pose")
    assert from_flags([]) == Condition()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Condition(gain=(1.0, 0.0, 1.0)), "gain .* must be positive"),
        (lambda: Condition(joint_gain=(1.0, -1.0)), "joint_gain .* must be positive"),
        (lambda: Condition(latency=-1), "latency -1 must not be negative"),
        (lambda: Condition(light=0.0), r"light 0\.0 must be positive"),
        (lambda: Condition(mass=0.0), r"mass 0\.0 must be positive"),
        (lambda: Condition(colour=1.5), r"colour 1\.5 must be in \[0, 1\]"),
        (lambda: Condition(texture=1.5), r"texture 1\.5 must be in \[0, 1\]"),
        (lambda: from_flags(["light=0.6", "light=0.7"]), r"condition 'light=0.7': give each field once"),
        (lambda: from_flags(["light"]), r"condition 'light': .* as FIELD=VALUE"),
        (lambda: from_flags(["light=dim"]), r"condition\.light is 'dim'; it must be"),
        (lambda: from_flags(["camera=[0,1]"]), r"condition\.camera is \[0, 1\]; it must be"),
        (lambda: Condition.from_json({"jaw": 1.0}), r"no field condition\.jaw; known: yaw, gain"),
        (lambda: ConditionRange.from_config({"lights": 1.0}), r"no field conditions\.lights; known: yaw"),
        (lambda: Condition(view=(0.0, 0.0, 0.0, 0.0, 0.0)), "the third number, must be positive"),
        (lambda: Condition(dead_zone=(0.0, 1.0, 0.0)), r"dead_zone .* must be in \[0, 1\)"),
        (lambda: Condition(displaced=6), r"displaced 6 must be in 0\.\.5, and its seed not negative"),
        (lambda: ConditionRange(picture_noise=(1, 41)), r"picture_noise 41 must be in 0\.\.40"),
        (lambda: Condition(mirror="zx"), "mirror 'zx' must name axes of x, y, z, in this order"),
        (lambda: Condition(arm_start=501), r"arm_start 501 must be in 0\.\.500"),
        (lambda: Condition(arm_start_reading="pose"), "arm_start_reading 'pose' has no arm_start to read"),
        (lambda: ConditionRange(arm_start=(1, 501)), r"arm_start 501 must be in 0\.\.500"),
        (lambda: ConditionRange(mirror=("x", "q")), "mirror 'q' must name axes of x, y, z"),
        (lambda: ConditionRange(dead_zone=(0.0, 1.0)), r"dead_zone .* must be in \[0, 1\)"),
        (
            lambda: ConditionRange(dead_zone=(0.5, 0.1)),
            r"conditions\.dead_zone is \[0\.5, 0\.1\]; give the least first",
        ),
        (lambda: ConditionRange(latency=(-1, 2)), "latency -1 must not be negative"),
        (lambda: ConditionRange(gain=(-1.0, 1.0)), "gain .* must be positive"),
        (lambda: ConditionRange(displaced=6), r"displaced 6 must be in 0\.\.5"),
        (lambda: ConditionRange(colour=3.0), r"colour 3\.0 must be in \[0, 1\]"),
        (lambda: ConditionRange(gripper_flipped=2.0), r"conditions\.gripper_flipped is 2\.0; it is how often"),
        (
            lambda: ConditionRange(view=((0.0,), (0.0,), (1.0, 0.0), (0.0,), (0.0,))),
            "the third number, must be positive",
        ),
        (lambda: ConditionRange(view=((0.0,),) * 4), "conditions.view is .* give 5 lists"),
        (
            lambda: ConditionRange(view=((0.0, 1.0), *((1.0,),) * 4)).sample(np.random.default_rng(0), "test"),
            r"conditions\.view has 2 values, none of which is held out for test: give six or more",
        ),
        (lambda: TURN.sample(np.random.default_rng(0), "dev"), "no split named 'dev'; choose from train"),
    ],
)
def test_bad_values(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_config_section():
    assert ConditionRange.from_config({"yaw": [-1.0, 1.0], "camera": 0.1}) == ConditionRange((-1.0, 1.0), camera=0.1)


CALIBRATION = Condition(latency=1, joint_offset=(5.0, -2.0), joint_gain=(0.9, 1.1))


def test_a_wrong_calibration_reads_what_it_was_told():
    told = np.random.default_rng(0).uniform(-90, 90, (7, 2))
    np.testing.assert_allclose(execute_joints(told[0], CALIBRATION), told[0] * [0.9, 1.1] + [5, -2])
    np.testing.assert_allclose(read_joints(execute_joints(told, CALIBRATION), CALIBRATION), told)
    ahead = execute_joints(joint_labels(told, CALIBRATION), CALIBRATION)
    np.testing.assert_allclose(ahead, told[[1, 2, 3, 4, 5, 6, 6]], rtol=1e-5)
    assert not CALIBRATION.changes_scene
    with pytest.raises(ValueError, match="joint_gain has 2 numbers, the robot 6 joints: give one for each"):
        read_joints(np.zeros(6), CALIBRATION)


def test_joints_are_drawn_to_both_sides_with_held_out_values_of_the_first_that_varies():
    wide = ConditionRange(joint_offset=(0.0, 4.0, 2.0), joint_gain=(0.1, 0.1, 0.0), moved=("wrist",), camera=0.1)
    seen = {split: [wide.sample(np.random.default_rng(seed), split) for seed in range(300)] for split in SPLITS}
    offsets = {split: np.array([c.joint_offset for c in drawn]) for split, drawn in seen.items()}
    arcs = {split: set(np.floor((o[:, 1] / 4 + 1) / 2 * _ARC_COUNT).astype(int)) for split, o in offsets.items()}
    assert sum(map(len, arcs.values())) == len(set.union(*arcs.values()))
    assert all((o[:, 0] == 0).all() and (np.abs(o) <= [0, 4, 2]).all() for o in offsets.values())
    assert all(0.3 < (o[:, k] > 0).mean() < 0.7 for o in offsets.values() for k in (1, 2))
    assert all(c.joint_gain[2] == 1 and 0.9 <= min(c.joint_gain) <= max(c.joint_gain) <= 1.1 for c in seen["test"])
    plain = ConditionRange(camera=0.1).sample(np.random.default_rng(5), "train")
    assert seen["train"][5].camera == plain.camera


def test_a_range_is_written_as_it_was_before_there_were_joints():
    old = {
        "yaw",
        "gain",
        "latency",
        "camera",
        "light",
        "camera_turn",
        "colour",
        "friction",
        "mass",
        "damping",
        "texture",
    }
    assert set(TURN.to_json()) == old
    wide = ConditionRange(joint_offset=(1.0,), joint_gain=(0.1,), moved=("front",))
    assert ConditionRange.from_config(json.loads(json.dumps(wide.to_json()))) == wide


ARM = make_world({"reach": "reach"})._replace(joints=("a", "b"), cameras=("front",))


@pytest.mark.parametrize(
    ("shift", "where", "said"),
    [
        (Condition(yaw=1.0), ARM, "condition yaw does not fit the world x, whose commands are joint targets"),
        (ConditionRange(gain=(0.9, 1.1)), ARM, "condition gain does not fit .* or use joint_offset or joint_gain"),
        (ConditionRange(joint_gain=(0.1,)), ARM, "condition joint_gain has 1 numbers; x has 2 joints: a, b"),
        (Condition(moved=("top",)), ARM, "condition moved names no camera of x: 'top'; known: front"),
        (Condition(view=(30, 0, 1, 0, 0)), ARM, "condition view does not fit the world x, whose cameras have no such"),
        (CROOKED, ARM, "condition yaw does not fit the world x"),
        (Condition(mirror="x"), ARM, "condition mirror does not fit the world x, whose commands are joint targets"),
        (Condition(displaced=1), ARM, "condition displaced does not fit the world x, whose starts it does not know"),
        (Condition(picture_noise=1), ARM, "condition picture_noise does not fit the world x, whose pictures have none"),
        (Condition(arm_start=3), ARM, "condition arm_start does not fit the world x, whose robot has no such starts"),
        (ORBIT, ARM, "condition view does not fit the world x"),
        (CALIBRATION, ARM._replace(joints=()), "condition joint_offset does not fit .* displacements"),
    ],
)
def test_shifts_that_do_not_fit_the_actions_are_refused_by_name(shift, where, said):
    with pytest.raises(ValueError, match=said):
        check_shift(shift, "x", where)


def test_shifts_that_fit_are_accepted():
    for shift in (None, CALIBRATION, Condition(latency=2, light=0.5), ConditionRange(joint_offset=(1.0, 0.0))):
        check_shift(shift, "x", ARM)
    check_shift(FAR, "x", ARM._replace(joints=()))
    check_shift(ORBIT, "x", ARM._replace(shifts=("view",)))


def test_views_are_drawn_from_their_values_and_held_out_in_the_first_that_varies():
    seen = {split: [ORBIT.sample(np.random.default_rng(i), split).view for i in range(300)] for split in SPLITS}
    around = {split: {view[0] for view in views} for split, views in seen.items()}
    assert sum(map(len, around.values())) == len(set.union(*around.values())) > 100
    assert around["test"] <= set(range(-70, 76, 6))
    assert {view[1:] for views in seen.values() for view in views} == {(0, 1, 0, 0), (15, 1, 0, 0)}
    fixed = ConditionRange.from_config({"view": [[30], [15], [1.0], [0], [0]]})
    assert fixed.sample(np.random.default_rng(0), "test") == Condition(view=(30, 15, 1, 0, 0))
    assert Condition(view=(30, 15, 1, 0, 0)).changes_scene
    assert fixed.of_the_scene == ["view"]
    assert ConditionRange.from_config(json.loads(json.dumps(ORBIT.to_json()))) == ORBIT


def test_starts_of_the_arm_are_drawn_and_held_out():
    starts = ConditionRange(arm_start=tuple(range(1, 501)), arm_start_reading="pose")
    seen = {split: [starts.sample(np.random.default_rng(i), split) for i in range(900)] for split in SPLITS}
    numbers = {split: {condition.arm_start for condition in drawn} for split, drawn in seen.items()}
    assert sum(map(len, numbers.values())) == len(set.union(*numbers.values())) > 400
    assert {condition.arm_start_reading for drawn in seen.values() for condition in drawn} == {"pose"}
    assert ConditionRange.from_config(json.loads(json.dumps(starts.to_json()))) == starts
    assert ConditionRange(arm_start=(7,)).sample(np.random.default_rng(0), "test") == Condition(arm_start=7)
    assert Condition(arm_start=7).changes_scene


@pytest.mark.parametrize("width", [4, 7])
@pytest.mark.parametrize(
    "condition",
    [
        *(Condition(tilt=(0.0, 0.0, 2.9)), Condition(tilt=(1.0, -0.5, 0.2)), Condition(mirror="y"), CROOKED),
        *(
            Condition(dead_zone=(0.9, 0.2, 0.0)),
            Condition(gripper_flipped=True),
            dataclasses.replace(CROOKED, latency=2),
        ),
    ],
)
def test_whatever_was_recorded_can_be_commanded(condition, width):
    recorded = np.random.default_rng(2).uniform(-1, 1, (12, width))
    recorded[3:6, :-1] = 0.0  # the hand stands still
    recorded[:, 1] *= 1e-3
    recorded[:, -1] = np.sign(recorded[:, -1])
    done = execute(command_labels(recorded, condition), condition)
    late = condition.latency
    np.testing.assert_allclose(done[: 12 - late], recorded[late:], atol=1e-6)
    assert not condition.changes_scene


def test_the_frame_tilts_and_is_mirrored_hand_and_turn_alike():
    command = np.array([1.0, 0.0, 0.2, 0.3, 0.1, 0.0, -1.0])
    turn, tilt = Condition(yaw=0.4), Condition(tilt=(0.0, math.pi / 2, 0.0))
    np.testing.assert_allclose(execute(command, tilt), [0.2, 0, -1, 0, 0.1, -0.3, -1], atol=1e-7)
    both = dataclasses.replace(tilt, yaw=turn.yaw)
    np.testing.assert_allclose(execute(command, both), execute(execute(command, turn), tilt), atol=1e-7)
    np.testing.assert_array_equal(execute(command, Condition(mirror="x")), [-1, 0, 0.2, 0.3, -0.1, 0, -1])
    np.testing.assert_allclose(
        execute(command, Condition(mirror="xy")), execute(command, Condition(yaw=math.pi)), atol=1e-7
    )
    np.testing.assert_allclose(
        execute(command, Condition(tilt=(0.0, 0.0, 0.8))), execute(command, Condition(yaw=0.8)), atol=1e-7
    )


def test_a_dead_zone_swallows_what_is_small_and_shortens_the_rest():
    command = np.array([[0.2, -0.2, 0.2, 1.0], [0.5, -0.5, -0.5, -1.0]])
    done = execute(command, Condition(dead_zone=(0.2, 0.3, 0.0)))
    np.testing.assert_allclose(done, [[0, 0, 0.2, 1], [0.3, -0.2, -0.5, -1]])
    wanted = np.array([[0.0, 1e-9, 0.1, 1.0]])
    np.testing.assert_allclose(command_labels(wanted, Condition(dead_zone=(0.3,) * 3)), [[0, 0, 0.4, 1]], atol=1e-6)


def test_displacements_and_noises_are_drawn():
    noisy = ConditionRange(picture_noise=tuple(range(1, 41))).sample(np.random.default_rng(0), "test")
    assert noisy == Condition(picture_noise=noisy.picture_noise)
    assert noisy.picture_noise % 6 == 0
    drawn = [ConditionRange(displaced=3).sample(np.random.default_rng(i), "train") for i in range(2)]
    assert [condition.displaced for condition in drawn] == [3, 3]
    assert drawn[0].displaced_seed != drawn[1].displaced_seed
    assert drawn[0].changes_scene


def test_shifts_of_actions_are_drawn_and_tilts_held_out():
    wide = ConditionRange(tilt=0.5, mirror=("", "x", "y"), dead_zone=(0.1, 0.3), gripper_flipped=0.5)
    seen = {split: [wide.sample(np.random.default_rng(i), split) for i in range(200)] for split in SPLITS}
    arcs = {split: {int((c.tilt[0] / 0.5 + 1) / 2 * _ARC_COUNT) for c in drawn} for split, drawn in seen.items()}
    assert sum(map(len, arcs.values())) == len(set.union(*arcs.values()))
    every = [c for drawn in seen.values() for c in drawn]
    assert {c.mirror for c in every} == {"", "x", "y"}
    assert all(0.1 <= min(c.dead_zone) <= max(c.dead_zone) <= 0.3 for c in every)
    assert 0.4 < np.mean([c.gripper_flipped for c in every]) < 0.6
    assert wide.of_the_scene == []
    assert ConditionRange.from_config(json.loads(json.dumps(wide.to_json()))) == wide
    assert Condition.from_json(json.loads(json.dumps(every[0].to_json()))) == every[0]


def test_a_turn_of_the_hand_is_rotated_with_its_displacement():
    recorded = np.random.default_rng(1).uniform(-0.5, 0.5, (12, 7))
    condition = Condition(yaw=0.7, gain=(0.8, 1.2, 1.0))
    np.testing.assert_allclose(execute(command_labels(recorded, condition), condition), recorded, atol=1e-6)
    quarter = execute(np.array([0, 0, 0, 0.3, 0.0, 0.1, -1.0]), Condition(yaw=math.pi / 2, gain=(0.5, 0.5, 0.5)))
    np.testing.assert_allclose(quarter, [0, 0, 0, 0, 0.3, 0.1, -1], atol=1e-7)
