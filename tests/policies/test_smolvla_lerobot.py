"""lerobot's policy directories: read as they are, refused by name where they are not as they should be."""

import json
import re

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from metalora_jax.policies import hub
from metalora_jax.policies.smolvla import convert, lerobot
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA
from tests import lerobot_directory

WEIGHTS = "model.safetensors"


@pytest.fixture
def directory(tmp_path):
    return lerobot_directory.write(tmp_path / "policy", lerobot_directory.small())


def edit(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_the_public_checkpoint_has_the_tensors_that_we_read():
    config = SmolVLAConfig.base()
    state = nnx.state(nnx.eval_shape(lambda: SmolVLA(config, rngs=nnx.Rngs(0))))
    ours = {tuple(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(state)}
    listed = lerobot_directory.full_size()
    table = convert.tensor_names(config)
    assert set(listed) == set(table) | set(convert.UNUSED)
    for name, slot in table.items():
        shape = ours[slot.path][0 if slot.layer is None else 1 :]
        assert np.prod(shape) == np.prod(listed[name][0]), name


def test_a_directory_is_read_whole(directory):
    config = lerobot_directory.small()
    found = convert.load(directory)
    assert found.model.config == config
    assert found.tokenizer is not None
    tensors = load_file(directory / WEIGHTS)
    written = convert.to_lerobot_tensors(found.model)
    assert set(written) == set(tensors) - set(convert.UNUSED)
    for name, value in written.items():
        np.testing.assert_array_equal(value, tensors[name].astype(np.float32))
    np.testing.assert_array_equal(found.statistics[""]["action"]["std"], np.full(6, 2.0))


def test_fields_without_effect_are_named(directory, monkeypatch):
    said = []
    monkeypatch.setattr(lerobot.logging, "warning", lambda text, *args: said.append(text % args))
    convert.load(directory)
    assert not said
    edit(directory / "config.json", optimizer_lr=1e-3, device="cuda", pretrained_revision=None, new_attention="flash")
    convert.load(directory)
    (line,) = said
    assert "config.json: new_attention: unknown to this version, and ignored" in line


def test_old_statistics_among_the_weights_are_no_weights(directory):
    tensors = load_file(directory / WEIGHTS)
    tensors["so100.buffer.action.mean"] = np.ones(6, np.float32)
    save_file(tensors, directory / WEIGHTS)
    found = convert.load(directory)
    np.testing.assert_array_equal(found.statistics["so100"]["action"]["mean"], np.ones(6))


def test_weights_can_stay_in_bfloat16(directory):
    found = convert.load(directory, param_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(found.model))} == {"bfloat16"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"type": "pi0"}, "type = 'pi0' is not supported"),
        ({"adapt_to_pi_aloha": True}, "adapt_to_pi_aloha = True is not supported"),
        ({"num_expert_layers": 1}, "num_expert_layers = 1 is not supported"),
        ({"resize_imgs_with_padding": [8, 8]}, r"resize_imgs_with_padding must be \[16, 16\]"),
        ({"vlm_model_name": "someone/else"}, "sizes of vlm_model_name = 'someone/else' are unknown"),
        ({"num_expert_layers": "0"}, "num_expert_layers is '0'; it must be a whole number"),
        ({"chunk_size": "50"}, r"config\.json: SmolVLAConfig: chunk_size is '50'; it must be a whole number"),
        ({"add_image_special_tokens": "false"}, "add_image_special_tokens is 'false'; it must be true or false"),
        ({"input_features": {"observation.state": [6]}}, "input_features is .*; it must hold features by name"),
        ({"num_vlm_layers": 3}, "missing; does config.json describe these weights"),
    ],
)
def test_what_is_not_computed_here_is_refused(directory, fields, complaint):
    edit(directory / "config.json", **fields)
    with pytest.raises(ValueError, match=complaint):
        convert.load(directory)


def test_a_pickle_in_disguise_is_refused(directory):
    (directory / WEIGHTS).write_bytes(b"\x80\x02}q\x00X\x04\x00\x00\x00evil")
    with pytest.raises(ValueError, match=r"model\.safetensors is a renamed PyTorch pickle"):
        convert.load(directory)
    (directory / WEIGHTS).rename(directory / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model\.safetensors is missing \(pytorch_model\.bin is a pickle"):
        convert.load(directory)


def test_a_truncated_file_is_refused(directory):
    whole = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, download it again"):
        convert.load(directory)


@pytest.mark.parametrize(
    ("prefix", "name"), [("so100.buffer.", "so100"), ("so100-red_buffer_", "so100-red"), ("buffer_", "")]
)
def test_older_statistics_are_found_by_their_data_set(tmp_path, prefix, name):
    statistics = {f"{prefix}action.mean": np.arange(6, dtype=np.float32), f"{prefix}action.std": np.ones(6, np.float32)}
    found = convert.load(lerobot_directory.write(tmp_path, lerobot_directory.small(), statistics))
    np.testing.assert_array_equal(found.statistics[name]["action"]["mean"], np.arange(6))


def test_statistics_among_the_weights_are_found_and_names_of_compiled_models_understood(directory):
    tensors = load_file(directory / WEIGHTS)
    tensors = {name.replace("model.", "model._orig_mod.", 1): value for name, value in tensors.items()}
    tensors["normalize_inputs.so100_buffer_observation_state.mean"] = np.zeros(6, np.float32)
    tensors["normalize_inputs.buffer_observation_images_top.mean"] = np.zeros((3, 1, 1), np.float32)
    save_file(tensors, directory / WEIGHTS)
    assert set(convert.load(directory).statistics["so100"]) == {"observation.state"}


def test_the_tokens_around_an_image_are_the_tokenizers_own(directory):
    edit(directory / "config.json", add_image_special_tokens=True)
    with pytest.raises(ValueError, match="the tokenizer has no token <fake_token_around_image> or <global-img>; use"):
        convert.load(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    held = json.loads(tokenizer.to_str())
    names = {3: "<global-img>", 4: "<fake_token_around_image>"}
    vocabulary = {names.get(number, token): number for token, number in held["model"]["vocab"].items()}
    held["model"]["vocab"], held["model"]["merges"] = vocabulary, []
    (directory / "tokenizer.json").write_text(json.dumps(held))
    config = convert.load(directory).model.config
    assert (config.fake_image_token_id, config.global_image_token_id) == (4, 3)


def test_a_tokenizer_is_taken_from_where_one_says(directory, tmp_path):
    (directory / "tokenizer.json").rename(tmp_path / "other.json")
    assert convert.load(directory, tokenizer=tmp_path / "other.json").tokenizer is not None
    with pytest.raises(ValueError, match=rf"no tokenizer\.json in .*; put that of .* into {re.escape(str(directory))}"):
        convert.load(directory)


def test_without_a_network_the_message_says_which_files_to_put_where(monkeypatch):
    def offline(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(
        ValueError, match=r"nor available from the hub .* put config\.json, model\.safetensors, .* into a"
    ):
        convert.load("lerobot/smolvla_base")
    with pytest.raises(ValueError, match="is neither a directory nor a name on the hub"):
        convert.load("/nowhere/at/all")


def test_the_hub_is_asked_for_what_is_read(monkeypatch, directory):
    monkeypatch.setattr(hub, "snapshot_download", lambda name, revision, allow_patterns: str(directory))
    assert convert.load("lerobot/smolvla_base").model.config == lerobot_directory.small()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"input_features": {"a": {"type": "visual", "shape": [3]}}},
            "the type of a is 'visual'; it must be one of STATE",
        ),
        ({"output_features": {"a": {"type": "ACTION", "shape": "6"}}}, "output_features: the shape of a is '6'"),
        ({"input_features": None}, "input_features is None; it must hold features by name"),
        ({"vlm_model_name": 3}, "vlm_model_name is 3; it must be text"),
        ({"empty_cameras": -1}, "empty_cameras is -1; it must be a whole number"),
        ({"normalization_mapping": ["MEAN_STD"]}, r"config\.json: normalization_mapping is .*; it must name a mode"),
    ],
)
def test_fields_of_another_form_are_refused(directory, fields, complaint):
    edit(directory / "config.json", **fields)
    with pytest.raises(ValueError, match=complaint):
        convert.load(directory)
