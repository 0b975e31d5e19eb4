"""The search for rates: success first, grids widened to where the best lies inside, nothing tried twice."""

import dataclasses
import json

import numpy as np
import pytest

from metalora_jax.evaluation.protocol import search
from metalora_jax.evaluation.protocol.arms import Arm, Choice
from metalora_jax.evaluation.protocol.few_shot import DataSet
from metalora_jax.evaluation.protocol.search import Search, Tried, best, beyond, check_starts
from metalora_jax.evaluation.reports import rates
from metalora_jax.evaluation.reports.document import Table, to_markdown
from metalora_jax.evaluation.reports.settings import Settings
from tests.evaluation.fake_world import make_world
from tests.evaluation.test_few_shot import PROTOCOL, lay_out

GRID = {"sgd": (1.0,), "adam": (0.01, 0.03, 0.1)}


@dataclasses.dataclass
class Learner:
    theta: dict


def tried(rate, success=None, loss: float | None = 1.0, optimizer="adam") -> Tried:
    return Tried(optimizer, rate, loss, success, 0 if success is None else 10)


def test_success_decides_and_the_loss_where_it_is_the_same():
    assert best([tried(0.01, 0.5, 0.1), tried(0.03, 0.6, 0.9)], "lora").learning_rate == 0.03
    assert best([tried(0.01, 0.6, 0.9), tried(0.03, 0.6, 0.1)], "lora").learning_rate == 0.03
    assert best([tried(0.01, loss=0.2), tried(0.03, loss=0.1)], "lora").learning_rate == 0.03
    assert best([tried(0.01, 0.1), tried(0.03, 0.9, None)], "lora").learning_rate == 0.01
    with pytest.raises(ValueError, match=r"every inner rate diverges for lora: .*; search lower rates"):
        best([tried(0.01, 0.0, None)], "lora")


def test_nothing_done_is_no_success():
    still = tried(0.01, 0.9)._replace(moves=False)
    assert best([still, tried(0.03, 0.1)], "lora").learning_rate == 0.03
    with pytest.raises(ValueError, match=r"no inner rate moves the adapters of lora \(adam 0\.01\), so that nothing"):
        best([still, tried(0.1, 0.0, None)], "lora")


def test_a_grid_is_widened_beyond_the_edge_where_the_best_lies():
    grid = [tried(rate) for rate in (0.01, 0.03, 0.1)] + [tried(1.0, optimizer="sgd")]
    assert beyond(grid[1], grid) == []
    assert beyond(grid[0], grid) == [Choice("adam", 0.00333)]
    assert beyond(grid[2], grid) == [Choice("adam", 0.333)]
    assert beyond(grid[3], grid) == [Choice("sgd", 0.316), Choice("sgd", 3.16)]


def run(monkeypatch, peak, widenings, known=None):
    """Searches where success falls with the distance from a rate of Adam; what was judged, and what was kept."""
    judged, kept = [], []

    def judge(batch, how):
        judged.extend(each.choice for each in batch)
        off = [abs(np.log(each.choice.learning_rate / peak)) + 10 * (each.choice.optimizer == "sgd") for each in batch]
        return [Tried(*each.choice, 1.0, float(np.exp(-d)), 4) for each, d in zip(batch, off, strict=True)]

    monkeypatch.setattr(search, "_judged", judge)
    arm = Arm("lora", 0, Learner({"a": np.zeros(2, np.float32)}), (), {"theta": {}}, None)
    protocol = PROTOCOL._replace(search_episodes=1, search_widenings=widenings)
    how = Search(None, GRID, DataSet(None, {}, {1: lay_out(split="validation")}, ""), protocol)
    found = search.search([arm], how, known or {}, lambda record: kept.append(json.dumps(record)))
    return found, judged, kept


def test_a_search_ends_where_the_best_lies_inside(monkeypatch):
    found, judged, _ = run(monkeypatch, peak=0.9, widenings=6)
    assert [choice.learning_rate for choice in judged[4:]] == [0.333, 1.11, 3.7]
    assert search.chosen(found, "lora") == {"short": Choice("adam", 1.11)}
    found, judged, _ = run(monkeypatch, peak=0.03, widenings=6)
    assert len(judged) == 4
    assert search.chosen(found, "lora") == {"short": Choice("adam", 0.03)}


def test_a_search_has_a_bound(monkeypatch):
    found, judged, _ = run(monkeypatch, peak=1e6, widenings=2)
    assert search.chosen(found, "lora") == {"short": Choice("adam", max(c.learning_rate for c in judged))}
    assert len(judged) == 6
    _, judged, _ = run(monkeypatch, peak=1e6, widenings=0)
    assert len(judged) == 4


def test_an_interrupted_search_goes_on_where_it_was(monkeypatch, tmp_path):
    whole, judged, kept = run(monkeypatch, peak=0.9, widenings=6)
    assert len(kept) == 4
    for text in kept:
        halfway = {
            name: {b: [Tried(*t) for t in some] for b, some in of.items()} for name, of in json.loads(text).items()
        }
        search.write(tmp_path / "search.json", halfway)
        again, left, _ = run(monkeypatch, 0.9, 6, search.read(tmp_path / "search.json"))
        assert again == whole
        assert len(left) == len(judged) - len(halfway["lora"]["short"])


def test_validation_starts_no_episode_of_the_test():
    protocol = PROTOCOL._replace(search_episodes=2)
    world = make_world({"push": "push it", "reach": "reach it"})
    cells = lay_out(split="validation"), lay_out()
    check_starts(*cells, protocol, world)
    few = world._replace(episode_start=lambda task, draw, number: (10 * draw + number) % 50)
    with pytest.raises(ValueError, match="would both start episode 0 of push: choose other validation tasks"):
        check_starts(*cells, protocol, few)


def test_a_report_says_how_rates_were_chosen_and_which_lie_at_an_edge(tmp_path):
    record = {
        "meta": {"short": [tried(0.3, 0.5, optimizer="learned"), tried(1.0, 0.7, optimizer="learned")]},
        "lora": {"short": [tried(0.01, 0.2), tried(0.03, 0.6), tried(0.1, 0.4)]},
        "identify_yaw": {},
    }
    search.write(tmp_path / rates.FILE, record)
    chosen = {name: {b: c._asdict() for b, c in search.chosen(record, name).items()} for name in record}
    (tmp_path / "rates.json").write_text(json.dumps(chosen))
    rows = rates.read(tmp_path)
    assert [(row.method, row.learning_rate, row.edge) for row in rows] == [
        ("meta", 1.0, "largest"),
        ("lora", 0.03, None),
    ]
    [said] = rates.cautions(rows, 4)
    assert "after widening by at most 4 points" in said
    assert "meta, 1 of learned (largest) for few steps." in said
    [table] = [block for block in rates.blocks(rows, Settings()) if isinstance(block, Table)]
    assert table.rows[1] == ["lora", "few", "adam 0.03", "inside", "60 %\nof 10", "1", "adam: 0.01, 0.03, 0.1"]
    assert "Chosen by success in closed loop" in to_markdown(list(rates.blocks(rows, Settings())))
    by_loss = [row._replace(success=None) for row in rows]
    assert "not by success in closed loop" in to_markdown(list(rates.blocks(by_loss, Settings())))
    assert rates.read(tmp_path / "nowhere") == ()
