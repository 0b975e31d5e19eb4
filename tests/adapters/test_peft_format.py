"""PEFT adapters of a toy policy: one single map and a stack of two layers, in and out, and every refusal by name."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from metalora_jax.adapters import LoRA, Rule, ScaleShift, peft_format

NAMES = {
    "model.head": (("head",), None),
    "model.expert.layers.0.q_proj": (("expert", "q_proj"), 0),
    "model.expert.layers.2.q_proj": (("expert", "q_proj"), 1),
    "model.expert.layers.0.k_proj": (("expert", "k_proj"), 0),
    "model.expert.layers.2.k_proj": (("expert", "k_proj"), 1),
}
CONFIG = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "target_modules": r"model\.(head|expert\.layers\.\d+\.q_proj)",
    "rank_pattern": {"head": 3},
    "alpha_pattern": {r"layers\.\d+\.q_proj": 5},
    "bias": "none",
    "task_type": None,
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "loftq_config": {},
}


def key(module, part):
    return f"base_model.model.{module}.lora_{part}.weight"


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    out = {}
    for module, rank, outputs in (("head", 3, 5), ("expert.layers.0.q_proj", 2, 6), ("expert.layers.2.q_proj", 2, 6)):
        out[key(f"model.{module}", "A")] = rng.normal(size=(rank, 4)).astype(np.float32)
        out[key(f"model.{module}", "B")] = rng.normal(size=(outputs, rank)).astype(np.float32)
    return out


def save(directory, tensors, **changes):
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def test_read(tmp_path, tensors):
    placement, theta = peft_format.read(save(tmp_path, tensors), NAMES)
    assert placement == (
        Rule("head", LoRA(rank=3, alpha=8.0, dropout=0.1)),
        Rule("expert/q_proj", LoRA(rank=2, alpha=5.0, dropout=0.1)),
    )
    assert jax.tree.map(np.shape, theta) == {
        "head": {"a": (4, 3), "b": (3, 5)},
        "expert/q_proj": {"a": (2, 4, 2), "b": (2, 2, 6)},
    }
    np.testing.assert_array_equal(theta["expert/q_proj"]["a"][1], tensors[key("model.expert.layers.2.q_proj", "A")].T)
    np.testing.assert_array_equal(theta["head"]["b"], tensors[key("model.head", "B")].T)


def test_target_list_matches_last_parts(tmp_path, tensors):
    placement, _ = peft_format.read(save(tmp_path, tensors, target_modules=["head", "q_proj"]), NAMES)
    assert [rule.pattern for rule in placement] == ["head", "expert/q_proj"]


def test_chosen_layers_and_excluded_modules(tmp_path, tensors):
    chosen = {"target_modules": ["model.head", "q_proj", "k_proj"], "exclude_modules": ["k_proj"]}
    layers = {"layers_to_transform": [0, 2], "layers_pattern": "layers"}
    placement, _ = peft_format.read(save(tmp_path, tensors, **chosen, **layers), NAMES)
    assert [rule.pattern for rule in placement] == ["head", "expert/q_proj"]
    single = {name: value for name, value in tensors.items() if "layers" not in name}
    placement, _ = peft_format.read(save(tmp_path, single, **chosen, layers_to_transform=[7]), NAMES)
    assert [rule.pattern for rule in placement] == ["head"]  # a whole name is meant, whatever the layers


def test_a_pickle_is_named_and_not_read(tmp_path, tensors):
    save(tmp_path, tensors)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"safetensors is missing; adapter_model\.bin is a pickle and not read"):
        peft_format.read(tmp_path, NAMES)


def test_write_then_read(tmp_path, tensors):
    placement, theta = peft_format.read(save(tmp_path, tensors), NAMES)
    out = tmp_path / "out"
    peft_format.write(out, placement, theta, NAMES, base_model="somewhere/base")
    again, same = peft_format.read(out, NAMES)
    assert again == placement
    jax.tree.map(np.testing.assert_array_equal, same, theta)
    written = load_file(out / "adapter_model.safetensors")
    assert written.keys() == tensors.keys()
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "somewhere/base"
    with pytest.raises(ValueError, match="holds an adapter already"):
        peft_format.write(out, placement, theta, NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"layers_to_transform": [0]}, "layers_to_transform needs target_modules as a list of names"),
        ({"layers_to_transform": "0"}, "layers_to_transform is '0'; it must be a whole number or a list"),
        (
            {"layers_to_transform": [9], "target_modules": ["q_proj"]},
            r"with layers_to_transform = \[9\] names no linear",
        ),
        ({"layers_to_transform": 0, "target_modules": ["q_proj"]}, r"unknown tensor .*layers\.2\.q_proj"),
        ({"use_dora": "false"}, "use_dora = 'false' is not supported"),
        ({"init_lora_weights": 1}, "init_lora_weights = 1 is not supported"),
        ({"use_rslora": "false"}, r"adapter_config\.json: use_rslora is 'false'; it must be true or false, as peft"),
        ({"use_rslora": 0}, "use_rslora is 0; it must be true or false"),
        ({"r": "2"}, "r is '2'; it must be a whole number"),
        ({"r": True}, "r is True; it must be a whole number"),
        ({"r": 0}, "r and its patterns must be positive, not 0"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'; it must be a number"),
        ({"lora_dropout": 1.5}, "lora_dropout is 1.5"),
        ({"rank_pattern": {"head": 2.5}}, "rank_pattern is .*; it must be fields, each a whole number"),
        ({"rank_pattern": ["head"]}, "rank_pattern is .*; it must be fields"),
        ({"alpha_pattern": {"head(": 2}}, "'head\\(' is no regular expression"),
        ({"target_modules": "head("}, "'head\\(' is no regular expression"),
        ({"target_modules": 3}, "target_modules is 3; it must be text or a list, each text"),
        ({"target_modules": "all-linear"}, "'all-linear' names no linear map of this policy, such as 'model.head'"),
        ({"target_modules": ["nothing"]}, "names no linear map of this policy"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"some_future_feature": 3}, "some_future_feature = 3"),
        ({"r": None}, "field 'r' is missing"),
        ({"rank_pattern": {}}, r"model\.head\.lora_A\.weight' has shape \[3, 4\], its rank should be 2"),
        ({"target_modules": ["head"]}, r"unknown tensor 'base_model.model.model.expert.layers.0.q_proj.lora_A"),
        ({"target_modules": ["head", "q_proj", "k_proj"]}, r"missing tensor .*layers\.0\.k_proj\.lora_A.*\(4 in all\)"),
        ({"alpha_pattern": {r"layers\.2\.q_proj": 5}}, "share the stack 'expert/q_proj'"),
    ],
)
def test_config_refusals(tmp_path, tensors, changes, message):
    with pytest.raises(ValueError, match=message):
        peft_format.read(save(tmp_path, tensors, **changes), NAMES)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"target_modules": ["head", "q_proj", "v_proj"]}, "target_modules names 'v_proj', which is no linear map"),
        ({"rank_pattern": {"head": 3, "tail": 4}}, "rank_pattern names 'tail', which matches no adapted map"),
        ({"alpha_pattern": {r"layers\.\d+\.q_proj": 5, "k_proj": 1}}, "alpha_pattern names 'k_proj'"),
        ({}, None),
    ],
)
def test_patterns_that_name_nothing_are_said(tmp_path, tensors, monkeypatch, changes, line):
    said = []
    monkeypatch.setattr(peft_format.logging, "warning", lambda text, *args: said.append(text % args))
    peft_format.read(save(tmp_path, tensors, **changes), NAMES)
    assert [line in one for one in said] == ([True] if line else [])


def test_tensor_refusals(tmp_path, tensors):
    a = key("model.head", "A")
    with pytest.raises(ValueError, match=r"missing tensor 'base_model\.model\.model\.head\.lora_A"):
        peft_format.read(save(tmp_path, {k: v for k, v in tensors.items() if k != a}), NAMES)
    with pytest.raises(ValueError, match=r"unknown tensor 'base_model\.model\.model\.head\.bias'"):
        peft_format.read(save(tmp_path, {**tensors, "base_model.model.model.head.bias": tensors[a]}), NAMES)
    with pytest.raises(ValueError, match="NaN"):
        peft_format.read(save(tmp_path, {**tensors, a: tensors[a] * np.nan}), NAMES)
    b = key("model.expert.layers.2.q_proj", "B")
    with pytest.raises(ValueError, match="lora_B of 'expert/q_proj' differs in shape"):
        peft_format.read(save(tmp_path, {**tensors, b: tensors[b][:-1].copy()}), NAMES)
    file = save(tmp_path, tensors) / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="not a readable safetensors"):
        peft_format.read(tmp_path, NAMES)


def test_a_partly_adapted_stack_is_refused(tmp_path, tensors):
    some = {k: v for k, v in tensors.items() if "layers.2" not in k}
    with pytest.raises(ValueError, match=r"layers\.0\.q_proj' and 'model\.expert\.layers\.2\.q_proj' share the stack"):
        peft_format.read(save(tmp_path, some, target_modules=["head", "layers.0.q_proj"]), NAMES)


def test_write_refuses_what_the_format_cannot_say(tmp_path, tensors):
    placement, theta = peft_format.read(save(tmp_path, tensors), NAMES)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="one dropout for all"):
        peft_format.write(out, (placement[0], Rule("expert/q_proj", LoRA(rank=2))), theta, NAMES)
    with pytest.raises(ValueError, match="'head', which no rule"):
        peft_format.write(out, placement[1:], theta, NAMES)
    with pytest.raises(ValueError, match="'head', which has no name"):
        peft_format.write(out, placement, theta, {k: v for k, v in NAMES.items() if k != "model.head"})
    with pytest.raises(ValueError, match=r"no place for .* scale_shift; .* --format=lerobot_plugin"):
        peft_format.write(out, (Rule(".*", ScaleShift()),), theta, NAMES)
    assert not out.exists()
