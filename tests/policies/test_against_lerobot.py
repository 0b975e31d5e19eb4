"""Side by side with lerobot and peft, which run in an environment of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.peer.client import VERSIONS, Peer
from metalora_jax import adapters
from metalora_jax.adapters import peft_format
from metalora_jax.policies import flow
from metalora_jax.policies.smolvla import convert, export, preprocess
from metalora_jax.policies.smolvla.presets import preset
from tests import lerobot_directory

pytestmark = pytest.mark.lerobot
LORA = {
    "r": 4,
    "lora_alpha": 8,
    "target_modules": r"(model\.vlm_with_expert\.lm_expert\..*\.(q|v)_proj|model\.(state_proj|action_in_proj))",
    "rank_pattern": {r".*\.v_proj": 2},
    "init_lora_weights": False,
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return lerobot_directory.write(tmp_path_factory.mktemp("policy"), lerobot_directory.small())


@pytest.fixture(scope="module")
def model(policy):
    return convert.load(policy).model


@pytest.fixture(scope="module")
def batch(model, tmp_path_factory):
    config, rng, size = model.config, np.random.default_rng(0), 3
    images = rng.uniform(-1, 1, (size, config.cameras, 3, config.image_size, config.image_size))
    tokens = rng.integers(0, config.vocab_size, (size, config.max_tokens))
    lengths = np.array([5, config.max_tokens, 9])
    chunk = (size, config.chunk_size, config.max_action_dim)
    arrays = dict(
        images=images.astype(np.float32),
        image_mask=np.array([[True, True], [True, False], [True, True]]),
        tokens=tokens.astype(np.int32),
        token_mask=np.arange(config.max_tokens)[None] < lengths[:, None],
        state=rng.normal(size=(size, config.max_state_dim)).astype(np.float32),
        actions=rng.normal(size=chunk).astype(np.float32),
        noise=rng.normal(size=chunk).astype(np.float32),
        t=np.array([0.2, 0.5, 0.9], np.float32),
    )
    file = tmp_path_factory.mktemp("batch") / "batch.npz"
    np.savez(file, **arrays)
    return file, {name: jnp.asarray(value) for name, value in arrays.items()}


@pytest.fixture(scope="module", params=VERSIONS)
def peer(request, lerobot_python):
    with Peer(lerobot_python(request.param)) as running:
        yield running


def without_dropout(name):
    rules = preset(name, b_std=0.1)
    return tuple(dataclasses.replace(rule, kind=dataclasses.replace(rule.kind, dropout=0.0)) for rule in rules)


def loss_of(model, arrays):
    images = jnp.moveaxis(arrays["images"], 2, -1)
    rest = (arrays[name] for name in ("image_mask", "tokens", "token_mask", "state"))
    context = model.condition(model.encode(images), *rest)
    x_t, u = flow.interpolate(arrays["actions"], arrays["noise"], arrays["t"])
    return flow.squared_error(model.velocity(context, x_t, arrays["t"]), u).mean()


def peer_loss(peer, policy, batch, adapter=None):
    peer.load(policy=str(policy), vlm=str(policy / "vlm"), adapter=str(adapter) if adapter else None)
    peer.batch(file=str(batch[0]))
    return peer.loss()["loss"]


def test_the_base_has_the_same_loss(peer, policy, model, batch):
    assert float(loss_of(model, batch[1])) == pytest.approx(peer_loss(peer, policy, batch), rel=1e-5)


@pytest.mark.parametrize("name", ["plan", "lerobot"])
def test_our_adapter_has_the_same_loss_and_gradient_there(peer, policy, model, batch, tmp_path, name):
    placement = without_dropout(name)
    graph, theta, phi = adapters.split(adapters.attach(model, placement, jax.random.key(0)))
    names = convert.module_names(model.config)
    peft_format.write(tmp_path / "adapter", placement, theta, names, base_model=str(policy))
    loss, gradient = jax.value_and_grad(lambda theta: loss_of(adapters.join(graph, theta, phi), batch[1]))(theta)
    assert peer_loss(peer, policy, batch, tmp_path / "adapter") == pytest.approx(float(loss), rel=1e-5)
    peer.gradients(file=str(tmp_path / "gradients.npz"))
    theirs = np.load(tmp_path / "gradients.npz")
    found = 0
    for module, (path, layer) in names.items():
        for part, leaf in gradient.get("/".join(path), {}).items():
            ours = np.asarray(leaf if layer is None else leaf[layer]).T
            key = f"base_model.model.{module}.lora_{part.upper()}.default.weight"
            np.testing.assert_allclose(theirs[key], ours, atol=1e-3 * np.abs(ours).max() + 1e-7)
            found += 1
    assert found == len(theirs.files)


def test_their_adapter_has_the_same_loss_here(peer, policy, model, batch, tmp_path):
    peer.load(policy=str(policy), vlm=str(policy / "vlm"), lora=LORA)
    peer.batch(file=str(batch[0]))
    expected = peer.loss()["loss"]
    peer.save_adapter(directory=str(tmp_path / "adapter"))
    placement, theta = peft_format.read(tmp_path / "adapter", convert.module_names(model.config))
    assert {rule.kind.rank for rule in placement} == {2, 4}
    attached = adapters.attach(model, placement, jax.random.key(0))
    graph, _, phi = adapters.split(attached)
    loss = loss_of(adapters.join(graph, theta, phi), batch[1])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(loss) != pytest.approx(float(loss_of(model, batch[1])), rel=1e-3)


def test_exports_load_there_with_the_same_loss(peer, policy, model, batch, tmp_path):
    placement = without_dropout("plan")
    adapted = adapters.attach(model, placement, jax.random.key(0))
    expected = pytest.approx(float(loss_of(adapted, batch[1])), rel=1e-5)
    statistics = {
        f"{feature}.{stat}": np.full(6, value, np.float32)
        for feature in ("observation.state", "action")
        for stat, value in (("mean", 0.5), ("std", 2.0))
    }
    export.merged(tmp_path / "merged", adapters.fuse(adapted), policy, statistics, "float32")
    theta = adapters.split(adapted).theta
    export.peft(tmp_path / "peft", placement, theta, model, str(policy), policy, statistics, {})
    peer.load(policy=str(tmp_path / "merged"), vlm=str(policy / "vlm"))
    peer.batch(file=str(batch[0]))
    assert peer.loss()["loss"] == expected
    assert peer_loss(peer, policy, batch, tmp_path / "peft") == expected
    for directory in ("merged", "peft"):
        answer = peer.normalize(directory=str(tmp_path / directory), state=[2.5] * 6, action=[1.0] * 6)
        np.testing.assert_allclose(answer["state"], 1.0, rtol=1e-6)  # (2.5 - 0.5) / 2
        np.testing.assert_allclose(answer["action"], 2.5, rtol=1e-6)  # 1 * 2 + 0.5


def test_tokens_are_the_same(peer, policy, model):
    texts = ["pick up the cube", "open the drawer\n", "a very long instruction " * 6]
    tokenizer = convert.load(policy).tokenizer
    tokens, mask = preprocess.prepare_text(tokenizer, texts, model.config, truncate="left")
    theirs = peer.tokenize(tokenizer=str(policy / "tokenizer.json"), texts=texts, length=model.config.max_tokens)
    np.testing.assert_array_equal(mask, np.array(theirs["mask"], bool))
    np.testing.assert_array_equal(np.where(mask, tokens, 0), np.where(mask, theirs["ids"], 0))


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (10, 10), (100, 30)])
def test_pictures_are_prepared_the_same(peer, tmp_path, shape):
    images = np.random.default_rng(0).uniform(size=(2, 3, *shape)).astype(np.float32)
    np.save(tmp_path / "in.npy", images)
    peer.prepare(source=str(tmp_path / "in.npy"), size=32, file=str(tmp_path / "out.npy"))
    ours = preprocess.prepare_image(jnp.moveaxis(jnp.asarray(images), 1, -1), 32)
    np.testing.assert_allclose(np.moveaxis(np.load(tmp_path / "out.npy"), 1, -1), ours, atol=1e-5)
