"""pi0 and pi0.5 around the network: sizes, openpi's names, prompts, pictures, placements, number types."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from metalora_jax import adapters
from metalora_jax.adaptation import base as bases
from metalora_jax.data import normalize
from metalora_jax.policies import registry
from metalora_jax.policies.pi0 import openpi_names, preprocess, presets
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import Pi0, build
from metalora_jax.training.pretrain import train_tokenizer
from tests.policies import tiny_pi0
from tests.tiny_base import INSTRUCTIONS, make_demos

BASES = {"pi0": Pi0Config.pi0_base(), "pi05": Pi0Config.pi05_base()}


@pytest.mark.parametrize(("name", "count", "leaves"), [("pi0", 3_238_048_528, 50), ("pi05", 3_353_433_872, 51)])
def test_the_real_sizes_are_openpis(name, count, leaves):
    shapes = {leaf: known.shape for leaf, known in openpi_names.leaves(BASES[name]).items()}
    assert (sum(map(math.prod, shapes.values())), len(shapes)) == (count, leaves)
    assert openpi_names.infer(shapes) == BASES[name]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kv_heads": 3}, "kv_heads=3 must divide heads=4"),
        ({"cameras": 4}, "cameras=4 must be at most 3"),
        ({"layers": 0}, "layers=0 must be a positive integer"),
        ({"layers": 2.0}, "layers is 2.0; it must be a whole number"),
        ({"bos_token_id": 40}, "bos_token_id=40 must be None or in"),
        ({"discrete_state_input": True}, "discrete_state_input=True is for pi0.5"),
        ({"dtype": "float64"}, "dtype='float64' must be one of"),
    ],
)
def test_configs_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_pi0.tiny(**fields)


def test_configs_travel_as_json():
    config = tiny_pi0.tiny(pi05=True, discrete_state_input=False)
    assert Pi0Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match=r"missing keys .*horizon"):
        Pi0Config.from_dict({k: v for k, v in config.to_dict().items() if k != "horizon"})
    with pytest.raises(ValueError, match=r"a pi0 policy cannot have Pi0Config\(pi05=True\)"):
        Pi0(config, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("fields", [{"kv_heads": 4}, {"kv_heads": 2, "pi05": True}, {"layers": 1}])
def test_weights_go_to_openpi_and_back(fields):
    model = tiny_pi0.build(**fields)
    tree = openpi_names.tree_of(model)
    assert ("PaliGemma/llm/layers/attn/qkv_einsum/w" in tree) == (model.config.kv_heads == model.config.heads)
    given = {name: getattr(model.config, name) for name in ("max_tokens", "horizon", "num_steps", "cameras")}
    config = openpi_names.infer({k: v.shape for k, v in tree.items()}, bos_token_id=None, **given)
    assert config == model.config
    again = nnx.split(openpi_names.load(config, tree))[1]
    jax.tree.map(np.testing.assert_array_equal, again, nnx.split(model)[1])


def test_all_that_is_wrong_with_a_tree_is_named_at_once():
    model = tiny_pi0.build()
    tree = openpi_names.tree_of(model)
    norm = "PaliGemma/llm/final_norm_1/scale"
    wrong = tree | {
        "PaliGemma/llm/layers/attn/q_einsum/lora_a": np.zeros(1),
        "extra/kernel": np.zeros(1),
        "state_proj/bias": np.zeros(3, np.float32),
        norm: np.full_like(tree[norm], np.nan),
    }
    del wrong["action_in_proj/kernel"]
    with pytest.raises(ValueError, match="belong to LoRA") as error:
        openpi_names.load(model.config, wrong)
    for said in (
        "q_einsum/lora_a belong to LoRA: fold them",
        "action_in_proj/kernel missing",
        "extra/kernel unknown",
        "state_proj/bias (3,) instead of (16,) misshapen",
        f"{norm} not finite",
    ):
        assert said in str(error.value)
    adapted = adapters.attach(model, presets.preset("head"), jax.random.key(0))
    with pytest.raises(ValueError, match=r"action_in_proj/.* have no name in openpi; fuse or detach"):
        openpi_names.tree_of(adapted)


def characters(limit):
    """One token for each character: its code; a tokenizer that would begin every text with token 3 by itself."""
    tokenizer = Tokenizer(models.WordLevel({chr(i): i for i in range(limit)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = TemplateProcessing(single="\x03 $A", special_tokens=[("\x03", 3)])
    return tokenizer


def said(config, instruction, states):
    tokens, mask = preprocess.tokenize(config, characters(128), instruction, np.asarray(states, np.float32))
    assert tokens.shape == mask.shape == (len(states), config.max_tokens)
    assert not tokens[~mask].any()
    return ["".join(map(chr, row[kept])) for row, kept in zip(tokens, mask, strict=True)]


def test_pi0_is_told_the_instruction_and_a_newline():
    config = tiny_pi0.tiny(vocab_size=128, max_tokens=14, bos_token_id=2)
    assert said(config, " push_the\ncup ", [[0.0], [1.0]]) == ["\x02push the cup\n"] * 2
    with pytest.raises(ValueError, match="'push the cup now' has 18 tokens, the limit is 14"):
        said(config, "push_the_cup_now", [[0.0]])
    with pytest.raises(ValueError, match="has token 117, beyond vocab_size=110"):
        said(dataclasses.replace(config, vocab_size=110), "push", [[0.0]])


def test_pi05_is_told_the_state_in_256_bins():
    config = tiny_pi0.tiny(pi05=True, vocab_size=128, max_tokens=60, bos_token_id=2)
    states = [[-1.0, 0.0, 0.999], [-1.5, 2.0, 1 / 128]]
    assert said(config, "push\n", states) == [
        "\x02Task: push, State: 0 128 255;\nAction: ",
        "\x02Task: push, State: -1 255 129;\nAction: ",
    ]
    plain = dataclasses.replace(config, discrete_state_input=False, bos_token_id=None)
    assert said(plain, "push", states) == ["push\n"] * 2
    with pytest.raises(ValueError, match="has 39 tokens, the limit is 20"):
        said(dataclasses.replace(config, max_tokens=20), "push", states)


@pytest.mark.parametrize("shape", [(60, 80), (81, 50), (20, 31)])
def test_pictures_are_resized_and_padded_as_with_pil(shape):
    size, rng = 32, np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    ratio = max(shape) / size
    small = Image.fromarray(image).resize((int(shape[1] / ratio), int(shape[0] / ratio)), Image.Resampling.BILINEAR)
    expected = Image.new("RGB", (size, size))
    expected.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    ours = preprocess.prepare_frames(image[None], size)[0]
    assert np.abs(ours - (np.asarray(expected) / 127.5 - 1)).max() < 2 / 127.5
    assert (ours[np.asarray(expected).sum(axis=-1) == 0] == -1).all()


@pytest.mark.parametrize("name", BASES)
def test_presets_place_what_they_say(name):
    def theta(preset):
        model = build(BASES[name], rngs=nnx.Rngs(0))
        return adapters.split(adapters.attach(model, presets.preset(preset), jax.random.key(0))).theta

    found = {preset: nnx.eval_shape(lambda preset=preset: theta(preset)) for preset in ("plan", "openpi", "all_linear")}
    ranks = {
        preset: {path.split("/")[0]: parts["a"].shape[-1] for path, parts in placed.items()}
        for preset, placed in found.items()
    }
    heads = ("action_in_proj", "action_out_proj") + (
        ("time_mlp_in", "time_mlp_out") if name == "pi05" else ("action_time_mlp_in", "action_time_mlp_out")
    )
    assert ranks["plan"] == {"text": 4, "expert": 8} | dict.fromkeys(heads, 8)
    assert ranks["openpi"] == {"text": 16, "expert": 32}
    every = nnx.eval_shape(lambda: build(BASES[name], rngs=nnx.Rngs(0)))
    left_out = set(adapters.linear_maps(every)) - set(found["all_linear"])
    assert left_out == set(presets.dead(left_out)) != set()
    # q, k, v, o and the MLP of a layer; of the last one k and v alone
    decoder = 17 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 16384)) + 2 * (2048 + 256)
    expert = 18 * (2 * (1024 + 2048) + 2 * (1024 + 256) + 3 * (1024 + 4096))
    assert adapters.count(found["openpi"]).total == 16 * decoder + 32 * expert


@pytest.mark.parametrize("name", BASES)
def test_every_linear_map_has_lerobots_name(name):
    names = registry.family(name).module_names(BASES[name])
    paths = {"/".join(path) for path, _ in names.values()}
    model = nnx.eval_shape(lambda: build(BASES[name], rngs=nnx.Rngs(0)))
    assert set(adapters.linear_maps(model)) - paths == {"vision/patch_embedding"}
    last = "model.paligemma_with_expert.paligemma.model.language_model.layers.17.mlp.down_proj"
    assert names[last] == (("text", "last", "mlp", "down_proj"), None)
    assert names["model.paligemma_with_expert.gemma_expert.model.layers.3.self_attn.q_proj"] == (
        ("expert", "layers", "self_attn", "q_proj"),
        3,
    )


def test_bfloat16_rounds_and_no_more():
    wide = tiny_pi0.build(pi05=True)
    config = dataclasses.replace(wide.config, dtype="bfloat16", param_dtype="bfloat16")
    narrow = openpi_names.load(config, openpi_names.tree_of(wide))
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (1, 2, 16, 16, 3)).astype(np.float32)
    words = np.arange(6)[None] + 1, np.ones((1, 6), bool)
    x_t = jnp.asarray(rng.normal(size=(1, 5, 4)), jnp.float32)

    @nnx.jit
    def velocity(model):
        context = model.condition(model.encode(images), np.ones((1, 2), bool), *words, np.ones((1, 4), np.float32))
        return context, model.velocity(context, x_t, jnp.full(1, 0.3))

    (_, expected), (context, found) = velocity(wide), velocity(narrow)
    assert context.k.dtype == jnp.bfloat16
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_pi05_takes_statistics_by_quantiles(tmp_path):
    tokenizer = train_tokenizer(list(INSTRUCTIONS.values()), 320)
    demos = [demo for task in INSTRUCTIONS for demo in make_demos(task, cameras=2)]
    for name, mode in (("pi0", {}), ("pi05", {"STATE": "QUANTILES", "ACTION": "QUANTILES"})):
        family, policy = registry.family(name), tiny_pi0.build(pi05=name == "pi05", vocab_size=320)
        assert family.modes == mode
        family.save(tmp_path / name, policy, tokenizer)
        made, _ = bases.convert(tmp_path / name, demos)
        expected = normalize.compute(demos, modes=mode)
        jax.tree.map(np.testing.assert_array_equal, made.statistics, expected)
