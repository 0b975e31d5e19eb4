"""lerobot's SmolVLA policy directories: config.json, processor files, and where a tokenizer is found.

Read off lerobot 0.4.4. A policy's config.json does not hold the sizes of the vision-language model, only its name: they
come from a table of the public ones, or from config.json of a local directory that the name points to.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from huggingface_hub import hf_hub_download
from tokenizers import Tokenizer

from metalora_jax.machine import files
from metalora_jax.policies.hub import FAILURES, TOKENIZER, short
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.tokens import read_tokenizer

_PUBLIC: dict[str, dict[str, Any]] = {  # the vision-language models on the hub that lerobot's policies are built on
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": {},
    "HuggingFaceTB/SmolVLM2-500M-Instruct": {},
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": dict(text_hidden=576, heads=9, kv_heads=3, text_mlp=1536),
}
_SAME = (
    "chunk_size",
    "max_state_dim",
    "max_action_dim",
    "num_steps",
    "add_image_special_tokens",
    "attention_mode",
    "prefix_length",
    "self_attn_every_n_layers",
    "expert_width_multiplier",
    "min_period",
    "max_period",
)
_OURS = {"tokenizer_max_length": "max_tokens", "num_vlm_layers": "layers"}
# Only these values compute what is computed here.
_FIXED: dict[str, tuple[Any, ...]] = {
    "type": ("smolvla",),
    "n_obs_steps": (1,),
    "adapt_to_pi_aloha": (False,),
    "use_delta_joint_actions_aloha": (False,),
}
# How lerobot trains, saves and executes; nothing that its networks compute.
_ELSEWHERE = (
    r"(optimizer|scheduler)_\w+|compile_\w+|device|use_amp|push_to_hub|repo_id|private|tags|license|pretrained_path|"
    r"pretrained_revision|"
    r"n_action_steps|use_cache|freeze_vision_encoder|train_expert_only|train_state_proj|load_vlm_weights|rtc_config|"
    r"use_peft|output_features|normalization_mapping|pad_language_to"
)
_READ = {*_SAME, *_OURS, *_FIXED, "vlm_model_name", "num_expert_layers", "resize_imgs_with_padding", "input_features"}
_READ |= {"empty_cameras"}

_TEXT = {  # keys of a vision-language model's own config.json -> fields of SmolVLAConfig
    "hidden_size": "text_hidden",
    "intermediate_size": "text_mlp",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "rms_norm_eps": "rms_norm_eps",
    "vocab_size": "vocab_size",
}
_VISION = {
    "hidden_size": "vision_hidden",
    "intermediate_size": "vision_mlp",
    "num_hidden_layers": "vision_layers",
    "num_attention_heads": "vision_heads",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "layer_norm_eps": "layer_norm_eps",
}


def is_policy(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is lerobot's."""
    return not values.keys().isdisjoint(("input_features", "output_features", "normalization_mapping"))


def read_config(values: Mapping[str, Any], source: Path, tokenizer: Tokenizer, **overrides: Any) -> SmolVLAConfig:
    """The sizes and switches of a lerobot policy.

    Args:
      values: its config.json.
      source: that file, for messages.
      tokenizer: the policy's, which knows the ids of the tokens around an image.
      overrides: fields of SmolVLAConfig that lerobot's file does not know, such as dtype.

    Raises:
      ValueError: if it requires something that is not supported, or its vision-language model is unknown.
    """
    for key, allowed in _FIXED.items():
        if values.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{source}: {key} = {values[key]!r} is not supported, only {allowed[0]!r}")
    name = values.get("vlm_model_name", next(iter(_PUBLIC)))
    if not isinstance(name, str):
        raise ValueError(f"{source}: vlm_model_name is {name!r}; it must be text")
    fields = _sizes(name, source) | {key: values[key] for key in _SAME if key in values}
    fields |= {ours: values[theirs] for theirs, ours in _OURS.items() if theirs in values}
    experts = values.get("num_expert_layers", -1)
    for key, value in (("num_expert_layers", experts), ("empty_cameras", values.get("empty_cameras", 0))):
        if type(value) is not int or value < (-1 if key == "num_expert_layers" else 0):
            raise ValueError(f"{source}: {key} is {value!r}; it must be a whole number")
    if experts > 0 and experts != fields.get("layers"):
        raise ValueError(f"{source}: num_expert_layers = {experts} is not supported, only as many as num_vlm_layers")
    if strange := sorted(key for key in values.keys() - _READ if not re.fullmatch(_ELSEWHERE, key)):
        logging.warning("%s: %s: unknown to this version, and ignored", source, ", ".join(strange))
    size = fields.get("image_size", SmolVLAConfig.image_size)
    if values.get("resize_imgs_with_padding", [size, size]) not in ([size, size], None):
        raise ValueError(f"{source}: resize_imgs_with_padding must be [{size}, {size}], the vision tower's image size")
    check_features(values, source)
    pictures = sum(feature["type"] == "VISUAL" for feature in values["input_features"].values())
    fields["cameras"] = max(1, pictures + values.get("empty_cameras", 0))
    if fields.get("add_image_special_tokens") is True:
        fields |= _image_tokens(tokenizer, source)
    try:
        return SmolVLAConfig(**(fields | overrides))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def check_features(values: Mapping[str, Any], source: Path) -> None:
    """Refuses features of another form than lerobot writes, from which cameras and widths would be read wrongly."""
    for key in ("input_features", "output_features"):
        _check_features(f"{source}: {key}", values.get(key))


def _check_features(where: str, features: Any) -> None:
    if not isinstance(features, Mapping) or not all(isinstance(feature, Mapping) for feature in features.values()):
        raise ValueError(f"{where} is {features!r}; it must hold features by name")
    for name, feature in features.items():
        kind, shape = feature.get("type"), feature.get("shape")
        if kind not in _KINDS:
            raise ValueError(f"{where}: the type of {name} is {kind!r}; it must be one of {', '.join(_KINDS)}")
        if not isinstance(shape, list) or not all(type(side) is int for side in shape):
            raise ValueError(f"{where}: the shape of {name} is {shape!r}; it must be a list of whole numbers")


_KINDS = ("STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE")  # lerobot's


# As in "action.mean"; "so100.buffer.action.mean"; "normalize_inputs.so100-red_buffer_observation_state.mean".
STATISTIC = re.compile(
    r"(?:(?:un)?normalize_(?:inputs|outputs|targets)\.)?(?:(?:(?P<set>[\w-]+?)[._])?buffer[._])?"
    r"(?P<feature>observation[._]state|action)\.(?P<stat>mean|std|min|max|q01|q99|q10|q90|count)"
)


class Weights(Mapping[str, np.ndarray]):
    """The weights of a checkpoint, without old statistics and torch.compile's addition to the names."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors
        self._names = {name.replace("._orig_mod.", "."): name for name in tensors if not is_statistic(name)}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[self._names[name]]

    def origin(self, name: str) -> str:
        """The name that the checkpoint has for it."""
        return self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def is_statistic(name: str) -> bool:
    """Whether a tensor of an old checkpoint is a normalisation statistic (of any feature, pictures too)."""
    return re.match(r"(un)?normalize_(inputs|outputs|targets)\.|[\w-]+\.buffer\.", name) is not None


def find_tokenizer(directory: Path, vlm_name: str | None, path: str | Path | None = None) -> Tokenizer:
    """The tokenizer of a policy: from `path`, the policy's own directory, the model it is built on, or the hub.

    Raises:
      ValueError: if it is in none of these places; the message says where to put it.
    """
    places = [Path(path)] if path else [directory, Path(vlm_name) if isinstance(vlm_name, str) else directory]
    for place in places:
        file = place / TOKENIZER if place.is_dir() else place
        if file.is_file():
            return read_tokenizer(file)
    if path is None and vlm_name in _PUBLIC:
        try:
            file = Path(hf_hub_download(vlm_name, TOKENIZER))
        except FAILURES as error:
            why = f", and not to be had from the hub ({short(error)})"
        else:
            return read_tokenizer(file)
    else:
        why = ""
    raise ValueError(
        f"no {TOKENIZER} in {' or '.join(map(str, places))}{why}; "
        f"put that of {vlm_name or 'the policy'} into {directory}"
    )


def _image_tokens(tokenizer: Tokenizer, source: Path) -> dict[str, int]:
    """The ids of the tokens around an image, by their names in the tokenizer, as in lerobot."""
    ids = {field: tokenizer.token_to_id(token) for field, token in _AROUND.items()}
    if missing := [_AROUND[field] for field, number in ids.items() if number is None]:
        raise ValueError(
            f"{source}: add_image_special_tokens is on, but the tokenizer has no token {' or '.join(missing)}; use the "
            "tokenizer that the policy was trained with"
        )
    return {field: number for field, number in ids.items() if number is not None}


_AROUND = {"fake_image_token_id": "<fake_token_around_image>", "global_image_token_id": "<global-img>"}


def _sizes(name: str, source: Path) -> dict[str, Any]:
    if name in _PUBLIC:
        return dict(_PUBLIC[name])
    file = Path(name) / "config.json"
    if not file.is_file():
        raise ValueError(
            f"{source}: the sizes of vlm_model_name = {name!r} are unknown; known are {', '.join(_PUBLIC)}, and "
            "directories with such a model's config.json"
        )
    values = files.read_json(file)
    fields: dict[str, Any] = {"pixel_shuffle": values.get("scale_factor")}
    for part, keys in (("text_config", _TEXT), ("vision_config", _VISION)):
        for theirs, ours in keys.items():
            fields[ours] = values.get(part, {}).get(theirs)
            if fields[ours] is None:
                raise ValueError(f"{file}: {part}.{theirs} is missing; set it explicitly, defaults are not guessed")
    if fields["pixel_shuffle"] is None:
        raise ValueError(f"{file}: scale_factor is missing; set it explicitly, defaults are not guessed")
    return fields
