"""Adapters read for a base: peft's files as well as ours, and the one in the package."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest
from absl import logging
from flax import nnx

from metalora_jax import adapters
from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.learner import learner
from metalora_jax.adapters import LoRA, Rule, peft_format
from metalora_jax.data.sources.embodiment import UNKNOWN, Embodiment
from metalora_jax.policies.smolvla import convert
from metalora_jax.policies.smolvla.model import SmolVLA
from metalora_jax.policies.smolvla.presets import preset
from tests.tiny_base import make_base


def write_peft(directory, rules):
    base = make_base()
    theta = learner(base, rules, jax.random.key(3)).theta
    peft_format.write(directory, rules, theta, convert.module_names(base.config), base_model="someone/smolvla")
    return theta


@pytest.fixture
def warnings_logged(monkeypatch):
    found = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: found.append(text % args))
    return found


def test_pefts_files_become_the_adapter_that_was_written(tmp_path, warnings_logged):
    rules = preset("expert", b_std=0.1)
    theta = write_peft(tmp_path / "peft", rules)
    found = adapter.load(tmp_path / "peft", make_base())
    assert found.learner.stage == "context"
    jax.tree.map(np.testing.assert_array_equal, found.meta_params["theta"], theta)
    assert adapters.count(found.learner.theta) == adapters.count(theta)
    assert any("does not say which weights it was learned on" in line for line in warnings_logged)
    assert not any("no effect" in line for line in warnings_logged)


def test_an_adapter_records_the_robot_and_the_base_fills_in(tmp_path):
    base = make_base()._replace(embodiment=Embodiment(("front",), fps=30.0))
    start = adapter.fresh(base, preset("head", b_std=0.1))
    assert start.embodiment == base.embodiment
    for name, robot in (("own", Embodiment(("top", "wrist"))), ("none", UNKNOWN)):
        adapter.save(tmp_path / name, base, start.placement, start.meta_params, config={}, embodiment=robot)
        assert adapter.load(tmp_path / name, base).embodiment == robot.over(base.embodiment)
    assert "embodiment" not in adapter.manifest_of(tmp_path / "none")


def test_an_adapter_says_which_instructions_it_is_for(tmp_path):
    base = make_base()
    start = adapter.fresh(base, preset("head", b_std=0.1))
    for name, texts in (("own", ("pick it up", "lift it")), ("all", None)):
        adapter.save(tmp_path / name, base, start.placement, start.meta_params, config={}, only_for=texts)
        assert adapter.load(tmp_path / name, base).learner.only_for == texts
    assert "only_for" not in adapter.manifest_of(tmp_path / "all")
    for wrong in ((), "pick it up"):
        with pytest.raises(adapters.directory.AdapterError, match="name the instructions that the adapter is for"):
            adapter.save(tmp_path / "none", base, start.placement, start.meta_params, config={}, only_for=wrong)


def test_cameras_of_an_adapter_without_a_record_are_those_of_its_recipe(tmp_path):
    base = make_base()
    start = adapter.fresh(base, preset("head", b_std=0.1))
    data = {"cameras": ["agentview", "wrist"], "keys": {"agentview": "observation.images.top"}}
    adapter.save(tmp_path / "old", base, start.placement, start.meta_params, config={"data": data})
    assert adapter.load(tmp_path / "old", base).embodiment == Embodiment(("top", "wrist"))


def test_what_has_no_effect_is_reported(tmp_path, warnings_logged):
    write_peft(tmp_path / "peft", preset("plan", dead=True))
    adapter.load(tmp_path / "peft", make_base())
    (line,) = (line for line in warnings_logged if "no effect" in line)
    assert "text/last/self_attn/q_proj" in line
    assert "k_proj" not in line


def test_pefts_files_of_another_width_are_refused(tmp_path):
    write_peft(tmp_path / "peft", (Rule(r"action_out_proj", LoRA(rank=2)),))
    base = make_base()
    wider = dataclasses.replace(base.config, max_action_dim=base.config.max_action_dim + 1)
    other = bases.make(SmolVLA(wider, rngs=nnx.Rngs(0)), base.tokenizer, base.statistics)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors.*action_out_proj"):
        adapter.load(tmp_path / "peft", other)


def test_damaged_files_of_peft_are_refused(tmp_path):
    write_peft(tmp_path / "peft", preset("head"))
    shutil.copytree(tmp_path / "peft", tmp_path / "cut")
    weights = tmp_path / "cut" / peft_format.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        adapter.load(tmp_path / "cut", make_base())


def test_on_a_gpu_the_probe_asks_for_full_precision(monkeypatch):
    """Its default is TF32: adapters that it wrote would be refused everywhere else."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    base = make_base()
    learn = learner(base, (Rule("expert/.*", LoRA(rank=2, alpha=2.0, b_std=0.1)),), jax.random.key(0))
    program = str(jax.make_jaxpr(adapter.probe(base, learn).run)({"theta": learn.theta}))
    products = re.findall(r"dot_general\[.*?precision=(.*?)\n", program, re.DOTALL)
    assert len(products) == program.count("dot_general[")
    assert {product.strip() for product in products} == {"(Precision.HIGHEST, Precision.HIGHEST)"}


def test_rounding_is_held_against_what_the_adapter_does():
    before, exact = np.zeros(4), np.full(4, 2.0)
    assert adapter.rounding(before, exact, exact) == (0.0, 0.0)
    assert adapter.rounding(before, exact, exact + np.eye(4)[3]) == (1.0, pytest.approx(0.25))


def test_the_adapter_in_the_package_fits_the_base_in_it():
    base = bases.load()
    start = adapter.load(None, base)
    assert set(start.meta_params) == {"theta", "log_rates"}
    assert start.head is None
    assert start.data is not None
    moved = [leaf for leaf in jax.tree.leaves(start.learner.theta) if np.abs(leaf).max() > 0]
    assert len(moved) == len(jax.tree.leaves(start.learner.theta))


def test_the_adapter_in_the_package_is_refused_on_another_base():
    base = make_base()
    with pytest.raises(adapters.directory.AdapterError, match=r"fits the nano base in the package.*name an adapter"):
        adapter.load(None, base)


def test_an_adapter_without_effect_has_no_share_of_rounding():
    before = np.ones(4)
    assert adapter.effect(before, before) == 0.0
    assert adapter.effect(before, 1.5 * before) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="the adapter changes nothing"):
        adapter.rounding(before, before, before)
