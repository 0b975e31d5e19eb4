"""In a moved world, picture, proprioception, command and words still tell one story: each is checked by another."""

import numpy as np
import pytest

from metalora_jax.data.symmetry import NAMES, Eye, enlarged, say, symmetry, twin
from metalora_jax.envs.conditions import Condition, command_labels, execute
from metalora_jax.envs.symmetries import ROBOTS, symmetries
from metalora_jax.types import Demo

SIDE, STEPS = 65, 30
MIRRORS = {"metaworld": np.diag([-1.0, 1, 1]), "libero": np.diag([1.0, -1, 1])}
FINGER = np.array([0.0, 0.03, 0.1])  # [m] in the hand's frame: fingers open along its y
POSSIBLE = [
    *(("metaworld", ("topview",), name) for name in NAMES),
    ("libero", ("agentview", "eye_in_hand"), "mirror"),
    *(("libero", ("eye_in_hand",), name) for name in NAMES),
]


def rotation(axis_angle):
    """Rodrigues' formula, (3,) [rad] -> (3, 3)."""
    angle = np.linalg.norm(axis_angle)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def pose(world, state):
    """The hand's place and attitude as the state tells them, and its two finger tips."""
    if world == "metaworld":
        return state[:3], np.eye(3), np.zeros((0, 3))
    turn = rotation(state[3:6])
    tips = state[:3] + np.array([FINGER * [1, q / 0.03, 1] for q in state[6:]]) @ turn.T
    return state[:3], turn, tips


def picture(world, camera, state, mark):
    """What a camera sees of the hand and of a `mark` (3,) in the world: a pinhole, drawn from the state alone."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    eye = ROBOTS[world].eyes[camera]
    place, turn, tips = pose(world, state)
    right, up, at = (np.asarray(value) for value in (eye.right, eye.up, eye.position))
    if eye.on_hand:
        right, up, at = turn @ right, turn @ up, place + turn @ at
    forward = -np.cross(right, up)
    for channel, points in enumerate(([mark], [place] if not eye.on_hand else [], tips)):
        for point in points:
            ray = point - at
            column, row = 32 + 40 * np.array([ray @ right, -ray @ up]) / abs(ray @ forward)
            if max(abs(column - 32), abs(row - 32)) < 32:
                image[round(row), round(column), channel] = 255
    return image


def story(world, cameras, instruction="close the door"):
    """A demonstration that hangs together, and the mark that its cameras see: commands are the hand's displacements."""
    rng = np.random.default_rng(3)
    centre = np.array([0.07, 0.53, 0.2] if world == "metaworld" else [0.1, 0.04, 1.0])
    moves = rng.uniform(-1, 1, (STEPS, 3))
    places = centre + 0.01 * np.cumsum(np.concatenate([np.zeros((1, 3)), moves[:-1]]), axis=0)
    mark = np.array([0.11, 0.58, 0.02] if world == "metaworld" else [0.06, -0.05, 0.8])
    gripper = rng.uniform(-1, 1, (STEPS, 1))
    if world == "metaworld":
        state, actions = np.hstack([places, rng.uniform(0, 1, (STEPS, 1))]), np.hstack([moves, gripper])
    else:
        attitude = np.array([3.0, 0.2, -0.1]) + 0.4 * rng.normal(size=(STEPS, 3))
        fingers = np.hstack([rng.uniform(0, 0.04, (STEPS, 1)), rng.uniform(-0.04, 0, (STEPS, 1))])
        turns = 0.1 * rng.normal(size=(STEPS, 3))
        state, actions = np.hstack([places, attitude, fingers]), np.hstack([moves, turns, gripper])
    images = np.array([[picture(world, camera, s, mark) for camera in cameras] for s in state])
    return Demo(instruction, images, state.astype(np.float32), actions.astype(np.float32)), mark


def moved_world(world, name):
    if name == "mirror":
        return lambda x: MIRRORS[world] @ x
    angle, centre = np.radians(int(name.removeprefix("turn_"))), np.array([*ROBOTS[world].centre, 0.0])
    return lambda x: rotation(np.array([0, 0, angle])) @ (x - centre) + centre


@pytest.mark.parametrize(("world", "cameras", "name"), POSSIBLE)
def test_a_moved_picture_is_the_picture_of_the_moved_state(world, cameras, name):
    demo, mark = story(world, cameras)
    moved = symmetry(ROBOTS[world], cameras, name).demo(demo)
    there = moved_world(world, name)(mark)
    drawn = np.array([[picture(world, camera, s, there) for camera in cameras] for s in moved.state.astype(float)])
    assert drawn.any(axis=(0, 2, 3, 4)).all()  # something is seen
    assert not np.array_equal(moved.images, demo.images) or cameras == ("eye_in_hand",)
    np.testing.assert_array_equal(moved.images, drawn)


@pytest.mark.parametrize(("world", "cameras", "name"), POSSIBLE)
def test_moved_positions_integrate_moved_displacements(world, cameras, name):
    moved = symmetry(ROBOTS[world], cameras, name).demo(story(world, cameras)[0])
    np.testing.assert_allclose(np.diff(moved.state[:, :3], axis=0), 0.01 * moved.actions[:-1, :3], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_moved_attitudes_follow_moved_turns(name):
    demo, _ = story("libero", ("eye_in_hand",))
    moved = symmetry(ROBOTS["libero"], ("eye_in_hand",), name).demo(demo)
    turned, want = (
        [rotation(turn) @ rotation(now) for turn, now in zip(d.actions[:, 3:6], d.state[:, 3:6], strict=True)]
        for d in (moved, demo)
    )
    world = moved_world("libero", name)
    linear = np.array([world(axis) - world(np.zeros(3)) for axis in np.eye(3)]).T
    hand = MIRRORS["libero"] if name == "mirror" else np.eye(3)
    np.testing.assert_allclose(turned, linear @ np.array(want) @ hand, atol=1e-5)


@pytest.mark.parametrize(("world", "cameras", "name"), POSSIBLE)
def test_the_way_back(world, cameras, name):
    demo, _ = story(world, cameras)
    back = {"mirror": "mirror", "turn_90": "turn_270", "turn_180": "turn_180", "turn_270": "turn_90"}[name]
    again = symmetry(ROBOTS[world], cameras, back).demo(symmetry(ROBOTS[world], cameras, name).demo(demo))
    np.testing.assert_array_equal(again.images, demo.images)
    np.testing.assert_allclose(again.actions, demo.actions, atol=1e-6)
    if name == "turn_180" and world == "libero":  # all around: the same attitude, the other quaternion
        states = np.delete(demo.state, [3, 4, 5], 1), np.delete(again.state, [3, 4, 5], 1)
        np.testing.assert_allclose(*states, atol=1e-5)
    else:
        np.testing.assert_allclose(again.state, demo.state, atol=1e-5)


def test_a_hand_that_points_down_is_its_own_mirror_image():
    demo, _ = story("libero", ("agentview",))
    state = np.tile(np.float32([0.1, 0.0, 1.0, np.pi, 0, 0, 0.03, -0.03]), (STEPS, 1))
    state[1, 3] = 2.9  # tilted within the mirror's plane: the angle passes half a turn without a jump
    moved = symmetry(ROBOTS["libero"], ("agentview",), "mirror").demo(demo._replace(state=state)).state
    np.testing.assert_allclose(np.delete(moved, 1, 0), np.delete(state, 1, 0), atol=1e-5)
    np.testing.assert_allclose(moved[1, 3:6], [2 * np.pi - 2.9, 0, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("world", "cameras", "name", "message"),
    [
        ("metaworld", ("topview", "agentview"), "mirror", "mirror: camera 'agentview' of Meta-World, at"),
        ("metaworld", ("agentview",), "turn_180", "turn_180: camera 'agentview' of Meta-World, at"),
        ("libero", ("eye_in_hand", "agentview"), "turn_180", "turn_180: camera 'agentview' of LIBERO, at"),
        ("libero", ("wrist",), "mirror", "camera 'wrist' of LIBERO is unknown; known: agentview, eye_in_hand"),
        ("libero", ("agentview",), "flip", "no symmetry named 'flip'; choose from mirror"),
        ("bridge", ("agentview",), "mirror", "no world named 'bridge' in symmetries.world; choose from"),
    ],
)
def test_what_a_camera_does_not_admit_is_refused(world, cameras, name, message):
    with pytest.raises(ValueError, match=message):
        symmetries(world, cameras, (name,))


DOWN = dict(right=(1.0, 0.0, 0.0), up=(0.0, 1.0, 0.0))


@pytest.mark.parametrize(
    ("eye", "name"),
    [
        (Eye((0.3, 0.5, 1.5), **DOWN), "mirror"),  # beside the mirror's plane
        (Eye((0.0, 0.6, 1.5), **DOWN), "turn_90"),  # beside the axis
        (Eye((0.0, 0.5, 0.2), right=(0.0, 1.0, 0.0), up=(0.0, 0.0, 1.0)), "mirror"),  # looks out of the plane
        (Eye((0.0, 0.5, 1.5), right=(0.8, 0.6, 0.0), up=(-0.6, 0.8, 0.0)), "mirror"),  # held askew
        (Eye((0.0, 0.5, 1.5), right=(1.0, 0.0, 0.0), up=(0.0, 0.8, 0.6)), "turn_180"),  # looks down at an angle
    ],
)
def test_a_camera_beside_or_askew_is_refused(eye, name):
    robot = ROBOTS["metaworld"]._replace(eyes={"eye": eye})
    with pytest.raises(ValueError, match=f"{name}: camera 'eye' of Meta-World, at .* would show what it never saw"):
        symmetry(robot, ("eye",), name)
    symmetry(robot._replace(eyes={"eye": Eye((0.0, 0.5, 1.5), **DOWN)}), ("eye",), name)


def test_a_demonstration_of_another_robot_is_refused():
    mirror = symmetry(ROBOTS["libero"], ("agentview",), "mirror")
    with pytest.raises(ValueError, match="LIBERO has 1 cameras, 8 state and 7 action dimensions; this one has 1, 4, 4"):
        mirror.demo(story("metaworld", ("topview",))[0])


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("put the mug on the left plate", "put the mug on the right plate"),
        ("Right bowl on the leftmost plate, left-hand side", "Left bowl on the rightmost plate, right-hand side"),
        ("turn it clockwise", "turn it counterclockwise"),
        ("turn it counter-clockwise", "turn it clockwise"),
        ("put the upright bright bottle at the front", "put the upright bright bottle at the front"),
    ],
)
def test_a_mirror_swaps_words(text, mirrored):
    assert say("mirror", text) == mirrored


def test_a_turn_refuses_words_that_it_makes_wrong():
    assert say("turn_90", "put the upright bottle on the plate") == "put the upright bottle on the plate"
    with pytest.raises(ValueError, match="'push it to the left' says 'left', which a turn makes wrong"):
        say("turn_90", "push it to the left")


def test_twins_are_tasks_of_their_own():
    demo, _ = story("libero", ("agentview",), "close the left door")
    demo = demo._replace(paraphrases=("shut the door on the left",))
    moves = symmetries("libero", ("agentview",), ("mirror",))
    made = enlarged({"a": [demo, demo], "b": [demo]}, moves, ["a"])
    assert list(made) == ["a", "b", twin("a", "mirror")]
    assert [len(recorded) for recorded in made.values()] == [2, 1, 2]
    assert made["a"][0] is demo
    assert made["a@mirror"][1].instruction == "close the right door"
    assert made["a@mirror"][1].paraphrases == ("shut the door on the right",)
    with pytest.raises(ValueError, match=r"symmetries\.tasks names 'c', which is not a training task"):
        enlarged({"a": [demo]}, moves, ["c"])
    with pytest.raises(ValueError, match=r"^a: turn_90: .* says 'left'"):
        enlarged({"a": [demo]}, symmetries("libero", ("eye_in_hand",), ("turn_90",)), ["a"])


@pytest.mark.parametrize("world", ["metaworld", "libero"])
def test_commands_under_a_condition_are_made_from_moved_actions(world):
    cameras = ("topview",) if world == "metaworld" else ("agentview",)
    condition = Condition(yaw=0.7, gain=(1.1, 1.2, 1.3))
    demo, _ = story(world, cameras)
    mirror = symmetry(ROBOTS[world], cameras, "mirror")
    actions = mirror.demo(demo).actions / 2
    commands = command_labels(actions, condition)
    np.testing.assert_allclose(execute(commands, condition), actions, atol=1e-6)
    wrong = mirror.demo(demo._replace(actions=command_labels(demo.actions / 2, condition))).actions
    assert np.abs(execute(wrong, condition) - actions).max() > 0.1
