"""A PEFT adapter on SmolVLA, adapted by the reference implementations, reproduced (tests/golden/smolvla/README.md).

`--golden-dir DIR` runs the same checks on another case of the same layout.
"""

import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from metalora_jax import adapters, meta
from metalora_jax.adapters import peft_format
from metalora_jax.policies import flow
from metalora_jax.policies.smolvla import convert
from metalora_jax.policies.smolvla.preprocess import pad_width, prepare_images
from metalora_jax.types import TaskBatch
from tests.policies.test_smolvla_golden import config_of

RTOL = 1e-3
IMAGE = r"observation\.images\.[^.]*(?<!_padding_mask)"
KEY = jax.random.key(0)  # the reference gives noise and time, so nothing is drawn


@pytest.fixture(scope="module")
def golden(request):
    given = request.config.getoption("--golden-dir")
    directory = Path(given) if given else Path(__file__).parents[1] / "golden" / "smolvla"
    if not (directory / "lora_ref.npz").exists():
        pytest.skip(f"{directory} has no adapter reference; run without --golden-dir")
    return Golden(directory)


# Each program runs once: half the time goes if XLA does not optimise it.
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


class Golden:
    """The adapted policy of the reference case, with its batches and results."""

    def __init__(self, directory):
        self.directory = directory
        self.config = config_of(json.loads((directory / "config.json").read_text()))
        self.names = convert.module_names(self.config)
        self.placement, self.theta = peft_format.read(directory / "adapter", self.names)
        model = convert.load_lerobot_tensors(self.config, load_file(directory / "model.safetensors"))
        self.graph, fresh, self.phi = adapters.split(adapters.attach(model, self.placement, KEY))
        assert jax.tree.structure(fresh) == jax.tree.structure(self.theta)
        with np.load(directory / "lora_ref.npz") as ref:
            self.ref = dict(ref)
        self.support, self.query = self._batch("support"), self._batch("query")
        self.steps = int(self.ref["inner_steps"])
        self.sgd = optax.sgd(float(self.ref["inner_lr"]))

    def _batch(self, name):
        with np.load(self.directory / f"{name}.npz") as file:
            raw = dict(file)
        keys = [key for key in raw if re.fullmatch(IMAGE, key)]
        cameras = [jnp.asarray(raw[key].transpose(0, 2, 3, 1)) for key in keys]
        images, mask = prepare_images(cameras, self.config.image_size)
        for camera, key in enumerate(keys):
            if (given := raw.get(f"{key}_padding_mask")) is not None:
                mask = mask.at[:, camera].set(given)
        actions = jnp.asarray(pad_width(raw["action"], self.config.max_action_dim, "action"))
        x_t, u_t = flow.interpolate(actions, jnp.asarray(raw["noise"]), jnp.asarray(raw["time"]))
        inputs = (
            mask,
            jnp.asarray(raw["observation.language.tokens"].astype(np.int32)),
            jnp.asarray(raw["observation.language.attention_mask"]),
            jnp.asarray(pad_width(raw["observation.state"], self.config.max_state_dim)),
        )
        # No adapter sits in the vision tower: its features are computed once.
        features = jit(lambda m, x: m.encode(x))(adapters.join(self.graph, self.theta, self.phi), images)
        return features, inputs, x_t, u_t, jnp.asarray(raw["time"])

    def loss(self, theta, batch, key):
        features, inputs, x_t, u_t, time = batch
        model = adapters.join(self.graph, theta, self.phi)
        return jnp.mean(jnp.square(model.velocity(model.condition(features, *inputs), x_t, time) - u_t))

    def tasks(self):
        support = jax.tree.map(lambda x: jnp.broadcast_to(x[None, None], (1, self.steps, *x.shape)), self.support)
        return TaskBatch(support, jax.tree.map(lambda x: x[None], self.query))

    def expect(self, kind, ours):
        """Every tensor of `kind` in the reference equals ours."""
        keys = [key for key in self.ref if key.startswith(f"{kind}:")]
        assert len(keys) == 2 * sum("lora_A" in key for key in keys) > 0
        scale = max(np.abs(self.ref[key]).max() for key in keys)
        for key in keys:
            name, part = re.fullmatch(rf"{kind}:base_model\.model\.(.*)\.lora_([AB])\.default\.weight", key).groups()
            path, layer = self.names[name]
            leaf = ours["/".join(path)][part.lower()]
            got = np.asarray(leaf if layer is None else leaf[layer]).T
            # Relative to the tensor's largest entry; the floor is for the dead tensors, whose gradient is zero.
            atol = RTOL * np.abs(self.ref[key]).max() + 1e-6 * scale
            np.testing.assert_allclose(got, self.ref[key], rtol=0, atol=atol, err_msg=key)


@pytest.fixture(scope="module")
def first(golden):
    """(loss, gradient) on the support set at the adapter as it is."""
    return jit(jax.value_and_grad(golden.loss))(golden.theta, golden.support, KEY)


def test_first_gradient(golden, first):
    loss, gradient = first
    np.testing.assert_allclose(loss, golden.ref["support_losses"][0], rtol=1e-4)
    golden.expect("grad0", gradient)


def test_first_order(golden):
    for kind, method in (("fomaml", meta.fomaml), ("reptile", meta.reptile)):
        method = method(golden.loss, golden.sgd)
        gradient, metrics = jit(method.gradient)(method.init(golden.theta), golden.tasks(), KEY)
        np.testing.assert_allclose(metrics["support_losses"], golden.ref["support_losses"], rtol=1e-4)
        np.testing.assert_allclose(metrics["query_loss"], golden.ref["query_loss"], rtol=1e-4)
        golden.expect(kind, gradient["theta"])
        if kind == "reptile":
            golden.expect("adapted", jax.tree.map(jnp.subtract, golden.theta, gradient["theta"]))


def test_second_order(golden):
    method = meta.maml(golden.loss, golden.sgd)
    gradient, _ = jit(method.gradient)(method.init(golden.theta), golden.tasks(), KEY)
    golden.expect("maml2", gradient["theta"])


def test_the_last_layers_queries_are_dead(golden, first):
    """Of the language model's last layer the expert reads keys and values only."""
    dead = adapters.dead_adapters(first[1])
    maps = ("mlp/down_proj", "mlp/gate_proj", "mlp/up_proj", "self_attn/o_proj", "self_attn/q_proj")
    assert dead == [f"text/last/{name}" for name in maps]


def test_write_then_read(golden, tmp_path):
    peft_format.write(tmp_path, golden.placement, golden.theta, golden.names)
    placement, theta = peft_format.read(tmp_path, golden.names)
    assert placement == golden.placement
    jax.tree.map(np.testing.assert_array_equal, theta, golden.theta)
    ours, theirs = (load_file(d / peft_format.WEIGHTS) for d in (tmp_path, golden.directory / "adapter"))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
