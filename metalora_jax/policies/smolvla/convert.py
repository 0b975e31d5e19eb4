"""SmolVLA's weights under lerobot's tensor names, in and out.

torch keeps a linear map as (out, in) and a convolution as (out, in, row, column); a stack of ours has a leading layer
axis where lerobot has one tensor per layer. The table of names is derived from the model's own parameters, so both
directions follow from it and nothing can be left over.
"""

import dataclasses
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tokenizers import Tokenizer

from metalora_jax.machine import files
from metalora_jax.policies import hub, tensor_file
from metalora_jax.policies.policy import Checkpoint, Progress
from metalora_jax.policies.smolvla import lerobot, processors
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA
from metalora_jax.words import listed

ModulePath = tuple[str, ...]

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", lerobot.TOKENIZER

_VLM = "model.vlm_with_expert.vlm.model"
_EXPERT = "model.vlm_with_expert.lm_expert"
_MODULES: dict[ModulePath, str] = {
    ("vision", "patch_embedding"): f"{_VLM}.vision_model.embeddings.patch_embedding",
    ("vision", "position_embedding"): f"{_VLM}.vision_model.embeddings.position_embedding.weight",
    ("vision", "layers"): f"{_VLM}.vision_model.encoder.layers",
    ("vision", "post_layernorm"): f"{_VLM}.vision_model.post_layernorm",
    ("connector",): f"{_VLM}.connector.modality_projection.proj",
    ("text", "layers"): f"{_VLM}.text_model.layers",
    ("text", "last"): f"{_VLM}.text_model.layers",
    ("text",): f"{_VLM}.text_model",
    ("expert", "self_layers"): f"{_EXPERT}.layers",
    ("expert", "cross_layers"): f"{_EXPERT}.layers",
    ("expert",): _EXPERT,
    (): "model",
}
_LARGE = 100e6  # [bytes] files below load in no time
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
_PATCH_KERNEL = ("vision", "patch_embedding", "kernel")

UNUSED = (f"{_VLM}.text_model.norm.weight", "model.vlm_with_expert.vlm.lm_head.weight")
"""Tensors of lerobot's checkpoints that no output of the policy depends on: accepted when read, never written."""


class Slot(NamedTuple):
    """Where one lerobot tensor lives in our model."""

    path: ModulePath
    layer: int | None  # index on the leading axis of a stacked parameter; None for a parameter of its own


def load_lerobot_tensors(
    config: SmolVLAConfig, tensors: Mapping[str, np.ndarray], progress: Progress = iter
) -> SmolVLA:
    """Builds the policy from a lerobot state dict, which may read its tensors from a file as they are asked for.

    One of our parameters is on the way at a time, the largest first: the memory needed is that of the result, plus
    little.

    Args:
      config: describes the tensors; its param_dtype is what they become.
      tensors: by lerobot's names.
      progress: goes over the parameters, and may show how far it is.

    Raises:
      ValueError: if a tensor is missing, unknown, misshapen, or not finite; the message names it.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: SmolVLA(config, rngs=nnx.Rngs(0))))
    shapes = {path: leaf.shape for path, leaf in _flat(state).items()}
    table = tensor_names(config)
    if missing := sorted(set(table) - set(tensors)):
        raise ValueError(f"{listed(missing)} missing; does config.json describe these weights?")
    if extra := sorted(set(tensors) - set(table) - set(UNUSED)):
        raise ValueError(f"{listed(extra)} unknown; does config.json describe these weights?")
    parts: dict[ModulePath, dict[str, int | None]] = defaultdict(dict)
    for name, (path, layer) in table.items():
        parts[path][name] = layer
    leaves = []
    for path in progress(sorted(parts, key=lambda path: -math.prod(shapes[path]))):
        value = np.empty(shapes[path], jnp.dtype(config.param_dtype))
        for name, layer in parts[path].items():
            where: tuple[int, ...] = () if layer is None else (layer,)
            value[where] = _checked(name, tensors[name], path, _to_torch(path, value[where], config).shape)
        leaves.append((path, nnx.Param(jnp.asarray(value))))
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def _checked(name: str, tensor: np.ndarray, path: ModulePath, expected: tuple[int, ...]) -> np.ndarray:
    """One tensor in our layout."""
    tensor = np.asarray(tensor)
    if tensor.shape != expected:
        raise ValueError(f"{name} has shape {tensor.shape}, the config requires {expected}")
    if not np.isfinite(tensor).all():
        raise ValueError(f"{name} holds NaN or infinity; the file is damaged")
    return _from_torch(path, tensor)


def to_lerobot_tensors(model: SmolVLA) -> dict[str, np.ndarray]:
    """The inverse of `load_lerobot_tensors`, but for the `UNUSED` tensors.

    Raises:
      ValueError: if the model has parameters that lerobot has no name for, such as adapters.
    """
    return state_to_tensors(model.config, nnx.state(model, nnx.Param))


def state_to_tensors(config: SmolVLAConfig, state: nnx.State) -> dict[str, np.ndarray]:
    """Parameters, or anything shaped like them (gradients, moments), under lerobot's names and in torch's layout."""
    values = {path: np.asarray(leaf) for path, leaf in _flat(state).items()}
    table = tensor_names(config)
    if unknown := sorted(".".join(p) for p in set(values) - {slot.path for slot in table.values()}):
        raise ValueError(f"{listed(unknown)} have no lerobot name; fuse or detach the adapters first")
    return {
        name: np.ascontiguousarray(_to_torch(path, values[path][() if layer is None else (layer,)], config))
        for name, (path, layer) in table.items()
    }


def tensor_names(config: SmolVLAConfig) -> dict[str, Slot]:
    """Every lerobot tensor name that the policy reads, with its place in our model."""
    state = nnx.state(nnx.eval_shape(lambda: SmolVLA(config, rngs=nnx.Rngs(0))), nnx.Param)
    return {name: slot for path in _flat(state) for name, slot in _names(config, path)}


def module_names(config: SmolVLAConfig) -> dict[str, Slot]:
    """Every linear map that torch holds as an `nn.Linear`, by lerobot's module path.

    The patch embedding is left out: it is a convolution there, for which PEFT's files have another layout.
    """
    return {
        name.removesuffix(".weight"): Slot(path[:-1], layer)
        for name, (path, layer) in tensor_names(config).items()
        if path[-1] == "kernel" and path != _PATCH_KERNEL
    }


def save(directory: str | os.PathLike[str], model: SmolVLA, tokenizer: Tokenizer | None = None) -> None:
    """Writes config.json, model.safetensors (lerobot's names) and, if given, tokenizer.json.

    Each file is written beside its place and then renamed, so a reader never meets half a file.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    tensors = to_lerobot_tensors(model)
    with tempfile.TemporaryDirectory(dir=target, prefix=".save-") as scratch:
        tensor_file.write(Path(scratch, WEIGHTS), tensors)
        files.write_json(Path(scratch, CONFIG), {"type": SmolVLA.type, **model.config.to_dict()}, indent=2)
        if tokenizer is not None:
            tokenizer.save(str(Path(scratch, TOKENIZER)))
        for file in sorted(Path(scratch).iterdir()):
            file.replace(target / file.name)


def load(
    path_or_hub_id: str | os.PathLike[str],
    tokenizer: str | Path | None = None,
    progress: Progress = iter,
    **overrides: Any,
) -> Checkpoint:
    """Reads a policy: lerobot's directory, its name on the hub ("lerobot/smolvla_base"), or what `save` wrote.

    Args:
      path_or_hub_id: where it is. Without a network a name on the hub works if it is in the hub's local cache.
      tokenizer: tokenizer.json, or the directory that holds it, where it is not with the policy or on the hub.
      progress: goes over the parameters of a large policy, and may show how far it is.
      overrides: of the config, such as param_dtype="bfloat16".

    Raises:
      ValueError: if a file is missing or damaged, or weights and config do not match; the message names it.
    """
    source = hub.local_directory(Path(path_or_hub_id))
    if not (source / CONFIG).is_file():
        raise ValueError(f"{source / CONFIG} is missing; a policy directory holds {CONFIG} and {WEIGHTS}")
    values = files.read_json(source / CONFIG)
    file: Mapping[str, np.ndarray] = tensor_file.TensorFile(source / WEIGHTS)
    if (source / WEIGHTS).stat().st_size < _LARGE:
        progress = iter
    if lerobot.is_policy(values):
        found = lerobot.find_tokenizer(source, values.get("vlm_model_name"), tokenizer)
        config = lerobot.read_config(values, source / CONFIG, found, **overrides)
        sets, normalization = processors.read(source, {k: file[k] for k in file if lerobot.is_statistic(k)}, values)
        model = _model(source, config, lerobot.Weights(file), progress)
        return Checkpoint(model, found, sets, values, normalization, processors.cameras(source, values))
    try:
        sizes = {name: value for name, value in values.items() if name != "type"}
        config = dataclasses.replace(SmolVLAConfig.from_dict(sizes), **overrides)
    except ValueError as error:
        raise ValueError(f"{source / CONFIG}: {error}") from error
    given = tokenizer is not None or (source / TOKENIZER).is_file()
    found_here = lerobot.find_tokenizer(source, None, tokenizer) if given else None
    return Checkpoint(_model(source, config, file, progress), found_here, {}, None)


def _model(source: Path, config: SmolVLAConfig, tensors: Mapping[str, np.ndarray], progress: Progress) -> SmolVLA:
    try:
        return load_lerobot_tensors(config, tensors, progress)
    except ValueError as error:
        raise ValueError(f"{source / WEIGHTS}: {error}") from None


def _names(config: SmolVLAConfig, path: ModulePath) -> Iterator[tuple[str, Slot]]:
    """All lerobot names of one of our parameters: one, or one per layer of a stack."""
    prefix = next(path[:n] for n in range(len(path), -1, -1) if path[:n] in _MODULES)
    rest = list(path[len(prefix) :])
    if rest:
        rest[-1] = _LEAVES[rest[-1]]
    if path[:2] == ("text", "last"):
        yield ".".join([_MODULES[prefix], str(config.layers - 1), *rest]), Slot(path, None)
        return
    layers: dict[ModulePath, tuple[int, ...]] = {
        ("vision", "layers"): tuple(range(config.vision_layers)),
        ("text", "layers"): tuple(range(config.layers - 1)),
        ("expert", "self_layers"): config.self_layers,
        ("expert", "cross_layers"): config.cross_layers,
    }
    if path[:2] not in layers:
        yield ".".join([_MODULES[prefix], *rest]), Slot(path, None)
        return
    for index, layer in enumerate(layers[path[:2]]):
        yield ".".join([_MODULES[prefix], str(layer), *rest]), Slot(path, index)


def _to_torch(path: ModulePath, value: np.ndarray, config: SmolVLAConfig) -> np.ndarray:
    if path == _PATCH_KERNEL:
        return value.reshape(config.patch_size, config.patch_size, 3, -1).transpose(3, 2, 0, 1)
    return value.T if path[-1] == "kernel" else value


def _from_torch(path: ModulePath, tensor: np.ndarray) -> np.ndarray:
    if path == _PATCH_KERNEL:
        return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
    return tensor.T if path[-1] == "kernel" else tensor


def _flat(state: nnx.State) -> dict[ModulePath, jax.Array]:
    return {tuple(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}
