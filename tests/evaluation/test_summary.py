"""The report's numbers against hand counts."""

import dataclasses

import pytest

from metalora_jax.evaluation.reports import contrasts, statistics
from metalora_jax.evaluation.reports.records import Episode
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.summary import summarise
from tests.evaluation.made_up_episodes import episode, only_section, row, traded


def test_point_by_hand():
    episodes = row("meta", "1110") + row("meta", "00", task="drawer")
    episodes += [episode(success=False, task="drawer", episode_seed=9, error="broke")]
    (point,) = only_section(episodes).points
    assert (point.n, point.successes, point.errors, point.success) == (7, 3, 1, 3 / 7)
    assert point.wilson == statistics.wilson(3, 7)
    assert point.clustered.low <= point.success <= point.clustered.high


def test_returns_decide_nothing():
    # An episode ends at success: a fast success can have a lower return than a slow failure.
    low, high = row("meta", "10", episode_return=1.0), row("meta", "10", episode_return=9.0)
    assert summarise(low) == summarise(high)


def test_one_cluster_has_no_clustered_interval_and_says_so():
    result = summarise(row("meta", "110"))
    assert result.sections[0].points[0].clustered is None
    assert any("only one meta-seed" in caution for caution in result.cautions)
    assert any("3 episodes per arm" in caution for caution in result.cautions)


def test_comparison_is_paired_whatever_the_order_of_the_log():
    meta, base = row("meta", "11110010"), row("base", "10000110")
    expected = statistics.Paired(pairs=8, wins=3, losses=1, p=0.625)  # 2 (1 + 4) / 2^4
    for episodes in (meta + base, meta[::-1] + base, base[::2] + meta + base[1::2]):
        points = {point.method: point for point in only_section(episodes, reference="base").points}
        assert points["meta"].versus == expected
        assert points["base"].versus is None


@pytest.mark.parametrize("field", ["task", "condition", "draw", "episode_seed", "meta_seed"])
def test_comparison_needs_the_same_episodes(field):
    other = {"task": "drawer", "condition": {"latency": 1}, "draw": 1, "episode_seed": 1, "meta_seed": 1}[field]
    episodes = [episode("meta"), episode("base", **{field: other})]
    result = summarise(episodes, Settings(reference="base"))
    (point,) = (point for point in result.sections[0].points if point.method == "meta")
    assert point.versus is None
    assert point.p_holm is None
    assert "unpaired episodes" in point.unpaired
    assert any("not compared: unpaired episodes" in caution for caution in result.cautions)


def test_holm_spans_the_methods_of_one_column():
    episodes = row("base", "0" * 8) + row("a", "1" * 8) + row("b", "1" * 6 + "00") + row("c", "1" * 8, steps=20)
    episodes += row("base", "0" * 8, steps=20)
    points = {point.method: point for point in only_section(episodes, reference="base").points if point.versus}
    assert points["a"].p_holm == pytest.approx(2 * 2 / 2**8)
    assert points["b"].p_holm == pytest.approx(2 / 2**6)
    assert points["c"].p_holm == pytest.approx(2 / 2**8)


def test_zero_shots_start_every_curve_that_has_no_start_of_its_own():
    episodes = row("meta", "0000", shots=0, steps=0) + row("meta", "1100") + row("meta", "1000", shots=1)
    episodes += row("meta", "1111", shots=1, steps=0)
    section = only_section(episodes)
    assert section.shots == [1, 5]
    assert [(p.steps, p.success) for p in section.curve("meta", 5)] == [(0, 0.0), (10, 0.5)]
    assert [(p.steps, p.success) for p in section.curve("meta", 1)] == [(0, 1.0), (10, 0.25)]
    assert [(p.shots, p.success) for p in section.shots_curve("meta")] == [(0, 0.0), (1, 0.25), (5, 0.5)]


def test_shots_figure_takes_the_most_steps_that_all_share():
    episodes = [episode(m, steps=k) for m, k in [("a", 1), ("a", 10), ("a", 30), ("b", 1), ("b", 10)]]
    assert only_section(episodes).shots_steps == 10
    assert only_section(episodes, steps=1).shots_steps == 1
    with pytest.raises(ValueError, match=r"report\.steps is 7, not measured"):
        only_section(episodes, steps=7)


def test_thresholds_by_estimate_and_by_lower_bound():
    episodes = row("meta", "1" * 6 + "0" * 4, steps=1) + row("meta", "1" * 10, steps=3)
    (found,) = only_section(episodes, thresholds=(0.5,)).thresholds
    assert (found.steps, found.steps_by_lower_bound) == (1, 3)  # 6 of 10 is 31 to 83 %, 10 of 10 is 72 to 100 %


def test_each_adaptation_counts_once_in_the_wall_clock():
    episodes = row("meta", "1111", adapt_seconds=1.0) + row("meta", "1", draw=1, adapt_seconds=3.0)
    episodes += row("meta", "1", draw=2, adapt_seconds=8.0)
    (clock,) = only_section(episodes).wall_clock
    assert (clock.n, clock.median, clock.low, clock.high) == (3, 3.0, 1.0, 8.0)


def test_retention_pairs_on_with_off_by_start_alone():
    on = row("meta", "0011", split="base") + row("meta", "0111", split="base", draw=1)
    off = row("none", "1110", split="base", shots=0, steps=0, adapter_on=False)
    (kept,) = summarise(on + off).retention
    assert (kept.n, kept.on, kept.off) == (8, 5 / 8, 6 / 8)
    assert (kept.versus.wins, kept.versus.losses) == (2, 3)
    assert summarise(on + off).sections == ()


def test_what_adapting_kept():
    on, off = row("meta", "0011", split="base"), row("base", "1110", split="base", shots=0, steps=0, adapter_on=False)
    assert summarise(on + off).retention[0].kept == pytest.approx(2 / 3)
    never = [dataclasses.replace(e, success=False) for e in off]
    assert summarise(on + never).retention[0].kept is None


def test_retention_on_the_new_tasks_themselves_is_no_retention():
    on, off = row("meta", "01", split="base"), row("base", "01", split="base", shots=0, steps=0, adapter_on=False)
    said = "measured on some of the new tasks themselves"
    assert any(said in caution for caution in summarise(row("meta", "01") + on + off).cautions)
    assert not any(said in c for c in summarise(row("meta", "01", task="drawer") + on + off).cautions)


def test_wrong_instruction_pairs_with_the_own_one():
    own, told = row("meta", "1110"), row("meta", "0011", told="close the door")
    elsewhere = row("meta", "0000", draw=1) + row("meta", "0000", steps=3) + row("lora", "0000")
    result = summarise(elsewhere + told + own)
    (misled,) = result.wrong_instruction
    assert (misled.n, misled.wrong, misled.own) == (4, 2 / 4, 3 / 4)
    assert (misled.versus.wins, misled.versus.losses) == (1, 2)
    (point,) = (p for p in result.sections[0].points if (p.method, p.steps) == ("meta", 10))
    assert (point.n, point.successes) == (8, 3)  # what it does when it is told another task is no success of the method


def test_wrong_instruction_without_partners_says_so():
    result = summarise(row("meta", "11") + row("meta", "001", told="close the door"))
    assert result.wrong_instruction[0].own is None
    assert any("1 of 3 episodes have no counterpart with the task's own" in caution for caution in result.cautions)


def test_demonstrations_to_reach_a_rate():
    episodes = row("meta", "1" * 3 + "0" * 7, shots=1, steps=0) + row("meta", "1" * 6 + "0" * 4, shots=1)
    episodes += row("meta", "1" * 10, shots=3) + row("base", "0" * 10, shots=0, steps=0)
    found = only_section(episodes, thresholds=(0.3, 0.5)).sample_efficiency
    assert [(row.method, row.threshold, row.shots, row.shots_by_lower_bound) for row in found] == [
        ("meta", 0.3, 0, 1),
        ("meta", 0.5, 1, 3),
    ]


def test_an_adapter_that_took_no_step_stands_for_zero_demonstrations():
    section = only_section(row("meta", "10", shots=1, steps=0) + row("meta", "11", shots=1))
    assert [(p.shots, p.success) for p in section.shots_curve("meta")] == [(0, 0.5), (1, 1.0)]


def test_power_of_the_paired_test():
    n = 120
    meta, lora = row("meta", "1" * 90 + "0" * 30), row("lora", "1" * 60 + "0" * 60)
    head = row("head", "1" * 90 + "0" * 30)
    (told, none) = sorted(
        only_section(meta + lora + head, reference="meta").power, key=lambda row: row.method, reverse=True
    )
    assert (told.pairs, told.discordant, told.alpha, told.observed) == (n, 30 / n, 0.05 / 2, -30 / n)
    assert told.needed == statistics.pairs_needed(0.25, 0.25, alpha=0.025)
    assert told.gain == statistics.smallest_gain(n, 0.25, alpha=0.025)
    assert statistics.pairs_needed(told.gain, 0.25, alpha=0.025) <= n
    assert statistics.pairs_needed(told.gain - 0.01, 0.25, alpha=0.025) > n
    assert (none.discordant, none.observed, none.needed) == (0.0, 0.0, None)
    assert 0 < none.gain < told.gain  # where the methods agree, few differences are enough


def test_power_with_few_pairs():
    assert statistics.smallest_gain(3, 0.5) is None
    gains = [statistics.smallest_gain(n, 0.3) for n in (50, 200, 1000)]
    assert gains == sorted(gains, reverse=True)


@pytest.mark.parametrize(
    ("off", "message"),
    [
        (row("none", "11", split="base", adapter_on=False), "2 of 4 episodes have no counterpart"),
        (
            row("none", "1111", split="base", adapter_on=False) + row("x", "0", split="base", adapter_on=False),
            "the policy's noise is not seeded",
        ),
    ],
)
def test_retention_without_fair_pairs_says_why(off, message):
    result = summarise(row("meta", "0011", split="base") + off)
    assert result.retention[0].versus is None
    assert any(message in caution for caution in result.cautions)


def test_unknown_settings_and_reference_are_refused():
    with pytest.raises(ValueError, match=r"unknown report settings \['tresholds'\]"):
        Settings.from_json({"tresholds": [0.5]})
    with pytest.raises(ValueError, match="'base' has no episodes; choose from"):
        summarise([episode()], Settings(reference="base"))
    with pytest.raises(ValueError, match="no episodes"):
        summarise([])


def test_pair_key_separates_conditions():
    keys = {contrasts.pair_key(episode(condition=c)) for c in ({}, {"latency": 1}, {"latency": 2})}
    assert len(keys) == 3


def copied(method, outcomes, seeds=(0, 1, 2), **fields) -> list[Episode]:
    """The same episodes, to the last digit, for every meta-seed."""
    lengths = dict(enumerate((50, 61, 70, 42)))
    return [
        dataclasses.replace(each, meta_seed=seed, length=lengths[each.episode_seed])
        for seed in seeds
        for each in row(method, outcomes, **fields)
    ]


def test_meta_seeds_that_repeat_each_other_count_once():
    meta = [e for seed, won in enumerate(("1110", "1111", "0111")) for e in row("meta", won, meta_seed=seed)]
    section = only_section([*meta, *copied("full", "0100")], reference="meta")
    full, varied = (next(p for p in section.points if p.method == name) for name in ("full", "meta"))
    assert (full.n, full.successes, full.copies) == (4, 1, 2)
    assert (varied.n, varied.copies) == (12, 0)
    assert full.versus.pairs == 4  # not 12: copies of a seed are no further pairs
    assert (full.versus.wins, full.versus.losses) == (0, 2)


def test_a_reference_that_repeats_itself_counts_once_too():
    meta = [e for seed, won in enumerate(("1110", "1111", "0111")) for e in row("meta", won, meta_seed=seed)]
    section = only_section([*meta, *copied("full", "0100")], reference="full")
    [point] = [p for p in section.points if p.method == "meta"]
    assert (point.n, point.versus.pairs) == (12, 4)


def test_equal_failures_are_no_copies():
    section = only_section([e for seed in range(3) for e in row("meta", "0000", meta_seed=seed)])
    assert section.points[0].n == 12


def test_copies_are_said():
    summary = summarise(copied("full", "0100", distribution="conditions"), Settings())
    assert any("meta-seeds of full repeat each other" in caution for caution in summary.cautions)
    assert summary.episodes == 12  # all that was recorded


def test_replaced_inputs_stand_beside_the_same_episodes_as_they_are():
    plain = row("meta", "1111")
    noise = [dataclasses.replace(e, altered="noise", success=i == 0) for i, e in enumerate(plain)]
    silent = [dataclasses.replace(e, altered="no_words", told="", success=False) for e in plain]
    result = summarise([*plain, *noise, *silent], Settings())
    assert [(r.altered, r.n, r.success, r.own, r.versus.losses) for r in result.alterations] == [
        *(("noise", 4, 0.25, 1.0, 3), ("no_words", 4, 0.0, 1.0, 4))
    ]
    assert result.sections[0].points[0].n == 4  # nothing else counts them
    assert result.wrong_instruction == ()
    assert any("meta hardly looks" in caution for caution in result.cautions)


def test_a_policy_that_looks_is_not_blamed():
    plain = row("meta", "1111111111")
    noise = [dataclasses.replace(e, altered="noise", success=i < 2) for i, e in enumerate(plain)]
    assert not any("hardly looks" in caution for caution in summarise([*plain, *noise], Settings()).cautions)


def levelled() -> list[Episode]:
    """Three seeds of a method that steps, and one run of one that does not."""
    meta = [
        e for seed in range(3) for k, won in ((0, "000"), (3, "011")) for e in row("meta", won, steps=k, meta_seed=seed)
    ]
    return meta + [dataclasses.replace(e, identified="yaw") for e in row("yaw", "110", steps=0)]


def test_a_method_that_takes_no_steps_is_a_level_beside_every_number_of_them():
    section = only_section(levelled(), reference="meta")
    points = [p for p in section.points if p.method == "yaw"]
    assert [(p.steps, p.level, p.n, p.successes) for p in points] == [(0, True, 3, 2), (3, True, 3, 2)]
    assert [(p.versus.pairs, p.versus.wins, p.versus.losses) for p in points] == [(3, 2, 0), (3, 1, 1)]  # not 9 pairs
    assert all(not p.level for p in section.points if p.method == "meta")
    assert section.curve("yaw", 5) == points
    assert [p.shots for p in section.shots_curve("yaw")] == [5]  # it is nothing without a demonstration


def test_holm_spans_levels_too():
    section = only_section(levelled() + row("lora", "000", steps=3), reference="meta")
    assert {p.method for p in section.points if p.steps == 3 and p.p_holm is not None} == {"yaw", "lora"}


def test_what_scaling_gains_and_keeps():
    result = summarise(traded())
    found = [(r.method, r.scale, r.new.success, r.earlier.success, r.base) for r in result.frontier.rows]
    assert found == [
        ("base", 0.0, 1 / 2, 3 / 4, 3 / 4),
        ("meta", 0.5, 1 / 2, 2 / 4, 3 / 4),
        ("meta", 1.0, 1.0, 1 / 4, 3 / 4),
    ]
    assert [r.kept for r in result.frontier.rows] == pytest.approx([1, 2 / 3, 1 / 3])
    assert [(r.n, r.on) for r in result.retention] == [(4, 1 / 4)]
    (point,) = (p for p in result.sections[0].points if p.method == "meta")
    assert (point.n, point.successes) == (2, 2)
    assert summarise([e for e in traded() if e.scale is None and not e.gated]).frontier.rows == ()


@pytest.mark.parametrize(("commands", "equal"), [("ab", 2), ("ax", 1), ((None, "b"), 1)])
def test_a_gate_is_exact_where_every_command_is_the_base_s(commands, equal):
    result = summarise(traded(commands))
    (gate,) = result.frontier.gates
    assert (gate.n, gate.equal, gate.exact) == (2, equal, equal == 2)
    said = "in 1 of 2 episodes on earlier tasks meta is not what the base alone is: retention is not exact"
    assert any(said in caution for caution in result.cautions) is not gate.exact


def test_copies_of_the_adapted_policy_are_none_of_the_scaled_one():
    whole = [e for split in ("test", "base") for e in copied("meta", "1101", seeds=(0, 1), split=split)]
    scaled = [dataclasses.replace(e, scale=0.5, length=e.length + e.meta_seed) for e in whole]
    found = {row.scale: (row.new.n, row.earlier.n) for row in summarise(whole + scaled).frontier.rows}
    assert found == {0.5: (8, 8), 1.0: (4, 4)}
