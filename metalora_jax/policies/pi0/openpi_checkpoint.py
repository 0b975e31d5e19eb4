"""openpi's checkpoint directories: `params/` by Orbax, and `assets/<asset_id>/norm_stats.json`.

Sizes are read from shapes. What these do not tell is openpi's default unless it is given: the length of a chunk and of
the prompt, and whether pi0.5 reads its state.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from tokenizers import Tokenizer

from metalora_jax.policies.pi0 import openpi_assets, openpi_lora, openpi_names
from metalora_jax.policies.pi0 import tokenizer as tokenizers
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.orbax_tree import INDEX, STORE, OrbaxTree
from metalora_jax.policies.policy import Checkpoint, Progress

PARAMS, ASSETS = "params", "assets"
_LARGE = 25_000_000  # parameters; fewer load in no time


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory is openpi's: it has `params/`, or is that folder itself."""
    return (directory / PARAMS).is_dir() or any((directory / mark).exists() for mark in (INDEX, STORE))


def type_of(directory: Path) -> str:
    """ "pi0" or "pi05", by the names of the weights.

    Raises:
      ValueError: see `OrbaxTree`.
    """
    return "pi05" if openpi_names.is_pi05(OrbaxTree(folders(directory)[0])) else "pi0"


def load(
    directory: Path,
    given: str | Path | None,
    progress: Progress,
    *,
    lora_alpha: openpi_lora.Alpha = None,
    lora_rslora: bool = False,
    **overrides: Any,
) -> Checkpoint:
    """Reads a checkpoint. LoRA in it becomes the `adapter` of the result.

    One tensor is on the way at a time: the memory needed is that of the policy, plus little.

    Args:
      directory: a training step's, or its `params/`.
      given: file or directory of PaliGemma's tokenizer; None looks where openpi keeps it, see `tokenizer.find`.
      progress: goes over the tensors of a large policy, and may show how far it is.
      lora_alpha, lora_rslora: see `openpi_lora.split`.
      overrides: of the config, such as horizon=10 or param_dtype="bfloat16".

    Raises:
      ValueError: `params/` is damaged or half copied; tensors are missing, unknown, misshapen or not finite, which
        names them all; statistics are damaged; the tokenizer is missing, or of another vocabulary.
    """
    params, assets = folders(directory)
    tree = OrbaxTree(params)
    plain = {name: shape for name, shape in tree.shapes.items() if not openpi_lora.is_factor(name)}
    factors = [name for name in tree if name not in plain]
    try:
        config = openpi_names.infer(plain, **overrides)
        adapter = None
        if factors:
            adapter = openpi_lora.adapter(config, {name: tree[name] for name in factors}, lora_alpha, lora_rslora)
        elif lora_alpha is not None or lora_rslora:
            raise ValueError("alpha of LoRA is given, but no leaf belongs to LoRA: this is a plain checkpoint")
        words = _tokenizer(directory, given, config)
        large = sum(int(np.prod(shape)) for shape in plain.values()) > _LARGE
        model = openpi_names.load(config, _Only(tree, plain), progress if large else iter)
    except ValueError as error:
        raise ValueError(f"{params}: {error}") from None
    known = {"horizon": config.horizon, "max_tokens": config.max_tokens}
    known |= {"discrete_state_input": config.state_in_prompt} if config.pi05 else {}
    if untold := [f"{name}={value}" for name, value in known.items() if name not in overrides]:
        logging.warning(
            "%s: weights do not tell %s: openpi's defaults; give what the config that it was trained with says",
            directory,
            ", ".join(untold),
        )
    sets, normalization = openpi_assets.read(assets, config.pi05, config.action_dim)
    return Checkpoint(model, words, sets, None, normalization, adapter=adapter)


class _Only(Mapping[str, np.ndarray]):
    """Some tensors of a tree, unread."""

    def __init__(self, tree: OrbaxTree, names: Mapping[str, Any]):
        self._tree, self._names = tree, names

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tree[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def folders(directory: Path) -> tuple[Path, Path]:
    """Those of weights and of statistics."""
    if (directory / PARAMS).is_dir():
        return directory / PARAMS, directory / ASSETS
    return directory, directory.absolute().parent / ASSETS


def _tokenizer(directory: Path, given: str | Path | None, config: Pi0Config) -> Tokenizer:
    found = tokenizers.find(directory, given)
    if found is None:
        home = f"${tokenizers.OPENPI_DATA_HOME} (or ~/.cache/openpi)"
        raise ValueError(
            f"no tokenizer: put {tokenizers.SENTENCEPIECE} ({tokenizers.SOURCE}) into {home}/big_vision, or name the "
            "file (metalora convert --tokenizer)"
        )
    return tokenizers.fitting(found, config.vocab_size, config.bos_token_id)
