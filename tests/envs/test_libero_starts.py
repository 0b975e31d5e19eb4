"""Where displaced things lie: within reach, together with what is on them, and not on each other."""

from types import SimpleNamespace

import numpy as np
import pytest

from metalora_jax.envs import libero_starts
from metalora_jax.envs.libero_starts import offsets

SIDE = 0.1


def squares(*corners):
    """Footprints from least x and y."""
    return np.array([[x, y, x + SIDE, y + SIDE] for x, y in corners])


ROW = squares((0, 0), (0.102, 0), (0.3, 0), (0.3, 0.02), (1.0, 1.0))  # two almost touch, two overlap, one is alone


def apart(prints, i, j):
    return max(prints[i, k] - prints[j, k + 2] for k in (0, 1)), max(prints[j, k] - prints[i, k + 2] for k in (0, 1))


def test_things_move_within_reach_together_and_keep_their_gaps():
    for seed in range(50):
        moves = offsets(ROW, [[0], [1], [2, 3]], 0.05, seed)
        assert np.linalg.norm(moves, axis=1).max() <= 0.05
        np.testing.assert_array_equal(moves[2], moves[3])
        np.testing.assert_array_equal(moves[4], 0)
        now = ROW + np.tile(moves, 2)
        assert max(apart(now, 0, 1)) >= 0.002 - 1e-12  # as near as they were
        assert max(apart(now, 1, 2)) >= 0.01 - 1e-12  # they were farther apart
        np.testing.assert_array_equal(moves, offsets(ROW, [[0], [1], [2, 3]], 0.05, seed))


def test_displacements_are_uniform_in_a_disc():
    moves = np.array([offsets(ROW[4:], [[0]], 0.2, seed)[0] for seed in range(2000)])
    away = np.linalg.norm(moves, axis=1) / 0.2
    np.testing.assert_allclose([(away < r).mean() for r in (0.3, 0.5, 0.8)], [0.09, 0.25, 0.64], atol=0.03)
    np.testing.assert_allclose(moves.mean(axis=0), 0, atol=0.01)


def test_where_there_is_no_place_it_is_said():
    walled = squares((0, 0), (0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1))
    with pytest.raises(ValueError, match=r"no place within 0\.05 m in 1000 draws; choose another displaced_seed"):
        offsets(walled, [[0]], 0.05, 0)


def test_what_lies_on_a_thing_moves_with_it_and_what_is_in_a_fixture_stays():
    facts = [["on", "bowl", "box"], ["on", "box", "spot"], ["in", "cup", "drawer"], ["on", "plate", "spot"]]
    facts += [["open", "drawer"], ["on", "cabinet", "spot"]]
    problem = {"initial_state": facts, "regions": {"spot": {"target": "table"}, "drawer": {"target": "cabinet"}}}
    scene = SimpleNamespace(
        parsed_problem=problem, objects_dict=dict.fromkeys(("bowl", "cup", "box", "plate")), workspace_name="table"
    )
    assert libero_starts._groups(scene) == [["bowl", "box"], ["plate"]]


def test_reaches_are_libero_pluss():
    known = {"libero_spatial": 0.01, "libero_object": 0.03, "libero_goal": 0.02, "libero_10": 0.01}
    assert {suite: libero_starts.radius(suite, "open_the_drawer") for suite in known} == known
    assert libero_starts.radius("libero_10", "LIVING_ROOM_SCENE1_put_both") == 0.02
