"""Known values: textbook intervals, scipy's tests, the sample sizes of the evaluation protocol."""

import numpy as np
import pytest
from scipy import stats

from metalora_jax.evaluation.reports import statistics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(5, 5, 0.566, 1.0), (0, 5, 0.0, 0.434), (13, 15, 0.621, 0.963), (50, 100, 0.404, 0.596)],
)
def test_wilson_known_values(successes, n, low, high):
    interval = statistics.wilson(successes, n)
    assert interval.low == pytest.approx(low, abs=1e-3)
    assert interval.high == pytest.approx(high, abs=1e-3)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_rate(successes, n):
    with pytest.raises(ValueError, match="is not a rate"):
        statistics.wilson(successes, n)


def test_pair_aligns_by_key():
    a, b = statistics.pair({"x": True, "y": False}, {"y": True, "x": False})
    np.testing.assert_array_equal(a, [True, False])
    np.testing.assert_array_equal(b, [False, True])


@pytest.mark.parametrize(("a", "b"), [({"x": 1}, {"x": 1, "y": 0}), ({"x": 1, "y": 0}, {"x": 1}), ({"x": 1}, {"y": 1})])
def test_pair_refuses_unpaired(a, b):
    with pytest.raises(ValueError, match="unpaired episodes"):
        statistics.pair(a, b)


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    method = np.array([1] * 9 + [0] * 2 + [1] * 5 + [0] * 4, bool)
    reference = np.array([0] * 9 + [1] * 2 + [1] * 5 + [0] * 4, bool)
    result = statistics.mcnemar(method, reference)
    assert (result.pairs, result.wins, result.losses) == (20, 9, 2)
    assert result.p == pytest.approx(stats.binomtest(9, 11).pvalue)
    assert result.p == statistics.mcnemar(reference, method).p


def test_mcnemar_without_discordance_and_by_hand():
    same = np.array([True, False, True])
    assert statistics.mcnemar(same, same).p == 1.0
    six = statistics.mcnemar(np.ones(6, bool), np.zeros(6, bool))
    assert six.p == pytest.approx(2 / 2**6)  # all six coins on one side, two-sided


def test_mcnemar_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="equal"):
        statistics.mcnemar(np.ones(3, bool), np.ones(2, bool))


def test_holm_by_hand():
    # Sorted .01, .03, .04 times 3, 2, 1 gives .03, .06, .04; a later value is never below an earlier one.
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_bootstrap_agrees_with_theory_for_independent_observations():
    values = np.random.default_rng(1).normal(size=400)
    interval = statistics.cluster_bootstrap(values, [range(400)])
    half = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_bootstrap_is_as_wide_as_its_clusters_not_its_episodes():
    tasks = np.repeat(np.arange(8), 50)
    solved = tasks % 2 == 0  # a task is solved always or never: eight observations, not four hundred
    clustered = statistics.cluster_bootstrap(solved, [tasks])
    naive = statistics.wilson(int(solved.sum()), solved.size)
    assert clustered.high - clustered.low > 3 * (naive.high - naive.low)


def test_bootstrap_covers_both_crossed_factors():
    seeds, tasks = np.repeat(np.arange(6), 10), np.tile(np.arange(10), 6)
    by_seed = seeds / 5
    both = statistics.cluster_bootstrap(by_seed, [seeds, tasks])
    tasks_alone = statistics.cluster_bootstrap(by_seed, [np.zeros(60), tasks])
    assert tasks_alone.high - tasks_alone.low == pytest.approx(0, abs=1e-12)
    assert both.high - both.low > 0.3


def test_bootstrap_is_reproducible_and_survives_absent_cells():
    values, seeds, tasks = [1, 0, 1], [0, 0, 1], ["a", "b", "b"]
    first = statistics.cluster_bootstrap(values, [seeds, tasks])
    assert first == statistics.cluster_bootstrap(values, [seeds, tasks])
    assert 0 <= first.low <= first.high <= 1


def test_bootstrap_refuses_a_single_cluster():
    with pytest.raises(ValueError, match="single cluster"):
        statistics.cluster_bootstrap(np.ones(5), [[0] * 5, ["a"] * 5])


@pytest.mark.parametrize(("p", "q", "n"), [(0.9, 0.8, 199), (0.825, 0.908, 263), (0.9, 0.85, 686)])
def test_episodes_needed_known_values(p, q, n):
    assert statistics.episodes_needed(p, q) == n
    assert statistics.episodes_needed(q, p) == n


def test_pairs_needed_finds_the_gain_at_the_promised_rate():
    gain, discordant = 0.15, 0.35
    n = statistics.pairs_needed(gain, discordant)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(n, [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant], size=400)
    found = np.mean([stats.binomtest(int(b), int(b + c)).pvalue < 0.05 for b, c, _ in draws])
    assert 0.7 < found < 0.9


def test_power_note_names_the_smallest_gain():
    assert "gain of 10 points or more over a success rate of 80 %" in statistics.power_note(199, 0.8)
    assert "gain of 11 points or more" in statistics.power_note(198, 0.8)
    assert "cannot detect any gain" in statistics.power_note(3, 0.9)


def test_steps_to_threshold():
    assert statistics.steps_to_threshold([0, 1, 3, 10], [0.1, 0.5, 0.4, 0.9], 0.5) == 1
    assert statistics.steps_to_threshold([10, 3], [0.9, 0.9], 0.5) == 3
    assert statistics.steps_to_threshold([0, 1], [0.1, 0.2], 0.5) is None
