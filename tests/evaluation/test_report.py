"""The report's numbers against hand counts, and its files against what a reader needs of them."""

import dataclasses
import hashlib
import html.parser
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metalora_jax.evaluation.reports import document, figures, provenance, statistics, summary, tables
from metalora_jax.evaluation.reports.provenance import Inputs
from metalora_jax.evaluation.reports.records import Episode, to_line
from metalora_jax.evaluation.reports.report import write_report
from metalora_jax.evaluation.reports.summary import Settings, summarise


def episode(method="meta", success=True, shots=5, steps=10, **fields) -> Episode:
    known = {
        "meta_seed": 0,
        "distribution": "tasks",
        "split": "test",
        "task": "door",
        "condition": {},
        "draw": 0,
        "episode_seed": 0,
        "episode_return": 1.0,
        "length": 50,
        "adapt_seconds": 2.0,
        "support_loss": None,
        "fingerprint": "abc",
        "error": None,
    }
    return Episode(method=method, success=success, shots=shots, steps=steps, **known | fields)


def row(method, outcomes, **fields) -> list[Episode]:
    """One episode for each letter of `outcomes`: 1 solved, 0 not."""
    return [episode(method, o == "1", episode_seed=i, **fields) for i, o in enumerate(outcomes)]


def only_section(episodes, **settings):
    (section,) = summarise(episodes, Settings(**settings)).sections
    return section


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


def test_tables_show_what_the_estimate_and_what_the_lower_bound_reach():
    episodes = row("meta", "1" * 6 + "0" * 4, shots=1, steps=1) + row("meta", "1" * 10, shots=3, steps=1)
    episodes += row("meta", "1" * 10, shots=3, steps=3) + row("meta", "1" * 6 + "0" * 4, shots=1, steps=3)
    settings = Settings(thresholds=(0.5, 0.8))
    (section,) = summarise(episodes, settings).sections
    table = tables.threshold_table(section, settings)
    assert table.header == ["", "50 %, 1 demo", "50 %, 3 demos", "80 %, 1 demo", "80 %, 3 demos"]
    assert table.rows == [
        ["meta", "1\nlower bound: not reached", "1\nlower bound: 1", "not reached", "1\nlower bound: not reached"]
    ]
    assert tables.efficiency_table(section, settings).rows == [
        ["meta", "1\nlower bound: 3", "3\nlower bound: not reached"]
    ]


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


def test_groups_have_figures_of_their_own():
    episodes = [e for m in ("meta", "a", "b", "c") for k in (1, 3) for e in row(m, "10", steps=k)]
    section = only_section(episodes)
    groups = {"rank, alpha": ["meta", "a"], "where": ["meta", "b"], "nobody": ["z"]}
    drawn = figures.section_figures(section, Settings(groups=groups))
    assert set(drawn) == {
        f"success_vs_{axis}_tasks_test_{group}.png" for axis in ("steps", "shots") for group in ("rank-alpha", "where")
    }
    (axes,) = drawn["success_vs_steps_tasks_test_where.png"].axes
    assert {text.get_text() for text in axes.texts} == {"meta", "b"}


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


def test_spread_keeps_order_gap_and_bounds():
    assert figures.spread([10, 50, 90], 5, 0, 100) == [10, 50, 90]
    assert figures.spread([50, 50], 10, 0, 100) == [55, 45]
    assert figures.spread([100, 99, 98], 10, 0, 100) == [100, 90, 80]
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.uniform(0, 100, 8)
        placed = np.array(figures.spread(list(values), 10, 0, 100))
        assert np.array_equal(np.argsort(values), np.argsort(placed))
        assert np.diff(np.sort(placed)).min() > 10 - 1e-9
        assert placed.min() >= -1e-9
        assert placed.max() <= 100 + 1e-9


def test_figures_show_the_numbers_and_name_every_method():
    steps = (0, 1, 10)
    episodes = [e for k in steps for e in row("meta", "1" * (k + 2) + "0" * (12 - k), steps=k)]
    episodes += row("base", "1000", steps=1)  # stops early: still labelled
    section = only_section(episodes, reference="base")
    figure = figures.success_vs_steps(section, Settings(reference="base", labels={"meta": "Meta <b>"}))
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"Meta <b>", "base"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "10"]
    heights = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 3]
    np.testing.assert_allclose(heights[0], [100 * 2 / 14, 100 * 3 / 14, 100 * 12 / 14])


def pin(path, config, **fields) -> str:
    """Writes a line of provenance for the run at `path`; the fingerprint that its episodes are to carry."""
    digests = {name: name * 8 for name in ("code", "base", "statistics")}
    known = {"config": provenance.digest(config), "source": "package", "data": {"test": "7" * 64}, "libraries": {}}
    line = {"commit": "c" * 40, "changed": []} | {k: fields.pop(k) for k in ("commit", "changed") if k in fields}
    inputs = Inputs(**digests | known | fields)
    line |= {"fingerprint": inputs.fingerprint, "inputs": inputs._asdict()}
    with open(path / provenance.FILE, "a") as file:
        file.write(json.dumps(line) + "\n")
    return inputs.fingerprint


def run_directory(path, config=None) -> list[Episode]:
    path.mkdir()
    mark = pin(path, config or {})
    rng = np.random.default_rng(0)
    episodes = [
        episode(m, bool(rng.random() < p + 0.02 * k), shots, k, task=t, meta_seed=s, episode_seed=i)
        for (m, p), s, t, (shots, k), i in itertools.product(
            [("meta <1>", 0.4), ("base|x", 0.2)],
            (0, 1),
            ("door", "drawer"),
            [(0, 0), (1, 1), (1, 10), (5, 1), (5, 10)],
            (0, 1),
        )
    ]
    episodes += row("meta <1>", "01", split="base") + row("meta <1>", "11", split="base", adapter_on=False)
    told = row("meta <1>", "00", shots=1, steps=10, meta_seed=0, task="door", told="close the door")
    episodes = [dataclasses.replace(e, fingerprint=mark) for e in episodes + told]
    (path / "episodes.jsonl").write_text("".join(map(to_line, episodes)))
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return episodes


class Balanced(html.parser.HTMLParser):
    """Fails on a tag that is closed out of order, and gathers what the page would load or link."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        self.sources += [value for key, value in attrs if key == "src"]
        self.links += [value for key, value in attrs if key == "href"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_recomputes_from_the_records_and_stands_alone(tmp_path):
    run = tmp_path / "run"
    config = {"lr": 0.1, "report": {"title": "A & B", "reference": "base|x", "thresholds": [0.3]}}
    episodes = run_directory(run, config)
    (run / "videos" / "meta").mkdir(parents=True)
    (run / "videos" / "meta" / "door 1.mp4").write_bytes(b"")
    index = write_report(run)
    assert index == run / "report" / "index.html"

    numbers = json.loads((run / "report" / "summary.json").read_text())
    assert numbers["logs"] == {"episodes.jsonl": hashlib.sha256((run / "episodes.jsonl").read_bytes()).hexdigest()}
    expected = dataclasses.asdict(summarise(episodes, Settings.from_json(config["report"])))
    assert numbers["unpinned"] == []
    assert {k: v for k, v in numbers.items() if k not in ("logs", "unpinned")} == json.loads(json.dumps(expected))

    page = Balanced()
    page.feed(index.read_text())
    assert page.open == []
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.links == ["../videos/meta/door%201.mp4"]
    assert "meta &lt;1&gt;" in index.read_text()
    assert "<1>" not in index.read_text()

    markdown = (run / "report" / "report.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", markdown)
    assert len(pictures) == 2
    assert all((run / "report" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert "Lower bound: the smallest one for which the lower end of the 95 % Wilson interval" in markdown
    (point,) = (
        c for c in summarise(episodes).sections[0].points if (c.method, c.shots, c.steps) == ("meta <1>", 5, 10)
    )
    interval = statistics.wilson(point.successes, 8)
    assert (
        f"{100 * point.successes / 8:.0f} %<br>{100 * interval.low:.0f} to {100 * interval.high:.0f} %, n 8" in markdown
    )


def test_report_is_the_same_twice(tmp_path):
    run_directory(tmp_path / "run")
    before = write_report(tmp_path / "run").read_bytes()
    assert write_report(tmp_path / "run").read_bytes() == before


def test_report_without_config_takes_the_reference_given(tmp_path):
    run_directory(tmp_path / "run")
    assert "exact McNemar test" in write_report(tmp_path / "run", reference="base|x").read_text()
    assert "exact McNemar test" not in write_report(tmp_path / "run").read_text()
    with pytest.raises(ValueError, match="'nobody' has no episodes"):
        write_report(tmp_path / "run", reference="nobody")


def test_a_run_that_is_not_pinned_gives_a_draft_at_most(tmp_path):
    run = tmp_path / "run"
    run_directory(run)
    (run / "config.json").write_text(json.dumps({"lr": 0.2}))  # not the one it was run with
    with pytest.raises(provenance.Unpinned, match=r"not pinned \(config\.json is not .*\); --draft writes"):
        write_report(run)
    assert not (run / "report").exists()
    assert "DRAFT, not to be cited: config.json is not the config" in write_report(run, draft=True).read_text()
    assert json.loads((run / "report" / "summary.json").read_text())["unpinned"] != []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: not JSON"),
        ("[]", "must be JSON objects"),
        ('{"report": {"thresholds": [50]}}', "success rates"),
    ],
)
def test_a_bad_config_is_refused_by_name(tmp_path, text, message):
    run_directory(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "run")


def test_markdown_tables_survive_hostile_names():
    text = document.to_markdown([document.Table(["a", "b"], [["x|y", "1\n2"], ["_z_<b>", "3"]])])
    assert text.splitlines()[2:] == [r"| x\|y | 1<br>2 |", r"| \_z\_&lt;b&gt; | 3 |"]


def test_pair_key_separates_conditions():
    keys = {summary.pair_key(episode(condition=c)) for c in ({}, {"latency": 1}, {"latency": 2})}
    assert len(keys) == 3


def test_the_report_needs_no_jax():
    code = "import sys; import metalora_jax.evaluation.reports.report; sys.exit('jax' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=120).returncode == 0
