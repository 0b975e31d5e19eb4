"""A policy of another shape than SmolVLA's, registered from outside the package: METALORA_POLICIES=tests.policies.toy.

Its state is in the prompt, as digits, and enters the suffix as well; two experts stand one behind the other.
"""

import dataclasses
import functools
import json
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from metalora_jax.adapters import LoRA, Rule
from metalora_jax.policies.policy import Checkpoint, Family, Policy
from metalora_jax.types import Sizes

GRID = 4  # a picture is seen as GRID x GRID mean colours


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    state: int = 6
    action: int = 5
    chunk: int = 5
    image: int = 16
    cameras: int = 2
    tokens: int = 40
    vocabulary: int = 320
    width: int = 8
    num_steps: int = 2
    dtype: str = "float32"
    param_dtype: str = "float32"

    def to_dict(self):
        return dataclasses.asdict(self)


class ToyContext(NamedTuple):
    prefix: jax.Array  # (B, width)
    state: jax.Array  # (B, state): for the suffix


class Expert(nnx.Module):
    def __init__(self, config, width_in, linear):
        self.into = linear(width_in, config.width)
        self.out = linear(config.width, config.action)

    def __call__(self, x, bias):
        return self.out(jnp.tanh(self.into(x) + bias))


class Toy(Policy):
    type: ClassVar[str] = "toy"
    frozen_below: ClassVar = {
        "eye": "observation",
        "words": "features",
        "state_in": "context",
        "coarse": "context",
        "fine": "context",
    }

    def __init__(self, config, *, rngs):
        self.config = config
        types = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        linear = functools.partial(nnx.Linear, **types, rngs=rngs)
        self.eye = linear(3, config.width)
        self.embedding = nnx.Embed(config.vocabulary, config.width, **types, rngs=rngs)
        self.words = linear(config.width, config.width)
        self.state_in = linear(config.state, config.width)
        self.coarse = Expert(config, config.action + 1, linear)
        self.fine = Expert(config, 2 * config.action, linear)

    @property
    def sizes(self):
        return Sizes(*(getattr(self.config, name) for name in Sizes._fields))

    @property
    def num_steps(self):
        return self.config.num_steps

    def encode(self, images):
        images = jnp.asarray(images)
        side = images.shape[2] // GRID
        seen = images.reshape(*images.shape[:2], GRID, side, GRID, side, 3).mean(axis=(3, 5))
        return self.eye(seen.reshape(*images.shape[:2], GRID * GRID, 3))

    def condition(self, features, image_mask, tokens, token_mask, state):
        cells = jnp.arange(1.0, features.shape[2] + 1)[None, None, :, None]  # where a colour is matters
        seen = (jnp.asarray(features) * cells * image_mask[:, :, None, None]).sum(axis=(1, 2)) / features.shape[2]
        said = (self.embedding(jnp.asarray(tokens)) * token_mask[..., None]).sum(axis=1)
        return ToyContext(jnp.tanh(self.words(said) + seen), jnp.asarray(state))

    def velocity(self, context, x_t, t):
        bias = (context.prefix + self.state_in(context.state))[:, None]
        time = jnp.broadcast_to(t[:, None, None], (*x_t.shape[:2], 1))
        v = self.coarse(jnp.concatenate([x_t, time], axis=-1), bias)
        return (v + self.fine(jnp.concatenate([x_t, v], axis=-1), bias)).astype(jnp.float32)


def build(**overrides):
    return Toy(ToyConfig(**overrides), rngs=nnx.Rngs(0))


def _subsampled(images, size):
    step = images.shape[-2] // size
    return images[..., ::step, ::step, :][..., :size, :size, :]


class ToyFamily(Family):
    """Can be pretrained; has no public format, so that it cannot be exported."""

    type: ClassVar[str] = "toy"

    def load(self, directory, tokenizer, progress, **overrides):
        values = json.loads((directory / "config.json").read_text())
        values.pop("type")
        model = build(**(values | overrides))
        graph, state = nnx.split(model)
        found = load_file(directory / "model.safetensors")
        leaves = [
            (path, nnx.Param(jnp.asarray(found["/".join(map(str, path))], leaf.dtype)))
            for path, leaf in nnx.to_flat_state(state)
        ]
        reader = Tokenizer.from_file(str(directory / "tokenizer.json"))
        return Checkpoint(nnx.merge(graph, nnx.from_flat_state(leaves)), reader, {}, None)

    def save(self, directory, model, tokenizer):
        directory.mkdir(parents=True, exist_ok=True)
        state = nnx.to_flat_state(nnx.split(model)[1])
        save_file({"/".join(map(str, p)): np.asarray(leaf[...]) for p, leaf in state}, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps({"type": self.type, **model.config.to_dict()}))
        tokenizer.save(str(directory / "tokenizer.json"))

    def prepare_images(self, images, size):
        return (_subsampled(images, size) / 255.0 * 2 - 1).astype(np.float32)

    def tokenize(self, config, tokenizer, instruction, states):
        tokens = np.zeros((len(states), config.tokens), np.int32)
        mask = np.zeros(tokens.shape, bool)
        for row, state in enumerate(states):
            digits = " ".join(str(int(np.clip(4 * x + 8, 0, 16))) for x in state)
            ids = tokenizer.encode(f"{instruction}; {digits}\n").ids
            if len(ids) > config.tokens:
                raise ValueError(f"{instruction!r} has {len(ids)} tokens with its state, the limit is {config.tokens}")
            tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
        return tokens, mask

    def preset(self, name, *, rank=None, b_std=0.0):
        if name not in self.presets:
            raise ValueError(f"no placement named {name!r}; choose one of {', '.join(self.presets)}")
        return (Rule("coarse/.*|fine/.*", LoRA(rank=rank or 2, b_std=b_std)),)

    @property
    def presets(self):
        return ("experts",)

    def module_names(self, config):
        raise ValueError("PEFT has no names for the toy policy")

    def create(self, fields, rngs):
        return Toy(ToyConfig(**fields), rngs=rngs)

    def prepare_float_images(self, images, size):
        return _subsampled(images, size) * 2 - 1


FAMILY = ToyFamily()
