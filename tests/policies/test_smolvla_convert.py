"""Weights in and out of lerobot's names: strict by name, exact, and never half written."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_smolvla import LowRank, build
from tokenizers import Tokenizer, models

from metalora_jax.policies import tensor_file
from metalora_jax.policies.smolvla import convert
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA

NAME = "model.vlm_with_expert.lm_expert.layers.2.self_attn.k_proj.weight"


@pytest.fixture(scope="module")
def model() -> SmolVLA:
    return build(layers=3)


@pytest.fixture
def tensors(model) -> dict[str, np.ndarray]:
    return convert.to_lerobot_tensors(model)


def same(a: SmolVLA, b: SmolVLA) -> bool:
    return bool(jax.tree.all(jax.tree.map(lambda x, y: jnp.array_equal(x, y), nnx.state(a), nnx.state(b))))


def test_round_trip_is_exact(model, tensors):
    assert same(convert.load_lerobot_tensors(model.config, tensors), model)


def test_layers_of_both_expert_kinds_keep_their_places(model, tensors):
    stem = "model.vlm_with_expert.lm_expert.layers.{}.mlp.up_proj.weight"
    # Three layers, of which 0 and 2 are self-attention.
    for layer, (stack, index) in enumerate([("self_layers", 0), ("cross_layers", 0), ("self_layers", 1)]):
        kernel = getattr(model.expert, stack).mlp.up_proj.kernel[...]
        np.testing.assert_array_equal(tensors[stem.format(layer)], kernel[index].T)


def test_a_missing_tensor_is_named(model, tensors):
    del tensors[NAME]
    with pytest.raises(ValueError, match=f"{re.escape(NAME)} missing"):
        convert.load_lerobot_tensors(model.config, tensors)


def test_an_unknown_tensor_is_named_but_the_known_unused_are_accepted(model, tensors):
    tensors |= {name: np.zeros(1, np.float32) for name in convert.UNUSED}
    convert.load_lerobot_tensors(model.config, tensors)
    with pytest.raises(ValueError, match=r"model\.extra unknown"):
        convert.load_lerobot_tensors(model.config, tensors | {"model.extra": np.zeros(1)})


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda x: x.T, r"shape \(24, 16\), the config requires \(16, 24\)"),
        (lambda x: np.where(x == x.max(), np.nan, x), "NaN"),
        (lambda x: np.where(x == x.max(), np.inf, x), "infinity"),
    ],
)
def test_a_bad_tensor_is_named(model, tensors, spoil, complaint):
    tensors[NAME] = spoil(tensors[NAME])
    with pytest.raises(ValueError, match=f"{re.escape(NAME)} .*{complaint}"):
        convert.load_lerobot_tensors(model.config, tensors)


def test_bfloat16_weights_are_read(model, tensors):
    half = {name: tensor.astype(jnp.bfloat16) for name, tensor in tensors.items()}
    loaded = convert.load_lerobot_tensors(model.config, half)
    assert loaded.connector.kernel.dtype == jnp.float32
    np.testing.assert_allclose(loaded.connector.kernel[...], model.connector.kernel[...], rtol=1e-2)


def test_adapters_have_no_lerobot_name():
    model = build()
    base = model.action_in_proj
    model.action_in_proj = LowRank(base, jnp.zeros((4, 1)), jnp.zeros((1, base.kernel.shape[1])))
    with pytest.raises(ValueError, match=r"action_in_proj\.a.*adapters"):
        convert.to_lerobot_tensors(model)


def test_the_public_size_has_the_published_inventory():
    config = SmolVLAConfig.base()
    state = nnx.state(nnx.eval_shape(lambda: SmolVLA(config, rngs=nnx.Rngs(0))))
    unused = config.vocab_size * config.text_hidden + config.text_hidden
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) + unused == 450_046_176
    assert len(convert.tensor_names(config)) + len(convert.UNUSED) == 500
    assert (config.expert_hidden, config.expert_mlp) == (720, 2048)


def test_module_names_cover_every_linear_map_of_the_towers():
    config = SmolVLAConfig.base()
    names = convert.module_names(config)
    shapes = {
        path: leaf.shape
        for path, leaf in nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: SmolVLA(config, rngs=nnx.Rngs(0)))))
    }

    def lora_parameters(pattern: str, rank: int) -> tuple[int, int]:
        hits = [slot for name, slot in names.items() if re.fullmatch(pattern, name)]
        return len(hits), sum(rank * sum(shapes[(*slot.path, "kernel")][-2:]) for slot in hits)

    # Counts of a PEFT adapter on the original, (modules, parameters).
    assert lora_parameters(r".*text_model\.layers\.\d+\.self_attn\.[qkvo]_proj", 4) == (64, 409_600)
    assert lora_parameters(r".*text_model\.layers\.\d+\.mlp\.(gate|up|down)_proj", 4) == (48, 675_840)
    assert lora_parameters(r".*lm_expert\.layers\.\d+\.self_attn\.[qkvo]_proj", 8) == (64, 645_120)
    assert lora_parameters(r".*lm_expert\.layers\.\d+\.mlp\.(gate|up|down)_proj", 8) == (48, 1_062_912)
    assert lora_parameters(r"model\.action_(in_proj|out_proj|time_mlp_in|time_mlp_out)", 8) == (4, 40_832)
    assert lora_parameters(r"model\.state_proj", 8) == (1, 7_936)
    assert len(names) == 229 + 12 * 6 + 1  # and the vision tower's, and the connector


def test_saved_policies_load(model, tmp_path):
    convert.save(tmp_path / "policy", model)
    loaded, tokenizer, *_ = convert.load(tmp_path / "policy")
    assert tokenizer is None
    assert loaded.config == model.config
    assert same(loaded, model)


def test_the_tokenizer_travels_along_without_its_own_truncation(model, tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"push": 0, "?": 1}, unk_token="?"))
    tokenizer.enable_truncation(3)
    convert.save(tmp_path, model, tokenizer)
    loaded = convert.load(tmp_path).tokenizer
    assert loaded is not None
    assert loaded.encode("push").ids == [0]
    assert loaded.truncation is None


def test_an_interrupted_save_leaves_the_old_policy(model, tmp_path, monkeypatch):
    convert.save(tmp_path, model)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(path, tensors):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tensor_file, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        convert.save(tmp_path, build(layers=4))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_damaged_directories_are_named(model, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        convert.load(tmp_path)
    convert.save(tmp_path, model)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: "):
        convert.load(tmp_path)
    convert.save(tmp_path, model)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        convert.load(tmp_path)
    convert.save(tmp_path, model)
    convert.save(tmp_path / "deeper", build(layers=4))
    (tmp_path / "deeper" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="unknown"):
        convert.load(tmp_path)
