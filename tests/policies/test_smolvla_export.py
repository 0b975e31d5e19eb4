"""Exports for lerobot: what is written is read back, with what rounding costs."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from metalora_jax import adapters
from metalora_jax.adaptation import base as bases
from metalora_jax.adapters import peft_format
from metalora_jax.policies.smolvla import convert, export
from metalora_jax.policies.smolvla.presets import preset
from tests import lerobot_directory

STATISTICS = {
    f"{name}.{stat}": np.linspace(1, 2, width, dtype=np.float32)
    for name, width in (("observation.state", 5), ("action", 4))
    for stat in ("mean", "std")
}


@pytest.fixture
def base(tmp_path):
    return lerobot_directory.write(tmp_path / "base", lerobot_directory.small())


@pytest.fixture
def adapted(base):
    placement = tuple(
        dataclasses.replace(rule, kind=dataclasses.replace(rule.kind, dropout=0.0))
        for rule in preset("plan", b_std=0.1)
    )
    model = convert.load(base).model
    return placement, adapters.attach(model, placement, jax.random.key(0))


def test_a_merged_policy_has_every_tensor_of_the_base(base, adapted, tmp_path):
    fused = adapters.fuse(adapted[1])
    export.merged(tmp_path / "out", fused, base, STATISTICS, "float32")
    tensors, originals = load_file(tmp_path / "out" / convert.WEIGHTS), load_file(base / convert.WEIGHTS)
    assert set(tensors) == set(originals)
    assert {tensor.dtype.name for tensor in tensors.values()} == {"float32"}
    found = convert.load(tmp_path / "out")
    for name, value in convert.to_lerobot_tensors(found.model).items():
        np.testing.assert_array_equal(value, tensors[name])
    np.testing.assert_array_equal(found.statistics[""]["action"]["std"], STATISTICS["action.std"])
    changed = "model.vlm_with_expert.lm_expert.layers.1.mlp.up_proj.weight"
    assert np.abs(tensors[changed] - originals[changed].astype(np.float32)).max() > 1e-3


def test_the_types_of_the_base_are_kept_when_asked_for(base, adapted, tmp_path):
    export.merged(tmp_path / "out", adapters.fuse(adapted[1]), base, STATISTICS, "base")
    tensors, originals = load_file(tmp_path / "out" / convert.WEIGHTS), load_file(base / convert.WEIGHTS)
    assert {k: t.dtype for k, t in tensors.items()} == {k: t.dtype for k, t in originals.items()}


def test_a_peft_export_is_an_adapter_with_its_manifest(base, adapted, tmp_path):
    placement, model = adapted
    theta = adapters.split(model).theta
    export.peft(tmp_path / "out", placement, theta, convert.load(base).model, "me/base", base, STATISTICS, {"a": [1]})
    _, found = peft_format.read(tmp_path / "out", convert.module_names(model.config))
    jax.tree.map(np.testing.assert_array_equal, found, theta)
    assert peft_format.read_manifest(tmp_path / "out") == {"a": [1]}


@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_pictures_are_taken_by_the_robots_names_in_the_policys_order(base, adapted, tmp_path, kind):
    placement, model = adapted
    config = json.loads((base / convert.CONFIG).read_text()) | {
        "pretrained_path": "/home/me/policy",
        "empty_cameras": 1,
    }
    config["input_features"]["observation.images.empty_camera_0"] = {"type": "VISUAL", "shape": [3, 64, 64]}
    (base / convert.CONFIG).write_text(json.dumps(config))
    cameras = ("wrist", "top")
    if kind == "merged":
        export.merged(tmp_path / "out", adapters.fuse(model), base, STATISTICS, "float32", cameras)
        assert bases.load(tmp_path / "out").embodiment.cameras == cameras
    else:
        theta = adapters.split(model).theta
        name = f"me/base@{'0' * 40}"
        export.peft(tmp_path / "out", placement, theta, convert.load(base).model, name, base, STATISTICS, {}, cameras)
        written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert (written["base_model_name_or_path"], written["revision"]) == ("me/base", "0" * 40)
    written = json.loads((tmp_path / "out" / convert.CONFIG).read_text())
    assert list(written["input_features"]) == ["observation.state", *(f"observation.images.{name}" for name in cameras)]
    assert (written["empty_cameras"], written["pretrained_path"]) == (0, None)


def test_nothing_is_overwritten_and_only_lerobots_policies_are_built_on(base, adapted, tmp_path):
    fused = adapters.fuse(adapted[1])
    with pytest.raises(ValueError, match="exists; choose another"):
        export.merged(base, fused, base, STATISTICS, "float32")
    convert.save(tmp_path / "own", fused)
    with pytest.raises(ValueError, match="is not a lerobot policy"):
        export.merged(tmp_path / "out", fused, tmp_path / "own", STATISTICS, "float32")
