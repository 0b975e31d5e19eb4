import json

import pytest

from metalora_jax.adapters import Dense, LoRA, Rule, ScaleShift, placement

PATHS = ["expert/self_layers/q_proj", "expert/self_layers/k_proj", "text/layers/q_proj", "action_out_proj"]


def test_first_match_wins_and_the_rest_is_frozen():
    rules = (Rule("text/.*", kind=None), Rule(".*/q_proj", LoRA(rank=4)), Rule("expert/.*", LoRA(rank=2)))
    got = placement.resolve(rules, PATHS)
    assert {path: rule.kind.rank for path, rule in got.items()} == {PATHS[0]: 4, PATHS[1]: 2}


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
    rules = (
        Rule("a", kind=None),
        Rule("b/.*", LoRA(rank=3, alpha=7.5, dropout=0.1, rslora=True, b_std=0.02)),
        Rule("c", Dense()),
        Rule("d", ScaleShift()),
    )
    value = json.loads(json.dumps(placement.to_json(rules)))
    assert placement.from_json(value) == rules
    assert list(value[1]) == ["pattern", "kind", "rank", "alpha", "dropout", "rslora", "b_std"]  # as manifests have it
    assert placement.from_json([{"pattern": "a", "rank": 2}]) == (Rule("a", LoRA(rank=2)),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pattern": "b", "ranks": 2}, "placement rule 1: unknown field 'ranks' of kind 'lora'; it has: rank, alpha"),
        ({"pattern": "b", "kind": "dense", "rank": 2}, "placement rule 1: unknown field 'rank' of kind 'dense'"),
        ({"pattern": "b", "kind": "scale_shift", "shift": 1.0}, "unknown field 'shift' of kind 'scale_shift'"),
        (
            {"pattern": "b", "kind": "dora"},
            "placement rule 1: kind must be 'lora', 'dense', 'scale_shift' or None, not 'dora'",
        ),
        ({"rank": 2}, "placement rule 1: 'pattern' is missing"),
        ({"pattern": "(", "rank": 2}, "placement rule 1: rule '\\(': not a regular expression"),
        ({"pattern": "b", "rank": 0}, "placement rule 1: lora: rank must be at least 1, not 0"),
        ({"pattern": "b", "alpha": 0}, "alpha must be positive"),
        ({"pattern": "b", "dropout": 1.0}, "dropout must be in"),
        ({"pattern": "b", "b_std": -1}, "b_std must be at least 0"),
        ({"pattern": "b", "rank": "4"}, "placement rule 1: "),
    ],
)
def test_bad_rules_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        placement.from_json([{"pattern": "a"}, fields])


def test_a_kind_is_an_object_and_no_name():
    with pytest.raises(ValueError, match=r"kind must be a Kind such as LoRA\(rank=4\), not 'lora'"):
        Rule("a", "lora")


def test_scale():
    assert LoRA(rank=4, alpha=8).scale == 2
    assert LoRA(rank=4, alpha=8, rslora=True).scale == 4
