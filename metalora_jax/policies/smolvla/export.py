"""Writes policies for lerobot (0.4.4): a base with an adapter folded in, or an adapter for peft with what lerobot asks
beside it."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax.adapters import peft_format
from metalora_jax.adapters.attach import Theta
from metalora_jax.adapters.placement import Placement
from metalora_jax.machine import files
from metalora_jax.policies import hub, tensor_file
from metalora_jax.policies.policy import ExportDtype
from metalora_jax.policies.smolvla import convert, lerobot, processors
from metalora_jax.policies.smolvla.model import SmolVLA

_POST = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
_MODES = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}


def merged(
    directory: Path,
    model: SmolVLA,
    base: Path,
    statistics: Mapping[str, np.ndarray],
    dtype: ExportDtype,
    cameras: Sequence[str] | None = None,
) -> None:
    """Writes a lerobot policy directory whose weights are the model's.

    Args:
      directory: made here, as a whole or not at all; must not exist.
      model: without adapters, see `adapters.fuse`.
      base: the lerobot policy that it came from; gives config.json and the tensors that no output depends on.
      statistics: "observation.state.mean", ".std", "action.mean", ".std" -> (width,), that the policy normalises by.
      dtype: "float32", or "base" for each tensor in the type that the base's file has (the public one: bfloat16).
      cameras: what the robot calls its cameras, in the policy's order; None keeps the base's names for them.

    Raises:
      ValueError: if the directory exists, or the base is not a lerobot policy.
    """
    config = lerobot_config(base, cameras)
    original = lerobot.Weights(tensor_file.TensorFile(base / convert.WEIGHTS))
    tensors = convert.to_lerobot_tensors(model) | {name: original[name] for name in convert.UNUSED if name in original}
    for name, value in tensors.items():
        tensors[name] = value.astype(np.float32 if dtype == "float32" else original[name].dtype)
    with whole_or_not_at_all(directory) as staging:
        tensor_file.write(staging / convert.WEIGHTS, tensors)
        _write_around(staging, config, base, statistics)


def peft(
    directory: Path,
    placement: Placement,
    theta: Theta,
    model: SmolVLA,
    base_name: str,
    base: Path,
    statistics: Mapping[str, np.ndarray],
    manifest: Mapping[str, Any] | None,
    cameras: Sequence[str] | None = None,
) -> None:
    """Writes an adapter that lerobot's `make_policy` loads through peft.

    Args:
      directory: made here, as a whole or not at all; must not exist.
      placement, theta: the adapter.
      model: the base, for its names.
      base_name: what lerobot is to load the base by: a directory, or its name on the hub.
      base: its directory here.
      statistics: see `merged`.
      manifest: JSON that travels along in the header of the weights, where peft does not look; None for an adapter that
        has none.
      cameras: see `merged`.
    """
    config = lerobot_config(base, cameras)
    names = convert.module_names(model.config)
    with whole_or_not_at_all(directory) as staging:
        name, commit = hub.name_and_commit(base_name)
        peft_format.write(staging, placement, theta, names, base_model=name, revision=commit, manifest=manifest)
        _write_around(staging, config | {"use_peft": True}, base, statistics)


def lerobot_config(base: Path, cameras: Sequence[str] | None) -> dict[str, Any]:
    """The base's config.json, with the robot's own names of its cameras.

    lerobot reads pictures by these names, in this order. A renaming step in the preprocessor would not do: lerobot's
    programs replace its map by their own --rename_map, which is empty unless the user writes one.
    """
    values = files.read_json(base / convert.CONFIG)
    if not lerobot.is_policy(values):
        raise ValueError(f"{base} is not a lerobot policy, so lerobot cannot load what is built on it")
    if "pretrained_path" in values:  # where lerobot last loaded it from, on another machine perhaps
        values["pretrained_path"] = None
    if not cameras:
        return values
    features = values["input_features"]
    shape = next((f["shape"] for key, f in features.items() if processors.is_camera(key, f)), [3, 256, 256])
    others = {key: feature for key, feature in features.items() if feature.get("type") != "VISUAL"}
    named = {processors.PICTURES + camera: {"type": "VISUAL", "shape": shape} for camera in cameras}
    return values | {"input_features": others | named, "empty_cameras": 0}


@contextlib.contextmanager
def whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """A directory that becomes `path` at the end; ValueError where that exists."""
    if path.exists():
        raise ValueError(f"{path} exists; choose another directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_directory(path) as staging:
        yield staging


def _write_around(directory: Path, config: dict[str, Any], base: Path, statistics: Mapping[str, np.ndarray]) -> None:
    """config.json, the processors with their statistics, and the tokenizer where the base has it."""
    tokenizer = dict(max_length=config["tokenizer_max_length"], task_key="task", padding_side="right")
    tokenizer |= dict(padding=config.get("pad_language_to", "longest"), truncation=True)
    before = [
        step("rename_observations_processor", rename_map={}),
        step("to_batch_processor"),
        step("smolvla_new_line_processor"),
        step("tokenizer_processor", **tokenizer, tokenizer_name=config["vlm_model_name"]),
        step("device_processor", device="cpu", float_dtype=None),
        NORMALIZER,
    ]
    write_processors(directory, config, base, statistics, before)


NORMALIZER: dict[str, Any] = {"registry_name": "normalizer_processor"}
"""Among steps for `write_processors`, where the normaliser stands."""


def write_processors(
    directory: Path,
    config: dict[str, Any],
    base: Path,
    statistics: Mapping[str, np.ndarray],
    before: Sequence[dict[str, Any]],
) -> None:
    """config.json, both processors with their statistics, and the tokenizer where the base has it.

    Args:
      directory: to write to.
      config: the policy's; features and modes are put into it.
      base: the lerobot policy that it came from.
      statistics: see `merged`.
      before: the preprocessor's steps, with `NORMALIZER` for the normaliser.
    """
    widths = {"observation.state": "STATE", "action": "ACTION"}
    features = {name: {"type": kind, "shape": list(statistics[f"{name}.mean"].shape)} for name, kind in widths.items()}
    cameras = {k: v for k, v in config.get("input_features", {}).items() if v.get("type") == "VISUAL"}
    config = config | {
        "normalization_mapping": _MODES,
        "input_features": {"observation.state": features["observation.state"], **cameras},
        "output_features": {"action": features["action"]},
    }
    normalizer = {"eps": 1e-8, "norm_map": _MODES}
    place = next(number for number, each in enumerate(before) if each is NORMALIZER)
    pre = f"policy_preprocessor_step_{place}_normalizer_processor.safetensors"
    known = step("normalizer_processor", **normalizer, features=features | cameras) | {"state_file": pre}
    after = [
        step("unnormalizer_processor", **normalizer, features={"action": features["action"]}) | {"state_file": _POST},
        step("device_processor", device="cpu", float_dtype=None),
    ]
    steps = [known if each is NORMALIZER else each for each in before]
    for name, own in (("policy_preprocessor", steps), ("policy_postprocessor", after)):
        files.write_json(directory / f"{name}.json", {"name": name, "steps": own}, indent=2)
    for file in (pre, _POST):
        tensor_file.write(directory / file, {k: np.asarray(v, np.float32) for k, v in statistics.items()})
    if (base / convert.TOKENIZER).is_file():
        shutil.copyfile(base / convert.TOKENIZER, directory / convert.TOKENIZER)
    files.write_json(directory / convert.CONFIG, config, indent=2)


def step(name: str, **config: Any) -> dict[str, Any]:
    """A step of a processor file."""
    return {"registry_name": name, "config": config}
