"""lerobot's pi0 and pi0.5: policy directories with config.json, model.safetensors and two processors.

Read off lerobot 0.4.4 and 0.6.1. config.json names a variant of Gemma for decoder and expert; sizes are read from the
weights, and what config.json does say of them is held against these. What differs from openpi is in `Pi0Config.style`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from tokenizers import Tokenizer

from metalora_jax.policies import tensor_file
from metalora_jax.policies.pi0 import lerobot_names
from metalora_jax.policies.pi0 import tokenizer as tokenizers
from metalora_jax.policies.pi0.config import LEROBOT, LEROBOT_0_4, Pi0Config
from metalora_jax.policies.policy import Checkpoint, Normalization, Progress
from metalora_jax.policies.smolvla import lerobot as smolvla
from metalora_jax.policies.smolvla import processors
from metalora_jax.words import listed

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_LARGE = 100e6  # [bytes] files below load in no time
_OURS = {
    "chunk_size": "horizon",
    "tokenizer_max_length": "max_tokens",
    "num_inference_steps": "num_steps",
    "min_period": "min_period",
    "max_period": "max_period",
}
_WIDTHS = {"gemma_2b": 2048, "gemma_300m": 1024}  # of lerobot's variants
_VARIANTS = {"paligemma_variant": ("gemma_2b", "text_hidden"), "action_expert_variant": ("gemma_300m", "expert_hidden")}
# How lerobot trains, saves and executes; nothing that its networks compute.
_ELSEWHERE = (
    r"(optimizer|scheduler|time_sampling)_\w+|compile_\w+|device|use_amp|push_to_hub|repo_id|private|tags|license|"
    r"pretrained_\w+|n_action_steps|gradient_checkpointing|freeze_vision_encoder|train_expert_only|rtc_config|use_peft|"
    r"normalization_mapping|dtype"
)
RELATIVE, EXCLUDED, ACTION_NAMES = "use_relative_actions", "relative_exclude_joints", "action_feature_names"
_READ = {"type", "n_obs_steps", "input_features", "output_features", "empty_cameras", "image_resolution"}
_READ |= {"max_state_dim", "max_action_dim", RELATIVE, EXCLUDED, ACTION_NAMES, *_OURS, *_VARIANTS}
# lerobot's own pi0 up to 0.3, another network under the same name, has these.
_OLD = ("proj_width", "resize_imgs_with_padding", "attention_implementation")
STEPS = ("pi0_new_line_processor", "pi05_prepare_state_tokenizer_processor_step", *processors.RELATIVE)
"""Steps of these policies' processors beside those that all have; what they do is done here."""


def load(
    source: Path, values: Mapping[str, Any], given: str | Path | None, progress: Progress, **overrides: Any
) -> Checkpoint:
    """Reads a policy directory of lerobot's.

    Args:
      source: the directory.
      values: its config.json.
      given: file or directory of PaliGemma's tokenizer, where it is not with the policy; see `tokenizer.find`.
      progress: goes over the parameters of a large policy, and may show how far it is.
      overrides: of the config, such as param_dtype="bfloat16".

    Raises:
      ValueError: a file is missing or damaged; config.json asks for what is not supported, or contradicts the weights;
        tensors are missing, unknown, misshapen or not finite, which names them all; processors do what is not done
        here; or the tokenizer is missing, or of another vocabulary.
    """
    if values.get("type") == "pi05":  # what lerobot takes where config.json does not say
        values = {"normalization_mapping": {"STATE": "QUANTILES", "ACTION": "QUANTILES"}, **values}
    file = tensor_file.TensorFile(source / WEIGHTS)
    old = {name: file[name] for name in file if smolvla.is_statistic(name)}
    weights = smolvla.Weights(file)
    mask = relative_mask(source, values)
    sets, normalization = processors.read(source, old, values, STEPS)
    own_state = "observation.state" in sets.get("", {})
    try:
        config = read_config(values, source / CONFIG, _shapes(file, weights), own_state, **overrides)
        words = _tokenizer(source, given, config)
        large = (source / WEIGHTS).stat().st_size >= _LARGE
        model = lerobot_names.load(config, weights, progress if large else iter)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(source)) else f"{source / WEIGHTS}: {text}") from None
    normalization = _explained(source, sets, normalization)._replace(relative=mask)
    return Checkpoint(model, words, sets, dict(values), normalization, processors.cameras(source, values))


def _shapes(file: tensor_file.TensorFile, weights: smolvla.Weights) -> dict[str, tuple[int, ...]]:
    return {own: file.shapes[weights.origin(name)] for own, name in lerobot_names.plain(weights).items()}


def read_config(
    values: Mapping[str, Any],
    source: Path,
    shapes: Mapping[str, tuple[int, ...]],
    own_statistics: bool,
    **overrides: Any,
) -> Pi0Config:
    """The sizes and switches of a policy.

    Args:
      values: its config.json.
      source: that file, for messages.
      shapes: of its tensors, by names without the prefix.
      own_statistics: whether it was trained in lerobot, and so has statistics of the state.
      overrides: fields of Pi0Config.

    Raises:
      ValueError: it requires something that is not supported, or contradicts the shapes.
    """
    if old := [key for key in _OLD if key in values]:
        raise ValueError(
            f"{source}: {old[0]} is of lerobot's own pi0 up to 0.3, another network; only openpi's, which lerobot has "
            "since 0.4, can be read"
        )
    if values.get("n_obs_steps", 1) != 1:
        raise ValueError(f"{source}: n_obs_steps = {values['n_obs_steps']!r} is not supported, only 1")
    smolvla.check_features(values, source)
    if strange := sorted(key for key in values.keys() - _READ if not re.fullmatch(_ELSEWHERE, key)):
        logging.warning("%s: %s: unknown to this version, and ignored", source, ", ".join(strange))
    type_ = "pi05" if lerobot_names.is_pi05(shapes) else "pi0"
    if values.get("type") != type_:
        raise ValueError(f"{source}: type is {values.get('type')!r}, the weights are those of a {type_}")
    empty = values.get("empty_cameras", 0)
    if type(empty) is not int or empty < 0:
        raise ValueError(f"{source}: empty_cameras is {empty!r}; it must be a whole number")
    seen = [key for key, feature in values["input_features"].items() if processors.is_camera(key, feature)]
    there = [key for key, feature in values["input_features"].items() if feature["type"] == "VISUAL"]
    fields = {ours: values[theirs] for theirs, ours in _OURS.items() if theirs in values}
    fields["cameras"] = max(1, len(seen) + max(empty, len(there) - len(seen)))
    # Files of 0.4 do not know relative actions.
    trained_there = own_statistics and RELATIVE not in values
    fields["style"] = LEROBOT_0_4 if trained_there else LEROBOT
    try:
        config = lerobot_names.infer(shapes, **(fields | overrides))
    except ValueError as error:
        raise ValueError(f"{source.parent / WEIGHTS} by {source}: {error}") from None
    if trained_there and config.pi05:
        logging.info("%s: of lerobot 0.4: the prompt's state is filled up to %d numbers", source, config.action_dim)
    _hold(values, source, config, shapes)
    return config


def _hold(values: Mapping[str, Any], source: Path, config: Pi0Config, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """What config.json says of sizes that the weights have, too."""
    side = [config.image_size] * 2
    told: dict[str, tuple[Any, Any]] = {
        "max_action_dim": (values.get("max_action_dim", 32), config.action_dim),
        "image_resolution": (values.get("image_resolution", [224, 224]), side),
    }
    if not config.pi05:
        told["max_state_dim"] = values.get("max_state_dim", 32), shapes["state_proj.weight"][-1]
    for key, (stated, there) in told.items():
        if stated != there:
            raise ValueError(
                f"{source}: {key} is {stated!r}, the weights are for {there!r}; they are of another policy"
            )
    if (state := values.get("max_state_dim", 32)) != config.action_dim:
        raise ValueError(
            f"{source}: max_state_dim is {state!r} and max_action_dim {config.action_dim}, only equal ones are read"
        )
    for key, (default, field) in _VARIANTS.items():
        name, width = values.get(key, default), getattr(config, field)
        if _WIDTHS.get(name) != width:
            logging.warning("%s: %s is %r, but the weights are %d wide: they count", source, key, name, width)


def _tokenizer(source: Path, given: str | Path | None, config: Pi0Config) -> Tokenizer:
    if (found := tokenizers.find(source, given)) is None:
        raise ValueError(
            f"{source} has no tokenizer, as lerobot fetches PaliGemma's from the hub: put tokenizer.json of "
            f"google/paligemma-3b-pt-224, or {tokenizers.SENTENCEPIECE} ({tokenizers.SOURCE}), into {source}, or name "
            "the file (metalora convert --tokenizer)"
        )
    return tokenizers.fitting(found, config.vocab_size)


def _explained(source: Path, sets: Any, known: Normalization) -> Normalization:
    """Statistics without the quantiles that the policy asks for cannot be used, and lerobot has a remedy of its own."""
    needs = {"QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
    for kind, feature in (("STATE", "observation.state"), ("ACTION", "action")):
        there = sets.get("", {}).get(feature)
        missing = [name for name in needs.get(known.modes.get(kind, ""), ()) if there is not None and name not in there]
        if missing:
            said = (
                f"{feature} is normalised by {known.modes[kind]}, and {known.source} has no {listed(missing)} of it: "
                "its data set had no quantiles. Add them by lerobot's augment_dataset_quantile_stats.py and train anew"
            )
            return known._replace(wrong=(said, *known.wrong))
    return known


def relative_mask(source: Path, values: Mapping[str, Any]) -> tuple[bool, ...] | None:
    """Which dimensions of an action the policy predicts relative to the state; None where none is.

    The preprocessor's step says so, as in lerobot: all dimensions but those whose name holds one of the excluded ones.

    Raises:
      ValueError: preprocessor, postprocessor and config.json contradict each other, or the step is malformed.
    """
    options = processors.options_of(source / processors.PREPROCESSOR, "relative_actions_processor")
    undone = processors.options_of(source / processors.POSTPROCESSOR, "absolute_actions_processor")
    stated = bool(values.get(RELATIVE, False))
    if (source / processors.PREPROCESSOR).is_file():
        on, off = bool((options or {}).get("enabled")), bool((undone or {}).get("enabled"))
        if not on == off == stated:
            raise ValueError(
                f"{source}: actions are relative by {RELATIVE} in {CONFIG} ({stated}), by {processors.PREPROCESSOR} "
                f"({on}) or by {processors.POSTPROCESSOR} ({off}), but not by all; make them agree, as it was trained"
            )
    if not stated:
        return None
    told = options or {"exclude_joints": values.get(EXCLUDED, ["gripper"]), "action_names": values.get(ACTION_NAMES)}
    excluded, names = told.get("exclude_joints") or [], told.get("action_names")
    shape = values.get("output_features", {}).get("action", {}).get("shape")
    if not (_texts(excluded) and (names is None or _texts(names)) and isinstance(shape, list) and len(shape) == 1):
        raise ValueError(f"{source}: relative actions are not described as lerobot does: {told!r}; save it again")
    tokens = [str(name).lower() for name in excluded if name]
    known = [] if names is None else [name.lower() for name in names[: shape[0]]]
    kept = [not any(token in name for token in tokens) for name in known]
    return tuple(kept + [True] * (shape[0] - len(kept)))


def _texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)
