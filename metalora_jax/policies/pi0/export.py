"""Writes a policy for openpi: a checkpoint directory that its `create_trained_policy` and `serve_policy.py` load."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from metalora_jax.machine import files
from metalora_jax.policies import tensor_file
from metalora_jax.policies.pi0 import (
    openpi_assets,
    openpi_checkpoint,
    openpi_factors,
    openpi_lora,
    openpi_names,
    orbax_writer,
)
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import Pi0
from metalora_jax.policies.pi0.orbax_tree import OrbaxTree
from metalora_jax.policies.policy import ExportDtype
from metalora_jax.words import listed

_LIBERO = "physical-intelligence/libero"


def merged(
    directory: Path,
    model: Pi0,
    source: Path,
    statistics: Mapping[str, np.ndarray],
    dtype: ExportDtype,
    data_set: str = "",
    factors: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes `params/` with the model's weights, a layer at a time, and `assets/<asset_id>/norm_stats.json`.

    Args:
      directory: made here, as a whole or not at all; must not exist.
      model: without adapters, see `adapters.fuse`.
      source: openpi's checkpoint that the base came from. LoRA in it is left out: it is part of an adapter here.
      statistics: see `Family.export_merged`.
      dtype: "float32", or "base" for each tensor in the type that it has in `source`.
      data_set: the asset id to write; "" is the one that `source` has.
      factors: leaves of openpi's LoRA to write beside the weights, see `openpi_factors`; they stay float32.

    Raises:
      ValueError: the directory exists; `source` is damaged, or no checkpoint of openpi's, or of another network; or it
        does not tell the asset id.
    """
    if directory.exists():
        raise ValueError(f"{directory} exists; choose another directory")
    if not openpi_checkpoint.is_checkpoint(source):
        raise ValueError(
            f"{source} is no checkpoint of openpi's (it has no params/), so its layout is not known; give the one that "
            "the base was made from"
        )
    params, assets = openpi_checkpoint.folders(source)
    original, pieces = OrbaxTree(params), openpi_names.pieces_of(model)
    theirs = {name: shape for name, shape in original.shapes.items() if not openpi_lora.is_factor(name)}
    ours = {name: tensor.shape for name, tensor in pieces.items()}
    if differing := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        raise ValueError(
            f"{params} is not what this base was made from: {listed(differing)} missing in one of the two, or of "
            "another shape"
        )
    asset = asset_id(assets, data_set)
    stats = openpi_assets.from_scaling(statistics, model.config.pi05)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_directory(directory) as staging:
        single = np.dtype(np.float32)
        beside = {name: tensor_file.Pieces(x.shape, single, [x]) for name, x in (factors or {}).items()}
        orbax_writer.write(
            staging / openpi_checkpoint.PARAMS,
            pieces | beside,
            lambda name: original.dtype(name) if dtype == "base" and name in pieces else single,
        )
        (staging / openpi_checkpoint.ASSETS / asset).mkdir(parents=True)
        file = staging / openpi_checkpoint.ASSETS / asset / openpi_assets.FILE
        files.write_json(file, {"norm_stats": stats}, allow_nan=False)


def asset_id(assets: Path, given: str = "") -> str:
    """The given one, or that of a checkpoint with a single one.

    Raises:
      ValueError: none is given, and the checkpoint has none or several; or it is no path below `assets`.
    """
    if given:
        parts = given.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"asset id {given!r} is no relative path; expected one such as {_LIBERO}")
        return given
    found = openpi_assets.ids(assets)
    if len(found) != 1:
        there = f"has {listed(found)}" if found else "has no statistics"
        raise ValueError(f"{assets} {there}: say which asset id to write, that of the config to serve with (--asset)")
    return found[0]


def untold(config: Pi0Config) -> dict[str, object]:
    """Fields that openpi keeps in its own configs, and not in a checkpoint."""
    names = ["cameras", "max_tokens", "bos_token_id", "horizon", "num_steps", "dtype"]
    return {name: getattr(config, name) for name in names + ["discrete_state_input"] * config.pi05}


def serve_command(directory: Path, config: Pi0Config) -> str:
    """How to serve an export with openpi, and what its config must be."""
    asset = openpi_assets.ids(directory / openpi_checkpoint.ASSETS)[0]
    lora = any(map(openpi_lora.is_factor, OrbaxTree(directory / openpi_checkpoint.PARAMS)))
    needs = f"pi05={config.pi05}, action_dim={config.action_dim}, action_horizon={config.horizon}"
    needs += f", max_token_len={config.max_tokens}"
    if config.pi05:
        needs += f", discrete_state_input={config.state_in_prompt}"
    if lora:
        variants = openpi_factors.VARIANTS
        needs += f", paligemma_variant={variants['decoder']}, action_expert_variant={variants['expert']}"
    where = shlex.quote(str(directory.absolute()))
    return "\n          ".join(
        (
            f"serve:    uv run scripts/serve_policy.py policy:checkpoint --policy.config=CONFIG --policy.dir={where}",
            f"CONFIG is openpi's config with {needs}{'' if lora else ', no LoRA'} and asset id {asset}",
            *["a config without LoRA loads it, too, and leaves the adapter out without a word"] * lora,
            "its data transforms must fit the demonstrations: with DeltaActions it takes actions for relative ones",
        )
    )
