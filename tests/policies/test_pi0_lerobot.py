"""lerobot's directories of pi0 and pi0.5: read as they are, refused by name where they are not as they should be."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from metalora_jax.adaptation import base as bases
from metalora_jax.policies.pi0 import family, family_pi05, lerobot, lerobot_names, preprocess
from metalora_jax.types import Demo
from tests import lerobot_pi0_directory as directories
from tests.lerobot_pi0_directory import BOS, JOINTS

WEIGHTS = "model.safetensors"
TYPES = ("pi0", "pi05")
P, E = "model.paligemma_with_expert.paligemma", "model.paligemma_with_expert.gemma_expert"
EMBEDDING, HEAD = f"{P}.model.language_model.embed_tokens.weight", f"{P}.lm_head.weight"


def load(directory, **overrides):
    own = family_pi05 if json.loads((directory / "config.json").read_text())["type"] == "pi05" else family
    return own.FAMILY.load(directory, None, iter, **overrides)


def edit(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change(directory, **tensors):
    """Puts tensors in, or takes those out that are None."""
    there = load_file(directory / WEIGHTS) | tensors
    save_file({name: value for name, value in there.items() if value is not None}, directory / WEIGHTS)


@pytest.fixture
def said(monkeypatch):
    found = []
    monkeypatch.setattr(lerobot.logging, "warning", lambda text, *args: found.append(text % args))
    return found


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("type_", TYPES)
def test_a_directory_becomes_a_base(tmp_path, type_, new):
    directory = directories.write(tmp_path / "policy", type_, new)
    base, source = bases.convert(directory)
    assert "the policy's own, in policy_preprocessor_step_" in source
    config = base.config
    assert (base.model.type, config.pi05, config.cameras) == (type_, type_ == "pi05", 2)
    assert (config.horizon, config.num_steps, config.max_tokens) == (5, 4, 150 if type_ == "pi05" else 48)
    assert (config.heads, config.kv_heads, config.head_dim, config.layers) == (8, 1, 8, 3)
    assert (config.image_size, config.vision_layers, config.vision_heads, config.action_dim) == (28, 2, 16, 32)
    assert config.style == ("lerobot" if new else "lerobot_0.4")
    assert base.embodiment.cameras == ("front", "wrist")
    known = directories.statistics()
    if type_ == "pi0":
        expected = known["action.mean"], known["action.std"] + np.float32(1e-8)
    else:
        low, high = known["action.q01"], known["action.q99"]
        expected = (low + high) / 2, (high - low) / 2
    np.testing.assert_allclose(base.statistics.action_mean, expected[0], rtol=1e-6)
    np.testing.assert_allclose(base.statistics.action_std, expected[1], rtol=1e-6)
    bases.save(tmp_path / "base", base)
    assert bases.load(tmp_path / "base").fingerprint == base.fingerprint


@pytest.mark.parametrize("type_", TYPES)
def test_tensors_come_back_as_they_were(tmp_path, type_):
    directory = directories.write(tmp_path / "policy", type_)
    tensors = load_file(directory / WEIGHTS)
    model = load(directory).model
    back = lerobot_names.tensors_of(model)
    assert set(tensors) - set(back) == {HEAD, f"{E}.lm_head.weight"}
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)
    # torch's rows are outputs; the decoder's last layer stands apart; a convolution's kernel is (out, in, row, column)
    q = tensors[f"{P}.model.language_model.layers.1.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(model.text.layers.self_attn.q_proj.kernel[1], q.T)
    k = tensors[f"{P}.model.language_model.layers.2.self_attn.k_proj.weight"]
    np.testing.assert_array_equal(model.text.last.self_attn.k_proj.kernel[...], k.T)
    patches = tensors[f"{P}.model.vision_tower.vision_model.embeddings.patch_embedding.weight"]
    np.testing.assert_array_equal(model.vision.patch_embedding.kernel[14 * 3 + 2], patches[:, 2, 1, 0])
    norm = "input_layernorm.dense.weight" if type_ == "pi05" else "input_layernorm.weight"
    norms, theirs = model.expert.layers.input_layernorm, tensors[f"{E}.model.layers.2.{norm}"]
    np.testing.assert_array_equal(norms.modulation.kernel[2] if type_ == "pi05" else norms.scale[2], theirs.T)


def test_the_names_are_those_that_peft_writes(tmp_path):
    """A linear map's name in PEFT's files is its tensor's, without ".weight"."""
    for type_ in TYPES:
        directory = directories.write(tmp_path / type_, type_)
        config = load(directory).model.config
        maps = {
            name.removesuffix(".weight")
            for name, shape in directories.shapes(type_).items()
            if name.endswith(".weight") and len(shape) == 2 and "embed" not in name and "lm_head" not in name
        }
        assert maps == set(family.FAMILY.module_names(config))


def test_the_embedding_may_stand_under_the_heads_name_and_counts_before_it(tmp_path):
    directory = directories.write(tmp_path / "policy", "pi0")
    tensors = load_file(directory / WEIGHTS)
    table = np.asarray(load(directory).model.text.embed_tokens.embedding[...])
    np.testing.assert_array_equal(table, tensors[EMBEDDING])
    assert not np.array_equal(table, tensors[HEAD])
    change(directory, **{EMBEDDING: None})
    np.testing.assert_array_equal(load(directory).model.text.embed_tokens.embedding[...], tensors[HEAD])


def test_names_without_the_prefix_and_bfloat16_are_read(tmp_path):
    directory = directories.write(tmp_path / "policy", "pi05")
    tensors = load_file(directory / WEIGHTS)
    narrow = {
        name.removeprefix("model."): value.astype(jax.numpy.bfloat16) if "gemma_expert" in name else value
        for name, value in tensors.items()
    }
    save_file(narrow, directory / WEIGHTS)
    model = load(directory).model
    assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(model))} == {"float32"}
    expected = narrow["paligemma_with_expert.gemma_expert.model.norm.dense.bias"].astype(np.float32)
    np.testing.assert_array_equal(model.expert.norm.modulation.bias[...], expected)
    halves = load(directory, param_dtype="bfloat16").model
    assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(halves))} == {"bfloat16"}


def test_all_that_is_wrong_with_the_weights_is_named(tmp_path):
    directory = directories.write(tmp_path / "policy", "pi0")
    tensors, layer = load_file(directory / WEIGHTS), f"{E}.model.layers.1"
    nan = tensors["model.state_proj.bias"].copy()
    nan[3] = np.nan
    change(
        directory,
        **{
            f"{layer}.mlp.up_proj.weight": None,
            f"{layer}.self_attn.q_norm.weight": np.zeros(8, np.float32),
            f"{layer}.self_attn.v_proj.weight": tensors[f"{layer}.self_attn.v_proj.weight"].T.copy(),
            "model.state_proj.bias": nan,
        },
    )
    with pytest.raises(ValueError, match=r"model\.safetensors: ") as error:
        load(directory)
    for said in (
        f"{layer}.mlp.up_proj.weight missing",
        f"{layer}.self_attn.q_norm.weight unknown",
        f"{layer}.self_attn.v_proj.weight (24, 8) instead of (8, 24) misshapen",
        "model.state_proj.bias not finite",
    ):
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"max_action_dim": 16}, r"config\.json: max_action_dim is 16, the weights are for 32"),
        ({"max_state_dim": 16}, r"max_state_dim is 16, the weights are for 32"),
        ({"image_resolution": [224, 224]}, r"image_resolution is \[224, 224\], the weights are for \[28, 28\]"),
        ({"type": "pi05"}, r"type is 'pi05', the weights are those of a pi0"),
        ({"n_obs_steps": 2}, "n_obs_steps = 2 is not supported"),
        ({"chunk_size": "5"}, "horizon"),
        ({"empty_cameras": -1}, "empty_cameras is -1"),
        ({"empty_cameras": 3}, "cameras=5 must be at most 3"),
        ({"proj_width": 1024}, r"proj_width is of lerobot's own pi0 up to 0\.3"),
        ({"input_features": {"observation.state": 3}}, "input_features"),
        ({"use_relative_actions": True}, r"actions are relative by use_relative_actions in config\.json \(True\)"),
    ],
)
def test_a_config_that_contradicts_the_weights_or_asks_for_more(tmp_path, fields, complaint):
    directory = directories.write(tmp_path / "policy", "pi0")
    edit(directory / "config.json", **fields)
    with pytest.raises(ValueError, match=complaint) as error:
        load(directory)
    assert str(directory) in str(error.value)


def test_what_is_not_known_is_said(tmp_path, said):
    directory = directories.write(tmp_path / "policy", "pi0")
    load(directory)
    assert len(said) == 2  # of the variants, whose sizes are the real ones
    assert "paligemma_variant is 'gemma_2b', but the weights are 32 wide" in said[0]
    edit(directory / "config.json", new_attention="flash", optimizer_lr=1)
    load(directory)
    assert any("new_attention: unknown to this version, and ignored" in line for line in said)


@pytest.mark.parametrize("type_", TYPES)
def test_pi05_without_quantiles(tmp_path, type_):
    known = {name: row for name, row in directories.statistics().items() if not name.rsplit(".", 1)[1].startswith("q")}
    directory = directories.write(tmp_path / "policy", type_, known=known)
    if type_ == "pi0":
        bases.load(directory)
        return
    with pytest.raises(
        ValueError, match=r"has no q01, q99 of it.*augment_dataset_quantile_stats\.py.*provide your own"
    ):
        bases.load(directory)
    base, _ = bases.convert(directory, demos())
    assert np.isfinite(base.statistics.state_std).all()
    by_mean = directories.write(
        tmp_path / "means", type_, known=known, normalization_mapping={"STATE": "MEAN_STD", "ACTION": "MIN_MAX"}
    )
    np.testing.assert_allclose(bases.load(by_mean).statistics.state_mean, known["observation.state.mean"])


def demos(count=3, length=40):
    rng = np.random.default_rng(0)
    states = [np.cumsum(rng.normal(size=(length, JOINTS)), 0).astype(np.float32) for _ in range(count)]
    frames = np.zeros((length, 2, 8, 8, 3), np.uint8)
    return [Demo("go", frames, state, state + np.float32(0.1)) for state in states]


def test_without_statistics_demonstrations_are_needed(tmp_path):
    directory = directories.write(tmp_path / "policy", "pi05", False, known={})
    with pytest.raises(ValueError, match=r"no statistics of observation\.state"):
        bases.convert(directory)
    base, _ = bases.convert(directory, demos())
    assert base.config.style == "lerobot"  # it is openpi's, and lerobot has not trained it


def test_relative_actions_are_recognised(tmp_path):
    names = ["shoulder.pos", "elbow.pos", "wrist.pos", "roll.pos", "yaw.pos", "Gripper.pos"]
    fields = dict(use_relative_actions=True, action_feature_names=names)
    directory = directories.write(tmp_path / "policy", "pi0", **fields)
    mask = [True] * 5 + [False]
    assert bases.load(directory).statistics.relative.tolist() == mask
    assert bases.convert(directory, demos())[0].statistics.relative.tolist() == mask
    with pytest.raises(ValueError, match="says itself that its actions are relative"):
        bases.convert(directory, absolute=True)
    unnamed = directories.write(tmp_path / "unnamed", "pi05", **(fields | {"action_feature_names": None}))
    assert bases.load(unnamed).statistics.relative.all()  # lerobot leaves nothing out then
    post = unnamed / "policy_postprocessor.json"
    post.write_text(post.read_text().replace('"enabled": true', '"enabled": false'))
    with pytest.raises(ValueError, match=r"by policy_postprocessor\.json \(False\), but not by all"):
        bases.load(unnamed)


def test_cameras_that_are_absent(tmp_path):
    directory = directories.write(tmp_path / "policy", "pi0", cameras=("front",), empty_cameras=2)
    base = bases.load(directory)
    assert (base.sizes.cameras, base.embodiment.cameras) == (3, ("front",))
    # as lerobot writes them, once it has run
    saved = directories.write(tmp_path / "saved", "pi0", cameras=("front", "empty_camera_0"), empty_cameras=1)
    base = bases.load(saved)
    assert (base.sizes.cameras, base.embodiment.cameras) == (2, ("front",))


def test_tokenizers(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path / "nothing"))
    directory = directories.write(tmp_path / "policy", "pi0")
    (directory / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=rf"put tokenizer\.json of google/paligemma-3b-pt-224.*into {directory}"):
        bases.load(directory)
    bases.load(directory, tokenizer=tmp_path / "tokenizer.json")
    other = directories.tokenizer()
    other.add_tokens(["<another>"])
    (words := tmp_path / "words").mkdir()
    values = json.loads(other.to_str())
    values["added_tokens"] = values["added_tokens"][:3]
    (words / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"the policy embeds 320: it is another model's"):
        bases.load(directory, tokenizer=words)


def test_prompts_by_each_rule(tmp_path):
    words = directories.tokenizer()
    states = np.array([[0.0, -1.0, 2.0]], np.float32)

    def prompt(config, text="push_it\n"):
        tokens, mask = preprocess.tokenize(config, words, text, states)
        assert tokens[0, 0] == BOS
        return words.decode(tokens[0][mask[0]][1:].tolist())

    pi0 = load(directories.write(tmp_path / "pi0", "pi0")).model.config
    assert prompt(pi0) == "push_it\n"
    new = load(directories.write(tmp_path / "new", "pi05")).model.config
    assert prompt(new) == "Task: push it, State: 128 0 255;\nAction: "
    old = load(directories.write(tmp_path / "old", "pi05", False)).model.config
    assert prompt(old) == f"Task: push it, State: 128 0 255{' 128' * 29};\nAction: "


def test_borders_of_pictures_by_each_rule():
    images = np.full((1, 20, 40, 3), 255, np.uint8)
    for style, border in (("openpi", -1), ("lerobot", -1), ("lerobot_0.4", -3)):
        made = preprocess.prepare_frames(images, 28, style)
        assert made[0, :7].min() == made[0, :7].max() == border
        np.testing.assert_allclose(made[0, 7:21], 1.0, atol=1e-5)
    stripes = np.zeros((1, 56, 56, 3), np.uint8)
    stripes[:, :, ::4] = 255  # sampled every second pixel, without a look at what lies between
    smooth, sharp = (preprocess.prepare_frames(stripes, 28, style) for style in ("openpi", "lerobot"))
    assert np.ptp(smooth[0, 5, 5:20]) < np.ptp(sharp[0, 5, 5:20])
