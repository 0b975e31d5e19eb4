"""What is exported to lerobot is what was adapted, in the layout of the policy that the base came from."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from metalora_jax import adapters
from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adapters import LoRA, Rule, peft_format
from metalora_jax.policies import registry
from metalora_jax.policies.pi0.presets import preset
from tests import lerobot_pi0_directory as directories
from tests.policies import tiny_pi0

WEIGHTS = "model.safetensors"
CASES = [(type_, new) for type_ in ("pi0", "pi05") for new in (True, False)]


def statistics(base):
    known = base.statistics
    return {
        "observation.state.mean": known.state_mean,
        "observation.state.std": known.state_std,
        "action.mean": known.action_mean,
        "action.std": known.action_std,
    }


def adapted(base, name="plan"):
    """The base with an adapter that is not zero: of a preset, or "linear" for every map that peft has a name for."""
    everything = Rule("(?!vision/patch_embedding).*", LoRA(rank=2, alpha=4.0, b_std=0.2))
    placement = (everything,) if name == "linear" else preset(name, rank=2, b_std=0.2)
    return placement, adapters.attach(base.model, placement, jax.random.key(0))


@pytest.mark.parametrize(("type_", "new"), CASES)
def test_merged(tmp_path, type_, new):
    source = directories.write(tmp_path / "policy", type_, new)
    base = bases.load(source)
    _, model = adapted(base)
    fused = adapters.fuse(model)
    options = source, statistics(base), "float32", ("top", "hand")
    base.family.export_merged(tmp_path / "out", fused, *options)
    read = bases.load(tmp_path / "out")
    assert read.config == base.config
    assert read.embodiment.cameras == ("top", "hand")
    for ours, theirs in zip(jax.tree.leaves(read.statistics), jax.tree.leaves(base.statistics), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_array_equal(adapter.answer(read), adapter.answer(base._replace(model=fused)))
    assert np.abs(adapter.answer(read) - adapter.answer(base)).max() > 0.01
    before, after = load_file(source / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert "model.action_in_proj.weight" in changed
    assert not any("norm" in name or "lm_head" in name or "vision" in name for name in changed)
    assert read.family.serve_command(tmp_path / "out", read.config) is None  # it is lerobot's
    assert read.family.served_as(tmp_path / "out") is None
    with pytest.raises(ValueError, match="exists"):
        base.family.export_merged(tmp_path / "out", fused, *options)


def test_merged_in_the_types_of_the_source(tmp_path):
    source = directories.write(tmp_path / "policy", "pi05", dtype="bfloat16")
    narrow = {
        name: value.astype(jax.numpy.bfloat16) if "proj.weight" in name else value
        for name, value in load_file(source / WEIGHTS).items()
    }
    save_file(narrow, source / WEIGHTS)
    base = bases.load(source)
    model = adapters.fuse(adapted(base)[1])
    base.family.export_merged(tmp_path / "out", model, source, statistics(base), "base")
    out = load_file(tmp_path / "out" / WEIGHTS)
    assert {name: value.dtype for name, value in out.items()} == {name: value.dtype for name, value in narrow.items()}
    assert base.family.served_as(tmp_path / "out") == "bfloat16"


@pytest.mark.parametrize(("type_", "new"), CASES)
def test_an_adapter_for_peft(tmp_path, type_, new):
    source = directories.write(tmp_path / "policy", type_, new)
    base = bases.load(source)
    placement, model = adapted(base, "linear")
    theta = adapters.split(model).theta
    about = statistics(base), {"config": {"instruction": "push"}}, None
    base.family.export_peft(tmp_path / "out", placement, theta, base.model, "../policy", source, *about)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["type"], config["use_peft"], "use_relative_actions" in config) == (type_, True, new)
    start = adapter.load(tmp_path / "out", base)
    for path, parts in theta.items():
        for part, value in parts.items():
            np.testing.assert_array_equal(start.meta_params["theta"][path][part], value)
    assert peft_format.read_manifest(tmp_path / "out") == {"config": {"instruction": "push"}}


def test_what_cannot_be_exported(tmp_path):
    source = directories.write(tmp_path / "policy", "pi0")
    base = bases.load(source)
    rest = statistics(base), "float32"
    other = directories.write(tmp_path / "other", "pi05")
    with pytest.raises(ValueError, match=r"is of type 'pi05', the base is not"):
        base.family.export_merged(tmp_path / "out", base.model, other, *rest)
    with pytest.raises(ValueError, match="leave out 'libero'"):
        base.family.export_merged(tmp_path / "out", base.model, source, *rest, data_set="libero")
    with pytest.raises(ValueError, match="have no name in lerobot; fuse"):
        base.family.export_merged(tmp_path / "out", adapted(base)[1], source, *rest)
    openpis = tiny_pi0.build()
    with pytest.raises(ValueError, match="follows openpi's rules"):
        registry.of_model(openpis).export_merged(tmp_path / "out", openpis, source, *rest)
    tensors = load_file(source / WEIGHTS)
    save_file({**tensors, "model.another": np.zeros(1, np.float32)}, source / WEIGHTS)
    with pytest.raises(ValueError, match="another missing in one of the two"):
        base.family.export_merged(tmp_path / "out", base.model, source, *rest)
    assert not (tmp_path / "out").exists()
