"""A base: the frozen policy with all that must travel with it, as one directory.

config.json  model.safetensors  tokenizer.json     the policy, see `policies.smolvla.convert`
normalization.json                                 statistics of the tasks it was trained on
README.md                                          its card
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx
from tokenizers import Tokenizer

from metalora_jax import trees
from metalora_jax.data.frames import Sizes
from metalora_jax.data.normalize import Statistics
from metalora_jax.policies.smolvla import convert, preprocess
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA

NANO = Path(convert.__file__).parent / "nano"
_STATISTICS = "normalization.json"


class Base(NamedTuple):
    """A frozen policy and its conventions."""

    model: SmolVLA
    tokenizer: Tokenizer
    statistics: Statistics
    fingerprint: str  # of weights, config and statistics; adapters name the base that they fit by it

    @property
    def config(self) -> SmolVLAConfig:
        """Sizes and switches of the policy."""
        return self.model.config

    @property
    def sizes(self) -> Sizes:
        """Widths that demonstrations are padded to."""
        return Sizes(self.config.max_state_dim, self.config.max_action_dim, self.config.chunk_size)

    def encode_text(self, instruction: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (max_tokens,) and their mask; a ValueError where the instruction is too long."""
        tokens, mask = preprocess.prepare_text(self.tokenizer, [instruction], self.config)
        return tokens[0], mask[0]


def make(model: SmolVLA, tokenizer: Tokenizer, statistics: Statistics) -> Base:
    """Puts a base together and fingerprints it."""
    _, params = nnx.split(model)
    parts = (
        trees.digest(nnx.to_pure_dict(params)),
        json.dumps(model.config.to_dict(), sort_keys=True),
        statistics.digest(),
    )
    return Base(model, tokenizer, statistics, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16])


def load(directory: str | Path | None = None) -> Base:
    """Reads a base directory; None is the nano SmolVLA that ships with the package.

    Raises:
      ValueError: a file is missing or damaged, see `convert.load`.
    """
    directory = NANO if directory is None else Path(directory)
    model, tokenizer = convert.load(directory)
    file = directory / _STATISTICS
    if tokenizer is None:
        raise ValueError(f"{directory}/tokenizer.json is missing; a base needs the tokenizer it was trained with")
    if not file.is_file():
        raise ValueError(
            f"{file} is missing; a base needs the statistics it was trained with, never those of your demos"
        )
    return make(model, tokenizer, Statistics.from_json(json.loads(file.read_text())))


def save(directory: str | Path, base: Base) -> None:
    """Writes a base directory (without its card)."""
    convert.save(directory, base.model, base.tokenizer)
    (Path(directory) / _STATISTICS).write_text(json.dumps(base.statistics.to_json(), indent=1) + "\n")
