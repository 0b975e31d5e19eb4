"""Parity of every stage with lerobot's SmolVLA, on stored reference values (tests/golden/smolvla/README.md).

`--golden-dir DIR` runs the same checks on another case of the same layout: other modes, sizes and switches.
"""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from metalora_jax.policies import flow
from metalora_jax.policies.smolvla import convert
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.expert import suffix_mask
from metalora_jax.policies.smolvla.model import time_embedding
from metalora_jax.policies.smolvla.preprocess import pad_width, prepare_images
from metalora_jax.policies.transformer import block_mask, token_positions

ATOL = 1e-4
IMAGE = r"observation\.images\.[^.]*(?<!_padding_mask)"


def config_of(case: dict) -> SmolVLAConfig:
    vision, text = case["vision"], case["text"]
    return SmolVLAConfig(
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        vision_hidden=vision["hidden_size"],
        vision_layers=vision["num_hidden_layers"],
        vision_heads=vision["num_attention_heads"],
        vision_mlp=vision["intermediate_size"],
        layer_norm_eps=vision["layer_norm_eps"],
        pixel_shuffle=case["scale_factor"],
        vocab_size=text["vocab_size"],
        text_hidden=text["hidden_size"],
        layers=case["num_vlm_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text["head_dim"],
        text_mlp=text["intermediate_size"],
        rms_norm_eps=text["rms_norm_eps"],
        # The case gives the width itself: half a unit keeps int() from rounding it down.
        expert_width_multiplier=(case["expert_hidden"] + 0.5) / text["hidden_size"],
        attention_mode=case["attention_mode"],
        self_attn_every_n_layers=max(0, case["self_attn_every_n_layers"]),  # lerobot's -1 is our 0: none
        min_period=case["min_period"],
        max_period=case["max_period"],
        max_state_dim=case["max_state_dim"],
        max_action_dim=case["max_action_dim"],
        chunk_size=case["chunk_size"],
        num_steps=case["num_steps"],
        prefix_length=case["prefix_length"],
        add_image_special_tokens=case["add_image_special_tokens"],
        fake_image_token_id=case["fake_image_token_id"],
        global_image_token_id=case["global_image_token_id"],
    )


class Case:
    """One directory of reference values, and everything we compute for it."""

    def __init__(self, directory: Path):
        self.raw = json.loads((directory / "config.json").read_text())
        self.config = config_of(self.raw)
        self.tensors = load_file(directory / "model.safetensors")
        self.model = convert.load_lerobot_tensors(self.config, self.tensors)
        with np.load(directory / "batch.npz") as batch:
            self.batch = dict(batch)
        with np.load(directory / "ref.npz") as ref:
            self.ref = dict(ref)
        self.images, self.inputs = self._inputs()
        self.actions = jnp.asarray(pad_width(self.batch["action"], self.config.max_action_dim, "action"))
        self.noise, self.time = jnp.asarray(self.batch["noise"]), jnp.asarray(self.batch["time"])
        self.is_pad = jnp.asarray(self.batch["action_is_pad"])
        self.x_t, self.u_t = flow.interpolate(self.actions, self.noise, self.time)
        self.ours = jax.tree.map(np.asarray, nnx.jit(self._forward)(self.model))
        # Plain nnx.grad over all parameters: reverse mode through the scans of all three towers.
        self.grads = convert.state_to_tensors(self.config, nnx.jit(nnx.grad(self._mean_loss))(self.model))

    def _inputs(self):
        keys = [key for key in self.batch if re.fullmatch(IMAGE, key)]
        absent = sum(bool(re.fullmatch(r"image\d+", key)) for key in self.ref) - len(keys)
        cameras = [jnp.asarray(self.batch[key].transpose(0, 2, 3, 1)) for key in keys] + [None] * absent
        images, mask = prepare_images(cameras, self.config.image_size)
        for camera, key in enumerate(keys):
            if (given := self.batch.get(f"{key}_padding_mask")) is not None:
                mask = mask.at[:, camera].set(given)
        tokens = jnp.asarray(self.batch["observation.language.tokens"].astype(np.int32))
        token_mask = jnp.asarray(self.batch["observation.language.attention_mask"])
        state = jnp.asarray(pad_width(self.batch["observation.state"], self.config.max_state_dim))
        return images, (mask, tokens, token_mask, state)

    def _mean_loss(self, model):
        context = model.condition(model.encode(self.images), *self.inputs)
        return flow.flow_loss(model.velocity(context, self.x_t, self.time), self.u_t, self.is_pad, 1, "all")

    def _forward(self, model):
        features = model.encode(self.images)
        prefix = model.embed_prefix(features, *self.inputs)
        context = model.condition(features, *self.inputs)
        v_t = model.velocity(context, self.x_t, self.time)
        out = {
            "prefix_embs": prefix.embeddings,
            "suffix_embs": model.embed_suffix(self.x_t, self.time),
            "x_t": self.x_t,
            "u_t": self.u_t,
            "v_t": v_t,
            "losses": flow.squared_error(v_t, self.u_t),
            "v_t_step0": model.velocity(context, self.noise, jnp.ones_like(self.time)),
            "sample_full": flow.sample(lambda x, t: model.velocity(context, x, t), self.noise, self.config.num_steps),
            "time_emb": time_embedding(
                self.time, self.config.expert_hidden, self.config.min_period, self.config.max_period
            ),
            "denoise1_mask": suffix_mask(context.mask, self.x_t.shape[1]),
        }
        out["sample_unpadded"] = out["sample_full"][..., : self.raw["action_dim"]]
        # The model never builds the joint mask: its prefix rows are block_mask, its suffix rows suffix_mask. By the
        # same rule both are one block mask over prefix and suffix, in which every action begins a block.
        suffix = jnp.ones(self.x_t.shape[:2], bool)
        valid = jnp.concatenate([prefix.valid, suffix], axis=1)
        block = jnp.concatenate([prefix.block, suffix.astype(jnp.int32)], axis=1)
        out["att_2d_mask"] = block_mask(valid, block)
        out["position_ids"] = token_positions(valid)
        out["denoise1_position_ids"] = out["position_ids"][:, prefix.valid.shape[1] :]
        for camera in range(self.images.shape[1]):
            out[f"image{camera}"] = self.images[:, camera].transpose(0, 3, 1, 2)
            out[f"image_mask{camera}"] = self.inputs[0][:, camera]
            out[f"vision_hidden{camera}"] = model.vision(self.images[:, camera])
        for layer in range(self.config.layers):
            out[f"cache_k{layer}"], out[f"cache_v{layer}"] = context.k[:, layer], context.v[:, layer]
        for reduction, name in (("all", "loss_044"), ("valid", "loss_main")):
            out[name] = flow.flow_loss(v_t, self.u_t, self.is_pad, self.raw["action_dim"], reduction)
        k, v = jnp.moveaxis(context.k, 1, 0), jnp.moveaxis(context.v, 1, 0)
        out["suffix_out"] = model.expert(out["suffix_embs"], k, v, context.mask)
        return out


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return Case(Path(request.config.getoption("--golden-dir") or Path(__file__).parents[1] / "golden" / "smolvla"))


def test_every_stage_matches(case: Case):
    values = {name for name in case.ref if not name.startswith("grad") and name != "zero_grad_params"}
    assert values <= set(case.ours), f"not compared: {sorted(values - set(case.ours))}"
    wrong = {}
    for name in sorted(values):
        ours, theirs = case.ours[name], case.ref[name]
        assert ours.shape == theirs.shape, name
        if (error := np.abs(ours.astype(np.float64) - theirs).max()) > ATOL:
            wrong[name] = error
    assert not wrong


def test_suffix_rows_of_the_joint_mask(case: Case):
    prefix = case.ours["prefix_embs"].shape[1]
    np.testing.assert_array_equal(case.ours["denoise1_mask"], case.ours["att_2d_mask"][:, prefix:])


def test_gradients_match(case: Case):
    names = [name for name in case.ref if name.startswith("grad:")]
    assert names
    for name in names:
        theirs = case.ref[name]
        error = np.abs(case.grads[name.removeprefix("grad:")] - theirs).max()
        assert error <= 1e-3 * np.abs(theirs).max(), f"{name}: {error}"


def test_gradient_norm_and_dead_parameters(case: Case):
    norm = np.sqrt(sum(np.square(g.astype(np.float64)).sum() for g in case.grads.values()))
    np.testing.assert_allclose(norm, case.ref["grad_norm_all"], rtol=1e-4)
    dead = {name for name, grad in case.grads.items() if not grad.any()}
    assert dead == set(case.ref["zero_grad_params"].tolist()) - set(convert.UNUSED)


def test_weights_round_trip_bit_for_bit(case: Case):
    back = convert.to_lerobot_tensors(case.model)
    assert set(back) == set(case.tensors) - set(convert.UNUSED)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, case.tensors[name], err_msg=name)
