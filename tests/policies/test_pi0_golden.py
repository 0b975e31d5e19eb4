"""Parity of every stage with openpi's pi0 and pi0.5, on stored reference values (tests/golden/openpi/README.md).

`--golden-dir DIR` runs the same checks on another case of the same layout.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from metalora_jax.policies import flow
from metalora_jax.policies.pi0 import openpi_names
from metalora_jax.policies.pi0.config import CAMERAS
from metalora_jax.policies.transformer import attend, block_mask, token_positions

ATOL = 1e-4
STORED = Path(__file__).parents[1] / "golden" / "openpi"


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        return dict(stored)


class Case:
    """One directory of reference values, and everything we compute for it."""

    def __init__(self, directory: Path):
        self.params, self.ref = arrays(directory / "params.npz"), arrays(directory / "golden.npz")
        given = (
            self.ref if any(name.startswith("in/") for name in self.ref) else arrays(directory.parent / "inputs.npz")
        )
        given = {name.removeprefix("in/"): value for name, value in given.items() if name.startswith("in/")}
        said = json.loads((directory / "meta.json").read_text())["config"]
        shapes = {name: value.shape for name, value in self.params.items()}
        sizes = {"max_tokens": int(said["max_token_len"]), "horizon": int(said["action_horizon"])}
        config = openpi_names.infer(shapes, **sizes, discrete_state_input=said["discrete_state_input"] == "True")
        assert config.pi05 == (said["pi05"] == "True")
        self.model = openpi_names.load(config, self.params)
        self.images = np.stack([given[f"image/{camera}"] for camera in CAMERAS], axis=1)
        image_mask = np.stack([given[f"image_mask/{camera}"] for camera in CAMERAS], axis=1)
        self.inputs = (image_mask, given["tokenized_prompt"], given["tokenized_prompt_mask"], given["state"])
        self.noise, self.time = jnp.asarray(given["noise"]), jnp.asarray(given["time"])
        self.x_t, self.u_t = flow.interpolate(jnp.asarray(given["actions"]), self.noise, self.time)
        self.start = jnp.asarray(given["sample_noise"])
        self.ours = jax.tree.map(np.asarray, nnx.jit(self._forward)(self.model))
        self.grads = openpi_names.state_to_tree(config, nnx.jit(nnx.grad(self._mean_loss))(self.model))

    def _mean_loss(self, model):
        context = model.condition(model.encode(self.images), *self.inputs)
        return flow.squared_error(model.velocity(context, self.x_t, self.time), self.u_t).mean()

    def _forward(self, model):
        features = model.encode(self.images)
        prefix = model.embed_prefix(features, *self.inputs[:3])
        context = model.condition(features, *self.inputs)
        suffix = model.embed_suffix(context.state, self.x_t, self.time)
        v_t = model.velocity(context, self.x_t, self.time)
        # The model never builds the joint mask: its prefix rows are one block, its suffix rows are added to that.
        valid = jnp.concatenate([prefix.valid, jnp.ones_like(suffix.block, bool)], axis=1)
        block = jnp.concatenate([jnp.zeros_like(prefix.valid, jnp.int32), suffix.block], axis=1)
        out = {
            "prefix_tokens": prefix.embeddings,
            "prefix_mask": prefix.valid,
            "prefix_out": decoder_output(model.text, prefix),
            "suffix_tokens": suffix.embeddings,
            "suffix_mask": jnp.ones_like(suffix.block, bool),
            "suffix_out": model.run_suffix(context, suffix),
            "ar_mask": block[0].astype(bool),
            "attn_mask": block_mask(valid, block),
            "positions": token_positions(valid),
            "x_t": self.x_t,
            "v_t": v_t,
            "loss": flow.squared_error(v_t, self.u_t).mean(axis=-1),
        }
        if suffix.condition is not None:
            out["adarms_cond"] = suffix.condition
        for steps in (1, 10):
            out[f"sample_{steps}"] = flow.sample(lambda x, t: model.velocity(context, x, t), self.start, steps)
        return out


def decoder_output(text, prefix):
    """What openpi computes of the prefix beyond its keys and values, and never reads."""
    mask = block_mask(prefix.valid, jnp.zeros_like(prefix.valid, jnp.int32))
    positions = token_positions(prefix.valid)
    h, _ = text.run(prefix.embeddings, mask, positions)
    z, gate = text.last.input_layernorm(h, None)
    attended = attend(text.last.queries(z, positions), *text.last.keys_and_values(z, positions), mask)
    return text.norm(text.last.finish(h, attended, gate), None)[0]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    other = metafunc.config.getoption("--golden-dir")
    cases = [Path(other)] if other else [STORED / "pi0", STORED / "pi05"]
    metafunc.parametrize("case", cases, indirect=True, scope="module", ids=lambda directory: directory.name)


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_every_stage_matches(case: Case):
    values = {name.removeprefix("out/") for name in case.ref if name.startswith("out/")}
    assert values == set(case.ours)
    wrong = {}
    for name in sorted(values):
        ours, theirs = case.ours[name], case.ref[f"out/{name}"]
        assert ours.shape == theirs.shape, name
        if name == "prefix_out":  # what a padded token averages, nobody reads
            ours, theirs = (x[case.ref["out/prefix_mask"]] for x in (ours, theirs))
        if (error := np.abs(ours.astype(np.float64) - theirs).max()) > ATOL:
            wrong[name] = error
    assert not wrong


def test_gradients_match(case: Case):
    names = [name.removeprefix("grad/") for name in case.ref if name.startswith("grad/")]
    assert names
    for name in names:
        theirs = case.ref[f"grad/{name}"]
        error = np.abs(case.grads[name] - theirs).max()
        assert error <= 1e-3 * np.abs(theirs).max(), f"{name}: {error}"


def test_gradient_norms_match(case: Case):
    norms = {f"gradnorm/{name}": np.linalg.norm(g.astype(np.float64).ravel()) for name, g in case.grads.items()}
    assert set(norms) == {name for name in case.ref if name.startswith("gradnorm/")}
    for name, norm in norms.items():
        np.testing.assert_allclose(norm, case.ref[name], rtol=1e-3, atol=1e-7, err_msg=name)


def test_weights_round_trip_bit_for_bit(case: Case):
    back = openpi_names.tree_of(case.model)
    assert set(back) == set(case.params)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, case.params[name], err_msg=name)
