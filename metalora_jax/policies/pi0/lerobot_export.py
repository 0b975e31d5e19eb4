"""Writes pi0 and pi0.5 for lerobot: a base with an adapter folded in, or an adapter for peft with what lerobot asks
beside it.

Both need the lerobot policy that the base was made from. An export is for the lerobot whose rules the base follows, see
`preprocess`: 0.4 for the style `lerobot_0.4`, whose config.json knows no relative actions, else 0.6.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax.adapters import peft_format
from metalora_jax.adapters.attach import Theta
from metalora_jax.adapters.placement import Placement
from metalora_jax.machine import files
from metalora_jax.policies import hub, tensor_file
from metalora_jax.policies.pi0 import lerobot, lerobot_names, peft_names
from metalora_jax.policies.pi0.config import LEROBOT, LEROBOT_0_4, Pi0Config
from metalora_jax.policies.pi0.model import Pi0
from metalora_jax.policies.policy import ExportDtype
from metalora_jax.policies.smolvla import export as smolvla
from metalora_jax.policies.smolvla import lerobot as formats
from metalora_jax.words import listed

_PALIGEMMA = "google/paligemma-3b-pt-224"  # whose tokenizer lerobot fetches


def is_policy(directory: Path) -> bool:
    """Whether a directory is a policy of lerobot's."""
    file = directory / lerobot.CONFIG
    return file.is_file() and formats.is_policy(files.read_json(file))


def served_dtype(directory: Path) -> str | None:
    """What lerobot rounds weights to, whatever the file holds; None where it keeps them."""
    return "bfloat16" if files.read_json(directory / lerobot.CONFIG).get("dtype") == "bfloat16" else None


def merged(
    directory: Path,
    model: Pi0,
    source: Path,
    statistics: Mapping[str, np.ndarray],
    dtype: ExportDtype,
    cameras: Sequence[str] | None = None,
) -> None:
    """Writes a lerobot policy directory whose weights are the model's. Tensors have the names that `source` has.

    Args:
      directory: made here, as a whole or not at all; must not exist.
      model: without adapters, see `adapters.fuse`.
      source: the lerobot policy that the base came from; gives config.json and the tensors that no output depends on.
      statistics: see `Family.export_merged`.
      dtype: "float32", or "base" for each tensor in the type that it has in `source`.
      cameras: what the robot calls its cameras, in the policy's order; None keeps the names of `source`.

    Raises:
      ValueError: the directory exists; `source` is no lerobot policy, or of another network; or the base follows
        openpi's rules.
    """
    config = _config(source, cameras, model.config)
    original = formats.Weights(tensor_file.TensorFile(source / lerobot.WEIGHTS))
    names = lerobot_names.plain(original)
    ours = {name.removeprefix(lerobot_names.PREFIX): value for name, value in lerobot_names.tensors_of(model).items()}
    theirs = {name for name in names if name not in lerobot_names.UNUSED}
    if differing := sorted(theirs ^ ours.keys()):
        raise ValueError(f"{source} is not what this base was made from: {listed(differing)} missing in one of the two")
    tensors = {}
    for own, name in sorted(names.items(), key=lambda pair: pair[1]):  # in 0.6 the later of head and embedding counts
        there = original[name]
        value = ours.get(own, there)
        if value.shape != there.shape:
            raise ValueError(
                f"{source} is not what this base was made from: {name} is {there.shape}, not {value.shape}"
            )
        tensors[name] = value.astype(np.float32 if dtype == "float32" else there.dtype)
    with smolvla.whole_or_not_at_all(directory) as staging:
        tensor_file.write(staging / lerobot.WEIGHTS, tensors)
        _write_around(staging, config, source, statistics)


def peft(
    directory: Path,
    placement: Placement,
    theta: Theta,
    model: Pi0,
    source_name: str,
    source: Path,
    statistics: Mapping[str, np.ndarray],
    manifest: Mapping[str, Any] | None,
    cameras: Sequence[str] | None = None,
) -> None:
    """Writes an adapter that lerobot's `make_policy` loads through peft; see `Family.export_peft`."""
    config = _config(source, cameras, model.config)
    names = peft_names.module_names(model.config)
    with smolvla.whole_or_not_at_all(directory) as staging:
        name, commit = hub.name_and_commit(source_name)
        peft_format.write(staging, placement, theta, names, base_model=name, revision=commit, manifest=manifest)
        _write_around(staging, config | {"use_peft": True}, source, statistics)


def _config(source: Path, cameras: Sequence[str] | None, config: Pi0Config) -> dict[str, Any]:
    values = smolvla.lerobot_config(source, cameras)
    if config.style not in (LEROBOT, LEROBOT_0_4):
        raise ValueError(
            f"the base follows openpi's rules for pictures and prompts, not lerobot's: make it from {source} "
            "(metalora convert), or export it to openpi"
        )
    if values.get("type") != ("pi05" if config.pi05 else "pi0"):
        raise ValueError(f"{source} is of type {values.get('type')!r}, the base is not")
    relative = {lerobot.RELATIVE: False, lerobot.EXCLUDED: ["gripper"], lerobot.ACTION_NAMES: None}
    others = {key: value for key, value in values.items() if key not in relative}
    return others if config.style == LEROBOT_0_4 else others | relative


def _write_around(directory: Path, config: dict[str, Any], source: Path, statistics: Mapping[str, np.ndarray]) -> None:
    """config.json, the processors with their statistics, and the tokenizer where the base's policy has it."""
    tokenizer = smolvla.step(
        "tokenizer_processor",
        max_length=config.get("tokenizer_max_length", 200 if config["type"] == "pi05" else 48),
        task_key="task",
        padding_side="right",
        padding="max_length",
        truncation=True,
        tokenizer_name=_PALIGEMMA,
    )
    start = [smolvla.step("rename_observations_processor", rename_map={}), smolvla.step("to_batch_processor")]
    device = smolvla.step("device_processor", device="cpu", float_dtype=None)
    if config["type"] == "pi05":  # the prompt holds the normalised state
        prompt = smolvla.step("pi05_prepare_state_tokenizer_processor_step")
        before = [*start, smolvla.NORMALIZER, prompt, tokenizer, device]
    else:
        before = [*start, smolvla.step("pi0_new_line_processor"), tokenizer, device, smolvla.NORMALIZER]
    smolvla.write_processors(directory, config, source, statistics, before)
