import json

import pytest

from metalora_jax.adapters import Rule, placement

PATHS = ["expert/self_layers/q_proj", "expert/self_layers/k_proj", "text/layers/q_proj", "action_out_proj"]


def test_first_match_wins_and_the_rest_is_frozen():
    rules = (Rule("text/.*", kind=None), Rule(".*/q_proj", rank=4), Rule("expert/.*", rank=2))
    got = placement.resolve(rules, PATHS)
    assert {path: rule.rank for path, rule in got.items()} == {PATHS[0]: 4, PATHS[1]: 2}


def test_patterns_match_whole_paths():
    with pytest.raises(ValueError, match="places nothing"):
        placement.resolve((Rule("q_proj"),), PATHS)


def test_unused_rule_is_named_with_near_paths():
    with pytest.raises(ValueError, match=r"rule 'expert/self_layer/q_proj' places nothing; near paths: expert/self_la"):
        placement.resolve((Rule("expert/self_layer/q_proj"),), PATHS)
    with pytest.raises(ValueError, match="taken by earlier rules: action_out_proj"):
        placement.resolve((Rule(".*"), Rule("action_.*")), PATHS)
    assert placement.resolve((Rule("nothing"),), PATHS, allow_unused=True) == {}


def test_json_round_trip():
    rules = (Rule("a", kind=None), Rule("b/.*", rank=3, alpha=7.5, dropout=0.1, rslora=True, b_std=0.02))
    assert placement.from_json(json.loads(json.dumps(placement.to_json(rules)))) == rules
    with pytest.raises(ValueError, match="rule 1: unknown field 'ranks'"):
        placement.from_json([{"pattern": "a"}, {"pattern": "b", "ranks": 2}])


@pytest.mark.parametrize(
    "bad", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"kind": "dora"}, {"b_std": -1}, {"pattern": "("}]
)
def test_bad_rules_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad)) if "pattern" not in bad else "regular expression"):
        Rule(**{"pattern": "a", **bad})


def test_scale():
    assert Rule("a", rank=4, alpha=8).scale == 2
    assert Rule("a", rank=4, alpha=8, rslora=True).scale == 4


def test_report_has_a_line_for_each_map():
    lines = placement.report((Rule(".*/q_proj", rank=4),), dict.fromkeys(PATHS, (2, 8, 8))).splitlines()
    assert len(lines) == 4
    assert "lora r=4" in lines[0]
    assert lines[1].endswith("frozen")
