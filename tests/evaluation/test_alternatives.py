"""Several ways to train one arm: validation chooses, and what would not be a fair way is refused."""

import json
from pathlib import Path
from runpy import run_path

import pytest

from metalora_jax.evaluation.protocol import alternatives, search
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.protocol.search import Tried
from metalora_jax.evaluation.reports import rates
from tests.evaluation.test_few_shot import PROTOCOL

CONFIG = run_path(str(Path(__file__).parents[2] / "configs" / "quickstart.py"))["get_config"]().to_dict()
LONGER = {"control": {"longer": {"outer.steps": 500}, "faster": {"outer.learning_rate": 0.03}}}


def test_ways_are_the_arm_with_other_fields():
    comparison = Comparison.from_config(CONFIG | {"alternatives": LONGER})
    assert Comparison.from_config(json.loads(json.dumps(comparison.to_json()))) == comparison
    given = comparison.trained["control"]
    made = alternatives.recipes("control", given, comparison.alternatives["control"])
    assert list(made) == ["control@given", "control@longer", "control@faster"]
    assert made["control@given"] == given
    assert made["control@longer"] == given._replace(outer=given.outer._replace(steps=500))
    assert "alternatives" not in Comparison.from_config(CONFIG).to_json()


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (
            {"lora": {"longer": {"outer.steps": 1}}},
            "alternatives: 'lora' is no arm that is trained; choose ",
        ),
        ({"control": {"a": {"outer.step": 1}}}, r"alternatives\.control\.a: .*the arm has no field 'outer\.step'"),
        ({"control": {"a": {"outer.steps": -1}}}, r"alternatives\.control\.a: outer\.steps is -1"),
        ({"control": {"given": {"outer.steps": 1}}}, "'given' cannot name a way"),
        ({"control": {"a/b": {"outer.steps": 1}}}, "'a/b' cannot name a way"),
        ({"control": {"more": {"data.demos": 3}}}, "all ways learn from the same data"),
    ],
)
def test_ways_that_are_none_or_not_fair_are_refused(wanted, complaint):
    with pytest.raises(ValueError, match=complaint):
        Comparison.from_config(CONFIG | {"alternatives": wanted})


def test_the_way_with_the_most_success_after_all_steps_is_chosen():
    protocol = PROTOCOL._replace(steps=(0, 1, 3, 10, 100), short=10)

    def way(short, long, loss=1.0):
        return {"short": [Tried("adam", 0.01, loss, short, 4), Tried("adam", 0.03, 9.0, 0.0, 4)]} | {
            "long": [Tried("adam", 0.01, loss, long, 4)]
        }

    record = {"a": way(0.5, 1.0), "b": way(0.7, 0.5), "c": way(0.7, 0.5, 0.1)}
    assert alternatives.choose(record, ["a", "b"], protocol) == "b"  # three step counts against one
    assert alternatives.choose(record, ["a", "b", "c"], protocol) == "c"


def test_the_report_names_the_ways(tmp_path):
    search.write(tmp_path / rates.FILE, {"control@given": {}, "control@longer": {}, "meta": {}})
    (tmp_path / rates.STARTS).write_text(json.dumps({"control": "control@longer"}))
    [said] = rates.starts(tmp_path)
    assert "trained in 2 ways with the first meta-seed (given, longer)" in said
    assert "longer did best on validation" in said
    assert alternatives.started(tmp_path) == {"control": "control@longer"}
    assert alternatives.started(tmp_path / "nowhere") == {}


def test_a_config_without_arms_is_another_command_s():
    with pytest.raises(ValueError, match="the config has no section `arms`"):
        Comparison.from_config({"data": CONFIG["test"]})
