"""What the scripted expert knows of shapes, without a simulator: height maps, grasps, places, courses."""

import numpy as np
import pytest

from metalora_jax.envs.libero_expert import hand
from metalora_jax.envs.libero_expert.boxes import CELL, Boxes, heights, joined, turn
from metalora_jax.envs.libero_expert.dragging import inner_edge
from metalora_jax.envs.libero_expert.grasps import grasps
from metalora_jax.envs.libero_expert.placing import course, places


def box(center, half, yaw=0.0) -> Boxes:
    return Boxes(np.array([center], float), turn(yaw)[None], np.array([half], float))


def overlap(one: Boxes, other: Boxes) -> bool:
    """Whether two sets of boxes share a point, by points sampled within the first."""
    steps = np.stack(np.meshgrid(*[np.linspace(-1, 1, 9)] * 3), -1).reshape(-1, 3)
    points = (one.centers[:, None] + np.einsum("nij,nkj->nki", one.axes, steps * one.halves[:, None])).reshape(-1, 3)
    local = np.einsum("nji,nkj->nki", other.axes, points[None] - other.centers[:, None])
    return bool((np.abs(local) < other.halves[:, None] - 1e-4).all(axis=-1).any())


TABLE = box([0, 0, -0.05], [0.6, 0.6, 0.05])
CHEESE = box([0.10, 0.05, 0.009], [0.041, 0.021, 0.009], yaw=0.4)
ANGLES = np.arange(24) * 2 * np.pi / 24
BOWL = joined(
    box([0, 0, 0.004], [0.035, 0.035, 0.004]),
    *(box([0.05 * np.cos(a), 0.05 * np.sin(a), 0.03], [0.002, 0.008, 0.025], a) for a in ANGLES),
)


@pytest.mark.parametrize("yaw", [0.0, 0.7])
def test_heights_of_a_turned_and_tilted_box(yaw):
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(0.3), -np.sin(0.3)], [0.0, np.sin(0.3), np.cos(0.3)]])
    solid = Boxes(np.array([[0.0, 0.0, 0.1]]), (turn(yaw) @ tilt)[None], np.array([[0.05, 0.03, 0.01]]))
    seen = heights(solid, np.full(2, -0.08), np.full(2, 0.08))
    middle = round(0.08 / CELL)
    assert seen.top[middle, middle] == pytest.approx(0.1 + 0.01 / np.cos(0.3))
    assert seen.bottom[middle, middle] == pytest.approx(0.1 - 0.01 / np.cos(0.3))
    covered = np.isfinite(seen.top).sum() * CELL**2
    assert covered == pytest.approx(0.1 * (0.06 * np.cos(0.3) + 0.02 * np.sin(0.3)), rel=0.08)
    assert (np.isfinite(seen.top) == np.isfinite(seen.bottom)).all()


def test_no_wall_is_lost_between_cells():
    wall = box([0.0013, 0.0, 0.05], [0.0003, 0.04, 0.05], yaw=0.0)
    assert np.isfinite(heights(wall, np.full(2, -0.06), np.full(2, 0.06)).top).any()


def test_a_box_is_grasped_across_its_narrow_side():
    best = grasps(CHEESE, CHEESE.centers[0], TABLE)[0]
    np.testing.assert_allclose(best.position[:2], [0.10, 0.05], atol=CELL)
    assert best.yaw == pytest.approx(0.4, abs=0.02)
    assert not overlap(hand.shape(best.position, hand.pointing_down(best.yaw), 2 * hand.OPEN), joined(TABLE, CHEESE))


def test_a_bowl_is_grasped_by_its_rim_on_the_side_that_is_free():
    best = grasps(BOWL, np.array([0, 0, 0.02]), TABLE)[0]
    assert np.linalg.norm(best.position[:2]) == pytest.approx(0.05, abs=2 * CELL)
    neighbour = box([best.position[0] * 2.0, best.position[1] * 2.0, 0.05], [0.04, 0.04, 0.05])
    other = grasps(BOWL, np.array([0, 0, 0.02]), joined(TABLE, neighbour))[0]
    assert np.linalg.norm(other.position - best.position) > 0.03
    fingers = hand.shape(other.position, hand.pointing_down(other.yaw), 2 * hand.OPEN)
    assert not overlap(fingers, joined(TABLE, BOWL, neighbour))


def test_what_fingers_do_not_span_is_not_grasped():
    assert grasps(box([0, 0, 0.05], [0.06, 0.06, 0.05]), np.zeros(3), TABLE) == []


def test_a_thing_is_turned_to_fit_its_place():
    book = box([0.3, 0.0, 0.05], [0.012, 0.05, 0.05])
    fingers = hand.shape(np.array([0.3, 0.0, 0.09]), hand.pointing_down(np.pi / 2), 0.03)
    slot = joined(TABLE, box([0, 0.035, 0.04], [0.1, 0.01, 0.04]), box([0, -0.035, 0.04], [0.1, 0.01, 0.04]))
    [spots] = places(book, [fingers], np.array([0.3, 0, 0]), slot, np.zeros(2), 0.02, lambda at: at[2] < 0.02)
    spot = spots[0]
    assert abs(spot.turn) == pytest.approx(np.pi / 2, abs=0.2)
    np.testing.assert_allclose(spot.origin, 0.0, atol=0.012)


def test_what_the_judge_refuses_is_no_place():
    assert places(CHEESE, [CHEESE], CHEESE.centers[0], TABLE, np.zeros(2), 0.02, lambda origin: False) == [[]]


def test_a_course_passes_over_what_stands_in_its_way():
    wall = box([0.15, 0.0, 0.1], [0.01, 0.2, 0.1])
    start, end = np.array([0.0, 0.0, 0.05]), np.array([0.3, 0.05, 0.06])
    held = box(start, [0.02, 0.02, 0.03])
    way = course(held, joined(TABLE, wall), start, end, 0.0, air=0.02)
    np.testing.assert_allclose(way[[0, -1]], [start, end], atol=1e-9)
    assert np.linalg.norm(np.diff(way, axis=0), axis=1).max() < 0.05
    for point in way:
        assert not overlap(held.moved(np.eye(3), start, point), joined(TABLE, wall))
    assert way[:, 2].max() < 0.2 + 0.03 + 0.02 + 0.03  # no higher than it must


def test_commands_point_straight_at_their_goal_within_limits():
    now = hand.pointing_down(0.2)
    goal = np.array([0.3, -0.1, 0.05])
    action = hand.command(np.zeros(3), now, goal, hand.pointing_down(0.5), 1.0)
    np.testing.assert_allclose(action[:3] / np.linalg.norm(action[:3]), goal / np.linalg.norm(goal))
    assert np.abs(action).max() <= 1.0
    assert action[5] > 0
    np.testing.assert_allclose(action[3:5], 0.0, atol=1e-9)
    np.testing.assert_allclose(hand.command(goal, now, goal, now, -1.0), [0, 0, 0, 0, 0, 0, -1], atol=1e-9)


def test_a_plate_is_dragged_by_the_rim_on_the_side_it_goes_to():
    rim = joined(*(box([0.065 * np.cos(a), 0.065 * np.sin(a), 0.01], [0.003, 0.01, 0.01], a) for a in ANGLES))
    plate = joined(box([0, 0, 0.002], [0.06, 0.06, 0.002]), rim)
    inside = inner_edge(plate, np.array([0.0, -0.3]))
    assert inside[1] < -0.02
    assert inside[0] == pytest.approx(0.0, abs=CELL)
    fist = hand.shape(inside, hand.pointing_down(0.0), 0.0)
    assert not overlap(fist, plate)
    assert overlap(fist.moved(np.eye(3), inside, inside - 0.03 * np.eye(3)[1]), rim)
    assert inner_edge(box([0, 0, 0.005], [0.06, 0.06, 0.005]), np.array([1.0, 0.0])) is None
