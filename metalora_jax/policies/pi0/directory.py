"""Directories of this package with a pi0 or pi0.5: config.json, model.safetensors (openpi's names), tokenizer.json."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from metalora_jax.machine import files
from metalora_jax.policies import hub, tensor_file
from metalora_jax.policies.pi0 import lerobot, openpi_checkpoint, openpi_names, tokenizer
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import Pi0
from metalora_jax.policies.policy import Checkpoint, Progress
from metalora_jax.policies.smolvla.lerobot import is_policy

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", hub.TOKENIZER
_LARGE = 100e6  # [bytes] files below load in no time


def save(directory: Path, model: Pi0, reader: Tokenizer) -> None:
    """Writes a directory that `load` reads.

    Each file is written beside its place and then renamed, so a reader never meets half a file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tree = openpi_names.pieces_of(model)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".save-") as scratch:
        tensor_file.write(Path(scratch, WEIGHTS), tree)
        files.write_json(Path(scratch, CONFIG), {"type": model.type, **model.config.to_dict()}, indent=2)
        reader.save(str(Path(scratch, TOKENIZER)))
        for file in sorted(Path(scratch).iterdir()):
            file.replace(directory / file.name)


def load(directory: Path, given: str | Path | None, progress: Progress, **overrides: Any) -> Checkpoint:
    """Reads what `save` wrote, a checkpoint of openpi's (see `openpi_checkpoint`), or lerobot's policy (see `lerobot`).

    Args:
      directory: where it is, or its name on the hub.
      given: file or directory of the tokenizer, where it is not with the policy; see `tokenizer.find`.
      progress: goes over the tensors of a large policy, and may show how far it is.
      overrides: of the config, such as param_dtype="bfloat16".

    Raises:
      ValueError: if a file is missing or damaged, or weights and config do not match; the message names it.
    """
    source = hub.local_directory(directory)
    if not (source / CONFIG).is_file() and openpi_checkpoint.is_checkpoint(source):
        return openpi_checkpoint.load(source, given, progress, **overrides)
    if not (source / CONFIG).is_file():
        raise ValueError(f"{source / CONFIG} is missing; a policy directory holds {CONFIG} and {WEIGHTS}")
    values = files.read_json(source / CONFIG)
    if is_policy(values):
        return lerobot.load(source, values, given, progress, **overrides)
    try:
        config = Pi0Config.from_dict({name: value for name, value in values.items() if name != "type"})
        if values.get("type") != ("pi05" if config.pi05 else "pi0"):
            raise ValueError(f"type {values.get('type')!r} contradicts pi05={config.pi05}")
        config = dataclasses.replace(config, **overrides)
    except ValueError as error:
        raise ValueError(f"{source / CONFIG}: {error}") from error
    tree = tensor_file.TensorFile(source / WEIGHTS)
    large = (source / WEIGHTS).stat().st_size >= _LARGE
    try:
        model = openpi_names.load(config, tree, progress if large else iter)
    except ValueError as error:
        raise ValueError(f"{source / WEIGHTS}: {error}") from None
    return Checkpoint(model, tokenizer.find(source, given), {}, None)
