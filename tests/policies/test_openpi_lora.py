"""openpi's LoRA becomes an adapter that computes the same, by the formulas of the weights that it stands for."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from metalora_jax import adapters
from metalora_jax.adapters import LoRA, Rule, ScaleShift
from metalora_jax.policies.pi0 import openpi_factors, openpi_lora, openpi_names, presets
from tests.policies import openpi_directories, tiny_pi0

ATTENTION, MLP = ("q_einsum", "kv_einsum", "qkv_einsum", "attn_vec_einsum"), ("gating_einsum", "linear")
RANKS = {"decoder": 2, "expert": 3}
ALPHA = {"decoder": 5.0, "expert": 1.5}


def expert_of(name: str) -> str:
    return "expert" if "_1/" in name else "decoder"


def with_lora(config, seed: int = 0) -> dict[str, np.ndarray]:
    rng, tree = np.random.default_rng(seed), openpi_directories.random_tree(config, 0.2)
    for name, leaf in list(tree.items()):
        module = name.replace("_1", "").split("/")
        if "llm" in name and (module[-1] in MLP or module[-2] in ATTENTION):
            r = RANKS[expert_of(name)]
            stem = name[:-1] if name.endswith("/w") else f"{name}_"
            tree[f"{stem}lora_a"] = rng.normal(0, 0.3, (*leaf.shape[:-1], r)).astype(np.float32)
            tree[f"{stem}lora_b"] = rng.normal(0, 0.3, (*leaf.shape[:-2], r, leaf.shape[-1])).astype(np.float32)
    return tree


def merged(tree: dict[str, np.ndarray], rslora: bool, alpha: dict[str, float] = ALPHA) -> dict[str, np.ndarray]:
    """The plain weights that openpi's layers with LoRA are equal to."""
    plain = {name: leaf for name, leaf in tree.items() if "lora" not in name}
    for name in plain:
        if f"{name}_lora_a" in tree:  # no alpha here
            plain[name] = plain[name] + tree[f"{name}_lora_a"] @ tree[f"{name}_lora_b"]
        elif f"{name[:-1]}lora_a" in tree:
            a, b = (tree[f"{name[:-1]}lora_{part}"] for part in "ab")
            r = a.shape[-1]
            scale = alpha[expert_of(name)] / (r**0.5 if rslora else r)
            b = b.sum(axis=1, keepdims=True) if "attn_vec" in name else b
            plain[name] = plain[name] + scale * (a @ b)
    return plain


def velocity(model, config) -> np.ndarray:
    rng = np.random.default_rng(3)
    images = rng.uniform(-1, 1, (2, config.cameras, config.image_size, config.image_size, 3)).astype(np.float32)
    tokens = rng.integers(0, config.vocab_size, (2, config.max_tokens))
    state, x_t = rng.normal(size=(2, config.action_dim)), rng.normal(size=(2, config.horizon, config.action_dim))

    @nnx.jit
    def run(model):
        seen = np.ones((2, config.cameras), bool)
        context = model.condition(model.encode(images), seen, tokens, np.ones_like(tokens, bool), np.float32(state))
        return model.velocity(context, jax.numpy.float32(x_t), jax.numpy.array([0.2, 0.7]))

    return np.asarray(run(model))


def adapted(config, parts: openpi_lora.Parts):
    model = openpi_names.load(config, parts.tree)
    graph, _, phi = adapters.split(adapters.attach(model, parts.placement, jax.random.key(0)))
    return adapters.join(graph, parts.theta, phi)


@pytest.mark.parametrize(
    ("pi05", "kv_heads", "rslora"), [(False, 1, False), (True, 2, True), (False, 4, False)], ids=str
)
def test_it_computes_what_openpi_does(pi05, kv_heads, rslora):
    config = tiny_pi0.tiny(pi05=pi05, kv_heads=kv_heads, discrete_state_input=None)
    tree = with_lora(config)
    model = adapted(config, openpi_lora.split(tree, ALPHA, rslora))
    wanted = velocity(openpi_names.load(config, merged(tree, rslora)), config)
    plain = velocity(openpi_names.load(config, {k: v for k, v in tree.items() if "lora" not in k}), config)
    assert np.abs(wanted - plain).max() > 0.1
    np.testing.assert_allclose(velocity(model, config), wanted, atol=1e-5)


def test_alpha_is_the_rank_unless_it_is_given():
    tree = with_lora(tiny_pi0.tiny())
    (_, unsaid, theta), (_, said, same) = openpi_lora.split(tree), openpi_lora.split(tree, RANKS)
    assert unsaid == said
    assert jax.tree.all(jax.tree.map(np.array_equal, theta, same))
    assert {rule.kind.scale for rule in unsaid} == {1.0}


Q, G = "PaliGemma/llm/layers/attn/q_einsum/lora_a", "PaliGemma/llm/layers/mlp_1/gating_einsum_lora_b"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tree: tree.pop(Q), r"q_einsum/lora_b: unknown, or without its partner"),
        (lambda tree: tree.update({"state_proj/lora_a": tree[Q]}), r"state_proj/lora_a: unknown"),
        (
            lambda tree: tree.update({Q: tree[Q][..., :1], G: tree[G] * np.nan}),
            r"LoRA: .*q_einsum/lora_b .* instead of .*mlp_1/gating_einsum_lora_b is not finite",
        ),
        (lambda tree: [tree.pop(name) for name in list(tree) if "lora" in name], "no leaf belongs to LoRA"),
    ],
)
def test_nothing_is_dropped(change, complaint):
    tree = with_lora(tiny_pi0.tiny())
    change(tree)
    with pytest.raises(ValueError, match=complaint):
        openpi_lora.split(tree)


def test_alpha_of_one_expert_alone():
    with pytest.raises(ValueError, match="alpha is given for decoder; it must be for decoder and expert"):
        openpi_lora.split(with_lora(tiny_pi0.tiny()), {"decoder": 1.0})


def test_a_plain_load_refuses_lora():
    config = tiny_pi0.tiny()
    with pytest.raises(ValueError, match=r"lora_a, .* belong to LoRA.*adapter_output"):
        openpi_names.load(config, with_lora(config))


@pytest.mark.parametrize(("pi05", "kv_heads"), [(False, 1), (True, 2), (False, 4)], ids=str)
def test_what_was_split_comes_together_again(pi05, kv_heads):
    config = tiny_pi0.tiny(pi05=pi05, kv_heads=kv_heads, discrete_state_input=None)
    tree = with_lora(config)
    _, placement, theta = openpi_lora.split(tree)
    found = openpi_factors.factors(config, placement, theta, RANKS)
    wanted = {name: leaf for name, leaf in tree.items() if openpi_lora.is_factor(name)}
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        if "attn_vec" in name and name.endswith("lora_b"):  # of which openpi uses the sum alone
            leaf, found[name] = leaf.sum(axis=1), found[name].sum(axis=1)
        np.testing.assert_allclose(found[name], leaf, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("preset", ["openpi", "expert", "decoder"])
def test_an_adapter_is_the_same_function_in_openpis_factors(preset):
    """The scale is folded in, what is not adapted and what is left of the rank is zero."""
    config = tiny_pi0.tiny()
    tree = openpi_directories.random_tree(config, 0.2)
    placement = presets.preset(preset, rank=2, b_std=0.3)
    placement = tuple(Rule(r.pattern, dataclasses.replace(r.kind, rslora=True, dropout=0.1)) for r in placement)
    model = adapters.attach(openpi_names.load(config, tree), placement, jax.random.key(0))
    found = openpi_factors.factors(config, placement, adapters.split(model).theta)
    assert {leaf.shape[-1 if name.endswith("a") else -2] for name, leaf in found.items()} == {16, 32}
    again = adapted(config, openpi_lora.split(tree | found))
    wanted = velocity(model, config)
    assert np.abs(wanted - velocity(openpi_names.load(config, tree), config)).max() > 0.05
    np.testing.assert_allclose(velocity(again, config), wanted, atol=1e-5)
    np.testing.assert_allclose(
        velocity(openpi_names.load(config, merged(tree | found, False, {"decoder": 16.0, "expert": 32.0})), config),
        wanted,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        (
            (Rule("action_in_proj|vision/layers/mlp/fc1", LoRA(rank=2)),),
            "action_in_proj.*fc1: openpi has no LoRA there",
        ),
        ((Rule("expert/layers/mlp/.*", ScaleShift()),), ".*down_proj.*gate_proj.*: no plain LoRA"),
        (
            (Rule("(text|expert)/layers/self_attn/[qo]_proj", LoRA(rank=20, b_std=1.0)),),
            r"text/layers/self_attn/o_proj needs rank 20 of openpi's 16, text/layers/self_attn/q_proj [^;]*; fold",
        ),
    ],
)
def test_what_openpi_has_no_place_for_is_refused(rules, complaint):
    config = tiny_pi0.tiny()
    model = openpi_names.load(config, openpi_directories.random_tree(config))
    theta = adapters.split(adapters.attach(model, rules, jax.random.key(0))).theta
    with pytest.raises(ValueError, match=f"cannot hold this adapter: {complaint}.*--format=merged"):
        openpi_factors.factors(config, rules, theta)
