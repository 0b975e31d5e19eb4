"""Adapters out to openpi: what is exported is read back, by Orbax itself and here, and computes the same."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tokenizers import Tokenizer, models

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation import learner as learners
from metalora_jax.adapters import LoRA, Rule, attach, fuse
from metalora_jax.data import normalize
from metalora_jax.policies import registry
from metalora_jax.policies.pi0 import openpi_names
from metalora_jax.policies.pi0.orbax_tree import OrbaxTree
from tests.policies import openpi_directories, tiny_pi0
from tests.policies.test_openpi_lora import velocity

ASSET = "physical-intelligence/libero"
PLACEMENT = (Rule(r"(text|expert)/layers/(self_attn/(q|v|o)_proj|mlp/up_proj)", LoRA(rank=2, b_std=0.3)),)


@pytest.fixture(scope="module", params=[False, True], ids=["pi0", "pi05"])
def made(request, tmp_path_factory):
    """A checkpoint with one tensor in bfloat16, its base, and the base with an adapter folded in."""
    folder = tmp_path_factory.mktemp("out")
    config = tiny_pi0.tiny(pi05=request.param, action_dim=6, cameras=3, bos_token_id=2)
    tree = openpi_directories.random_tree(config)
    tree["PaliGemma/img/head/kernel"] = tree["PaliGemma/img/head/kernel"].astype(jnp.bfloat16)
    source = openpi_directories.write(folder / "30000", tree, {ASSET: openpi_directories.statistics(5, 4)})
    words = folder / "tokenizer.json"
    Tokenizer(models.WordLevel({str(i): i for i in range(40)}, unk_token="0")).save(str(words))
    told = {"horizon": config.horizon, "max_tokens": config.max_tokens, "num_steps": config.num_steps}
    base = bases.load(source, tokenizer=words, **told)
    return source, words, base, fuse(attach(base.model, PLACEMENT, jax.random.key(0)))


def scaling(known: normalize.Statistics) -> dict[str, np.ndarray]:
    return {
        "observation.state.mean": known.state_mean,
        "observation.state.std": known.state_std,
        "action.mean": known.action_mean,
        "action.std": known.action_std,
    }


def test_an_export_is_read_back_as_it_was(made, tmp_path):
    source, words, base, fused = made
    family, out = base.family, tmp_path / "a" / "out"
    family.export_merged(out, fused, source, scaling(base.statistics), "float32")
    back = bases.load(out, tokenizer=words, **family.untold(base.config))
    assert back.config == base.config
    wanted = velocity(fused, base.config)
    assert np.abs(wanted - velocity(base.model, base.config)).max() > 1e-2
    np.testing.assert_allclose(velocity(back.model, base.config), wanted, atol=1e-5)
    found, known = back.statistics.to_json(), base.statistics.to_json()
    assert found.keys() == known.keys()
    for name, values in known.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)
    stats = json.loads((out / "assets" / ASSET / "norm_stats.json").read_text())["norm_stats"]
    assert set(stats) == {"state", "actions"}
    assert set(stats["actions"]) == {"mean", "std", "q01", "q99"}
    assert f"--policy.dir={out}" in family.serve_command(out, base.config)


def test_an_export_is_judged_by_all_of_its_own_weights(made):
    """An adapter of the decoder changes the prefix, too, which must not be taken from the base."""
    _, _, base, fused = made
    learn = learners.learner(base, PLACEMENT, jax.random.key(0))
    exact = adapter.probe(base, learn).run({"theta": learn.theta})
    alone = adapter.answer(base)
    assert np.abs(exact - alone).max() > 1e-2
    own = bases.make(fused, base.tokenizer, base.statistics)
    np.testing.assert_allclose(adapter.answer(own), exact, atol=1e-5)


def test_orbax_restores_openpis_names_shapes_and_types(made, tmp_path):
    source, _, base, fused = made
    base.family.export_merged(tmp_path / "out", fused, source, scaling(base.statistics), "base")
    with ocp.PyTreeCheckpointer() as checkpointer:
        found, original = (checkpointer.restore(folder / "params") for folder in (tmp_path / "out", source))
    assert list(found) == ["params"]
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype.name), tree) for tree in (found, original)]
    assert kinds[0] == kinds[1]
    wanted = openpi_directories.nested(openpi_names.tree_of(fused))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.astype(x.dtype)), found["params"], wanted)


def test_nothing_but_a_whole_checkpoint_of_this_network_is_built_on(made, tmp_path):
    source, _, base, fused = made
    write = base.family.export_merged
    stats = scaling(base.statistics)
    with pytest.raises(ValueError, match="exists; choose another"):
        write(source, fused, source, stats, "float32")
    with pytest.raises(ValueError, match="is no checkpoint of openpi's"):
        write(tmp_path / "out", fused, tmp_path, stats, "float32")
    other = openpi_names.leaves(dataclasses.replace(base.config, expert_mlp=28))
    wide = {name: np.zeros(leaf.shape, np.float32) for name, leaf in other.items()}
    plain = openpi_directories.write(tmp_path / "wide", wide)
    with pytest.raises(ValueError, match=r"not what this base was made from: .*mlp_1/gating_einsum"):
        write(tmp_path / "out", fused, plain, stats, "float32")
    (plain / "params" / "manifest.ocdbt").unlink()
    with pytest.raises(ValueError, match="only half copied"):
        write(tmp_path / "out", fused, plain, stats, "float32")
    assert not (tmp_path / "out").exists()


def test_the_asset_id_is_the_sources_or_the_given_one(made, tmp_path):
    source, _, base, fused = made
    stats, write = scaling(base.statistics), base.family.export_merged
    with pytest.raises(ValueError, match=r"'\.\./robot' is no relative path"):
        write(tmp_path / "out", fused, source, stats, "float32", data_set="../robot")
    (tmp_path / "params").symlink_to(source / "params")
    with pytest.raises(ValueError, match=r"has no statistics: say which asset id .*--asset"):
        write(tmp_path / "out", fused, tmp_path, stats, "float32")
    write(tmp_path / "out", fused, tmp_path, stats, "float32", data_set="robot")
    assert (tmp_path / "out" / "assets" / "robot" / "norm_stats.json").is_file()
    assert OrbaxTree(tmp_path / "out" / "params").shapes == OrbaxTree(source / "params").shapes
    assert registry.of_directory(tmp_path / "out") is base.family
