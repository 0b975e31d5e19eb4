"""The report's tables, figures and files against what a reader needs of them."""

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

from metalora_jax.evaluation.reports import document, figures, provenance, statistics, tables
from metalora_jax.evaluation.reports.provenance import Inputs
from metalora_jax.evaluation.reports.records import Episode, to_line
from metalora_jax.evaluation.reports.report import write_report
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.summary import summarise
from tests.evaluation.made_up_episodes import episode, only_section, row, traded


def test_tables_show_what_the_estimate_and_what_the_lower_bound_reach():
    episodes = row("meta", "1" * 6 + "0" * 4, shots=1, steps=1) + row("meta", "1" * 10, shots=3, steps=1)
    episodes += row("meta", "1" * 10, shots=3, steps=3) + row("meta", "1" * 6 + "0" * 4, shots=1, steps=3)
    episodes += row("base", "0" * 10, shots=0, steps=0)  # never adapted: no row in the first table
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


@pytest.mark.parametrize(("partners", "said"), [("110", False), ("11", True)])
def test_the_report_says_what_not_paired_means_where_an_entry_is(tmp_path, partners, said):
    episodes = row("meta", "011") + row("lora", partners) + row("base", "000", shots=0, steps=0)
    (tmp_path / "episodes.jsonl").write_text(
        "".join(to_line(dataclasses.replace(e, fingerprint=pin(tmp_path, {}, adapter=e.method))) for e in episodes)
    )
    (tmp_path / "config.json").write_text("{}")
    write_report(tmp_path, reference="meta")
    assert ("Not paired: the two methods" in (tmp_path / "report" / "report.md").read_text()) is said


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
    marks = {method: pin(path, config or {}, adapter=method) for method in ("meta <1>", "base|x")}
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
    episodes = [dataclasses.replace(e, fingerprint=marks[e.method]) for e in episodes + told]
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
    assert "exact McNemar test over pairs" in write_report(tmp_path / "run", reference="base|x").read_text()
    assert "exact McNemar test over pairs" not in write_report(tmp_path / "run").read_text()
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


def test_the_report_needs_no_jax():
    code = "import sys; import metalora_jax.evaluation.reports.report; sys.exit('jax' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=120).returncode == 0


def test_a_level_is_marked_in_table_figure_and_text(tmp_path):
    episodes = [e for k in (0, 1, 3) for e in row("meta", "0011", steps=k)]
    episodes += [dataclasses.replace(e, identified="yaw") for e in row("yaw", "1110", steps=0)]
    settings = Settings(reference="meta", steps=3, labels={"yaw": "Identified yaw"})
    (section,) = summarise(episodes, settings).sections
    first = {row[0]: row[1:] for row in tables.success_table(section, 5, settings).rows}
    marked = first["Identified yaw\nno gradient steps: one result"]
    assert all(cell.startswith("75 %") and "n 4" in cell for cell in marked)
    assert "meta" in first
    axes = figures.success_vs_steps(section, settings).axes[0]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [set(line.get_ydata()) for line in dashed] == [{75.0}]
    config = {"report": {"reference": "meta", "steps": 3}}
    marks = {name: pin(tmp_path, config, adapter=name) for name in ("meta", "yaw")}
    lines = [to_line(dataclasses.replace(e, fingerprint=marks[e.method])) for e in episodes]
    (tmp_path / "episodes.jsonl").write_text("".join(lines))
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_report(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "yaw solves 75 % (30 to 95 %) without any gradient step on 5 demonstrations" in text
    assert "No gradient steps: yaw fits a map of the frozen base's commands, or a calibration of its joints" in text


def test_the_frontier_shows_every_scale_and_where_gating_is_exact():
    settings = Settings(labels={"meta": "Meta"})
    for commands, exact in (("ab", True), ("ax", False)):
        found = summarise(traded(commands), settings).frontier
        scales = [row[4] for row in tables.frontier_table(found, settings).rows]
        assert scales == ["0", "0.5", "1", *(["1, gated"] if exact else [])]
        ((name, figure),) = figures.frontier_figures(found, settings).items()
        assert name == "frontier_tasks_5_shot_10_steps.png"
        axes = figure.axes[0]
        assert {text.get_text() for text in axes.texts} == {"0.5", "1", "Meta"}
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
        assert [line.get_xydata().tolist() for line in hollow] == ([[[75.0, 100.0]]] if exact else [])
