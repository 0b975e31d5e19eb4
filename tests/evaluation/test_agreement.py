"""Offline measures held against success: the statistics in closed form."""

import numpy as np
import pytest

from metalora_jax.evaluation.offline.agreement import agreement, halves, rank_correlation

CELL = [0, 0, 0, 1, 1, 1]
CLUSTER = ["here", "here", "here", "there", "there", "there"]
SUCCESS = np.array([0.0, 0.5, 1.0, 0.2, 0.6, 0.4])


def test_rank_correlation():
    assert rank_correlation(np.array([1, 2, 30]), np.array([-5, 0, 0.1])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation(np.array([1, 1, 2, 2]), np.array([1, 2, 3, 4])) == pytest.approx(4 / np.sqrt(4 * 5))
    assert rank_correlation(np.array([1, 2]), np.array([7, 7])) is None


def test_a_measure_that_says_all():
    found = agreement(1 - SUCCESS, SUCCESS, CELL, CLUSTER)
    assert (found.pooled.value, found.within.value) == pytest.approx((1, 1))
    assert found.pooled.interval == pytest.approx((1, 1))
    assert (found.chosen.value, found.lost.value, found.best, found.cells) == pytest.approx((0.8, 0.0, 1.0, 2))


def test_a_measure_that_says_the_opposite():
    found = agreement(SUCCESS, SUCCESS, CELL, CLUSTER)
    assert found.within.value == pytest.approx(-1)
    assert found.chosen.value == pytest.approx(0.1)
    assert found.lost.value == pytest.approx((1.0 + 0.4) / 2)
    assert found.lost.interval == pytest.approx((0.4, 1.0))
    assert found.best == 0


def test_within_a_cell_how_hard_the_cells_are_does_not_count():
    """Pooled, a measure agrees that only knows which cell is hard."""
    success = np.array([0.1, 0.2, 0.0, 0.9, 0.8, 1.0])
    measure = np.array([8.0, 9.0, 7.0, 2.0, 1.0, 3.0])
    found = agreement(measure, success, CELL, CLUSTER)
    assert found.pooled.value > 0.5
    assert found.within.value == pytest.approx(-1)


def test_ties_are_by_lot_and_cells_where_all_succeed_alike_have_no_rank():
    success = np.array([0.0, 0.5, 1.0, 0.3, 0.3, 0.3])
    found = agreement(np.array([1.0, 2.0, 1.0, 1.0, 2.0, 3.0]), success, CELL, CLUSTER)
    assert found.chosen.value == pytest.approx((0.5 + 0.3) / 2)
    assert found.best == pytest.approx((0.5 + 1) / 2)
    assert found.cells == 1


def test_one_condition_has_no_interval():
    found = agreement(SUCCESS, SUCCESS, CELL, ["here"] * 6)
    assert found.pooled.interval is None
    assert found.chosen.interval is None


def test_intervals_draw_conditions_whole():
    """Drawn policy by policy, the interval would not reach what either condition says alone."""
    success = np.tile(np.arange(3) / 2, 2)
    measure = np.array([1.0, 2.0, 3.0, 3.0, 2.0, 1.0])
    assert agreement(measure, success, CELL, CLUSTER).pooled.interval == pytest.approx((-1, 1))


def test_halves_agree_where_there_is_no_luck():
    wins = np.array([[True] * 4, [True, True, False, False], [False] * 4])
    for half in halves(wins, [0] * 3, [0] * 3):
        assert half.within.value == pytest.approx(1)
    one_sided = np.array([[True, False] * 2, [False, True] * 2])
    assert [half.within.value for half in halves(one_sided, [0, 0], [0, 0])] == pytest.approx([-1, -1])
