"""openpi's checkpoint directories become bases: any layout of Orbax, its statistics, its LoRA; nothing is left out."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tokenizers import Tokenizer, models

from metalora_jax.adaptation import adapter as adapters
from metalora_jax.adaptation import base as bases
from metalora_jax.adapters import LoRA, Rule, attach, fuse
from metalora_jax.data import normalize
from metalora_jax.policies import tensor_file
from metalora_jax.policies.pi0 import openpi_checkpoint, openpi_names
from metalora_jax.policies.pi0.orbax_tree import OrbaxTree
from tests.policies import openpi_directories, tiny_pi0
from tests.policies.test_openpi_lora import ALPHA, merged, velocity, with_lora

CONFIG = tiny_pi0.tiny(action_dim=6, cameras=3, bos_token_id=2)
SIZES = {"horizon": CONFIG.horizon, "max_tokens": CONFIG.max_tokens}
FILE = "norm_stats.json"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    def write(size):
        file = tmp_path_factory.mktemp("words") / "tokenizer.json"
        Tokenizer(models.WordLevel({str(i): i for i in range(size)}, unk_token="0")).save(str(file))
        return file

    return write


@pytest.fixture(scope="module")
def tree():
    return openpi_directories.random_tree(CONFIG)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tree):
    stats = {"physical-intelligence/libero": openpi_directories.statistics(5, 4)}
    return openpi_directories.write(tmp_path_factory.mktemp("openpi") / "30000", tree, stats)


def layouts(directory, tree):
    """What openpi and third parties write, by name: the directory to give."""
    nested = openpi_directories.nested
    half = nested({name: jnp.asarray(leaf, jnp.bfloat16) for name, leaf in tree.items()})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / "standard" / "params", {"params": half})
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    state = nested({f"{name}/value": leaf for name, leaf in tree.items()})
    with ocp.CheckpointManager(directory / "run", item_names=("params",), options=options) as manager:
        manager.save(7, args=ocp.args.Composite(params=ocp.args.PyTreeSave({"params": state})))
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True)) as checkpointer:
        checkpointer.save(directory / "files", nested(tree))
    return {"standard, bfloat16": directory / "standard", "manager, value": directory / "run" / "7"} | {
        "files, zarr3, params itself": directory / "files"
    }


def test_every_layout_gives_the_same_weights(tmp_path, tree, words):
    for name, directory in layouts(tmp_path, tree).items():
        model = openpi_checkpoint.load(directory, words(CONFIG.vocab_size), iter, **SIZES).model
        back = openpi_names.tree_of(model)
        for leaf, value in tree.items():
            wanted = value.astype(jnp.bfloat16).astype(np.float32) if "bfloat16" in name else value
            np.testing.assert_array_equal(back[leaf], wanted, err_msg=f"{name}: {leaf}")


def test_convert_makes_a_whole_base(tmp_path, checkpoint, tree, words, caplog):
    base, source = bases.convert(checkpoint, tokenizer=words(CONFIG.vocab_size), horizon=5)
    assert "max_tokens=48: openpi's defaults" in caplog.text
    assert "horizon" not in caplog.text
    assert source.startswith(f"the policy's own, in assets/physical-intelligence/libero/{FILE}: state by mean and")
    bases.save(tmp_path / "base", base)
    assert bases.load(tmp_path / "base").fingerprint == base.fingerprint
    assert base.config.action_dim == 6
    assert len(base.statistics.state_mean) == 5


def test_statistics_normalise_as_openpi_does(tmp_path, words):
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    stats = openpi_directories.statistics(5, 4)
    known = stats["state"]
    known["std"][0], known["q99"][0] = 0.003, known["q01"][0] + 0.01  # where the 1e-6 counts
    mean, std, q01, q99 = (np.array(known[name]) for name in ("mean", "std", "q01", "q99"))
    for pi05, wanted in ((False, (x - mean) / (std + 1e-6)), (True, (x - q01) / (q99 - q01 + 1e-6) * 2 - 1)):
        tree = openpi_directories.random_tree(tiny_pi0.tiny(action_dim=6, pi05=pi05))
        directory = openpi_directories.write(tmp_path / str(pi05), tree, {"robot": stats})
        base, _ = bases.convert(directory, tokenizer=words(CONFIG.vocab_size))
        assert base.config.pi05 == pi05
        np.testing.assert_allclose(normalize.normalize_state(base.statistics, x, 5), wanted, rtol=1e-5, atol=1e-5)


def with_stats(checkpoint, tmp_path, change, asset="robot"):
    """A copy with other statistics."""
    there = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, there)
    shutil.rmtree(there / "assets")
    stats = openpi_directories.statistics(5, 4)
    change(stats)
    for name in asset.split(","):
        (there / "assets" / name).mkdir(parents=True)
        (there / "assets" / name / FILE).write_text(json.dumps({"norm_stats": stats}))
    return there


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda stats: stats.pop("actions"), rf"{FILE}: norm_stats.actions is missing"),
        (lambda stats: stats["state"]["mean"].append(1.0), r"norm_stats.state.std has 5 dimensions, its mean 6"),
        (lambda stats: stats["state"].update(std=[1, 1, float("nan"), 1, 1]), "state.std is not finite in dimension 2"),
        (lambda stats: stats["actions"].update(mean=None), "actions.mean is None; it must be a list"),
    ],
)
def test_damaged_statistics(checkpoint, tmp_path, words, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        bases.convert(with_stats(checkpoint, tmp_path, change), tokenizer=words(CONFIG.vocab_size))


def test_statistics_of_another_width_or_of_several_robots(checkpoint, tmp_path, words, caplog):
    wide = openpi_directories.statistics(8, 8)
    directory = with_stats(checkpoint, tmp_path, lambda stats: stats.update(wide), "droid,aloha/mobile")
    given = {"tokenizer": words(CONFIG.vocab_size)}
    with pytest.raises(ValueError, match=r"data sets aloha/mobile .*, droid .*; choose one \(metalora convert --asset"):
        bases.convert(directory, **given)
    base, _ = bases.convert(directory, data_set="droid", **given)
    assert "8 dimensions, the policy 6: the first 6 are taken" in caplog.text
    apart = {"relative": ["0", "1"]}  # a config with DeltaActions
    narrow, _ = bases.convert(directory, data_set="droid", widths=(5, 4), **given, **apart)
    assert [len(part) for part in narrow.statistics[:4]] == [5, 5, 4, 4]
    assert narrow.statistics.relative.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(narrow.statistics.action_std, base.statistics.action_std[:4])


def test_pi05_needs_quantiles(tmp_path, words):
    stats = openpi_directories.statistics(5, 4)
    stats["actions"].update(q01=None, q99=None)
    tree = openpi_directories.random_tree(tiny_pi0.tiny(pi05=True))
    directory = openpi_directories.write(tmp_path / "pi05", tree, {"robot": stats})
    with pytest.raises(ValueError, match=r"action: .* needs the statistic 'q01', found only \['mean', 'std'\]"):
        bases.convert(directory, tokenizer=words(CONFIG.vocab_size))


def test_all_that_is_wrong_with_the_weights_is_named(tmp_path, tree, words):
    wrong = dict(tree)
    wrong.pop("state_proj/bias")
    wrong["state_proj/scale"] = np.ones(3, np.float32)
    wrong["action_in_proj/bias"] = np.ones(3, np.float32)
    wrong["action_out_proj/bias"] = tree["action_out_proj/bias"] * np.nan
    directory = openpi_directories.write(tmp_path / "wrong", wrong)
    complaint = r"params: state_proj/bias missing.*scale unknown.*in_proj/bias \(3,\) instead.*out_proj/bias not finite"
    with pytest.raises(ValueError, match=complaint):
        openpi_checkpoint.load(directory, words(CONFIG.vocab_size), iter)


@pytest.mark.parametrize("gone", ["_METADATA", "manifest.ocdbt", "d", "ocdbt.process_0"])
def test_half_a_copy(checkpoint, tmp_path, words, gone):
    there = tmp_path / "half"
    shutil.copytree(checkpoint, there)
    at = there / "params" / gone
    shutil.rmtree(at) if at.is_dir() else at.unlink()
    with pytest.raises(ValueError, match=r"half/params is .*half copied"):
        bases.convert(there, tokenizer=words(CONFIG.vocab_size))


def test_a_tensor_is_read_when_it_is_asked_for(checkpoint, tree, monkeypatch):
    read = []
    monkeypatch.setattr(OrbaxTree, "__getitem__", lambda self, name: read.append(name))
    opened = OrbaxTree(checkpoint / "params")
    assert "state_proj/bias" in opened
    assert opened.shapes == {name: leaf.shape for name, leaf in tree.items()}
    assert not read


def test_tokenizers(checkpoint, tmp_path, words, monkeypatch):
    with pytest.raises(ValueError, match="the tokenizer has 41 tokens, the policy embeds 40: it is another model's"):
        bases.convert(checkpoint, tokenizer=words(41))
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"no tokenizer: put paligemma_tokenizer\.model .*--tokenizer"):
        bases.convert(checkpoint)


def test_lora_becomes_a_base_and_an_adapter(tmp_path, words):
    tree = with_lora(CONFIG)
    stats = {"robot": openpi_directories.statistics(5, 4)}
    directory = openpi_directories.write(tmp_path / "lora", tree, stats)
    given = {"tokenizer": words(CONFIG.vocab_size), **SIZES}
    with pytest.raises(ValueError, match=r"holds LoRA beside its weights; .* --adapter_output=ADAPTER"):
        bases.load(directory, **given)
    base, _, placement, theta = bases.convert_with_adapter(directory, **given, lora_alpha=ALPHA)
    bases.save(tmp_path / "base", base)
    adapters.save(tmp_path / "adapter", base, placement, {"theta": theta}, config={"openpi": str(directory)})
    loaded = adapters.load(tmp_path / "adapter", bases.load(tmp_path / "base"))
    wanted = velocity(openpi_names.load(base.config, merged(tree, rslora=False)), base.config)
    np.testing.assert_allclose(velocity(loaded.learner.model(), base.config), wanted, atol=1e-5)


def test_lora_that_is_not_there(checkpoint, words):
    with pytest.raises(ValueError, match="holds no adapter beside its weights"):
        bases.convert_with_adapter(checkpoint, tokenizer=words(CONFIG.vocab_size))
    assert jax.tree.leaves(openpi_checkpoint.load(checkpoint, words(CONFIG.vocab_size), iter).adapter) == []


def test_a_base_with_adapters_folded_into_some_maps_is_written_exactly(tmp_path, tree):
    model = openpi_names.load(dataclasses.replace(CONFIG, param_dtype="bfloat16"), tree)
    placement = (Rule(r"text/layers/self_attn/v_proj|expert/layers/mlp/up_proj", LoRA(rank=2, b_std=0.1)),)
    fused = fuse(attach(model, placement, jax.random.key(0)))
    tensor_file.write(tmp_path / "fused", openpi_names.pieces_of(fused))
    written, whole = tensor_file.TensorFile(tmp_path / "fused"), openpi_names.tree_of(fused)
    assert set(written) == set(whole)
    for name, value in whole.items():
        assert written[name].dtype == value.dtype, name
        np.testing.assert_array_equal(written[name], value, err_msg=name)
    assert {name for name, value in whole.items() if value.dtype == np.float32} == {
        "PaliGemma/llm/layers/attn/kv_einsum/w",
        "PaliGemma/llm/layers/mlp_1/gating_einsum",
    }
