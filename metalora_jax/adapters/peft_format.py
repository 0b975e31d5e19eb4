"""Hugging Face PEFT adapter directories (adapter_config.json, adapter_model.safetensors), in and out.

PEFT keeps lora_A (rank, in) and lora_B (out, rank) of each layer; here a is (layers, in, rank), b (layers, rank, out).
Only what plain LoRA can express is read; anything else that a file asks for is refused by name.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from absl import logging
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from metalora_jax.adapters.attach import Theta
from metalora_jax.adapters.lora import LoRA
from metalora_jax.adapters.placement import Placement, Rule, resolve
from metalora_jax.fields import check_types
from metalora_jax.machine import files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_MANIFEST = "metalora_jax"  # key in the header

Names = Mapping[str, tuple[tuple[str, ...], int | None]]
"""PEFT's module path -> (our module path, layer index in a stack or None), for every linear map of the policy."""

Value = TypeVar("Value", int, float)

_READ = {"r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules"}
_READ |= {"exclude_modules", "layers_to_transform", "layers_pattern"}
_NOTES = {"peft_version", "base_model_name_or_path", "revision", "task_type", "auto_mapping", "inference_mode"}
# What does nothing at these values. Any other field, of today or to come, must be off, see `_off`.
_NEUTRAL: dict[str, set[Any]] = {
    "peft_type": {"LORA"},
    "bias": {"none"},
    "init_lora_weights": {True, "gaussian"},  # others, such as PiSSA, change the base weights as well
    "megatron_core": {"megatron.core"},
    "qalora_group_size": {16},
}


def read(directory: str | Path, names: Names) -> tuple[Placement, Theta]:
    """Reads an adapter.

    Args:
      directory: holds adapter_config.json and adapter_model.safetensors.
      names: the policy's table of linear maps.

    Returns:
      The placement (one rule for each of our module paths) and theta, float32. Whether the widths are those of the
      base is checked where the two meet, in `join`.

    Raises:
      ValueError: names the file, and the field or tensor that is missing, unknown, misshapen, not finite or not plain
        LoRA.
    """
    directory = Path(directory)
    config = _read_config(directory / CONFIG)
    tensors = _read_tensors(directory / WEIGHTS)
    rules = {name: _lora_of(config, name) for name in names if _targets(config, name)}
    if not rules:
        what = f"target_modules = {str(config['target_modules'])[:80]!r}"
        if (chosen_layers := _layers(config)) is not None:
            what += f" with layers_to_transform = {chosen_layers}"
        raise ValueError(
            f"{directory / CONFIG}: {what} names no linear map of this policy, such as {next(iter(names))!r}"
        )
    _say_unused(directory / CONFIG, config, rules, names)
    expected = {_key(name, part) for name in rules for part in "AB"}
    for what, keys in (("missing", expected - tensors.keys()), ("unknown", tensors.keys() - expected)):
        if keys:
            raise ValueError(f"{directory / WEIGHTS}: {what} tensor {min(keys)!r} ({len(keys)} in all)")

    layers: dict[str, dict[int | None, str]] = defaultdict(dict)  # our path -> layer -> PEFT's name
    for name, (path, layer) in names.items():
        layers["/".join(path)][layer] = name
    placement: list[Rule] = []
    theta: Theta = {}
    for stack_path, stack in layers.items():
        chosen = [name for name in stack.values() if name in rules]
        if not chosen:
            continue
        for name in stack.values():
            if name not in rules or rules[name] != rules[chosen[0]]:
                raise ValueError(
                    f"{directory / CONFIG}: {chosen[0]!r} and {name!r} share the stack {stack_path!r} here, "
                    "so both need an adapter of one rank and alpha"
                )
        kind, parts = rules[chosen[0]], {}
        for part in "AB":
            each = [
                _checked(directory / WEIGHTS, tensors, _key(stack[layer], part), part, kind.rank)
                for layer in _in_order(stack)
            ]
            if len({array.shape for array in each}) > 1:
                raise ValueError(
                    f"{directory / WEIGHTS}: lora_{part} of {stack_path!r} differs in shape between layers"
                )
            parts[part.lower()] = jnp.asarray(each[0] if None in stack else np.stack(each))
        placement.append(Rule(re.escape(stack_path), kind))
        theta[stack_path] = parts
    return tuple(placement), theta


def write(
    directory: str | Path,
    placement: Placement,
    theta: Theta,
    names: Names,
    base_model: str | None = None,
    revision: str | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Writes an adapter that PEFT loads, and that `read` turns back into the same theta.

    Args:
      directory: made if absent; must not hold an adapter already.
      placement: the rules that theta was made by.
      theta: as `split` gives it.
      names: the policy's table of linear maps.
      base_model: name or path of the base checkpoint (lerobot refuses an adapter without one).
      revision: commit of the base checkpoint on the hub.
      manifest: JSON that travels along in the header of the weights' file, where PEFT does not look.

    Raises:
      ValueError: theta has a path that `names` or the placement lacks, or the rules differ where PEFT allows one value.
    """
    directory = Path(directory)
    if (directory / CONFIG).exists() or (directory / WEIGHTS).exists():
        raise ValueError(f"{directory} holds an adapter already; choose another directory")
    by_path = resolve(placement, theta, allow_unused=True)
    if unplaced := theta.keys() - by_path.keys():
        raise ValueError(f"theta has {min(unplaced)!r}, which no rule of the placement adapts")
    rules = {name: by_path["/".join(path)] for name, (path, _) in names.items() if "/".join(path) in theta}
    if unnamed := theta.keys() - {"/".join(names[name][0]) for name in rules}:
        raise ValueError(f"theta has {min(unnamed)!r}, which has no name in PEFT's layout")
    kinds = {name: rule.kind for name, rule in rules.items() if isinstance(rule.kind, LoRA)}
    if other := [name for name in rules if name not in kinds]:
        raise ValueError(
            f"PEFT's LoRA format has no place for the adapter on {other[0]!r}: {rules[other[0]].kind}; lerobot runs "
            "it as it is, where metalora export writes it with --format=lerobot_plugin"
        )
    for field in ("dropout", "rslora"):
        if len({getattr(kind, field) for kind in kinds.values()}) > 1:
            raise ValueError(f"PEFT has one {field} for all modules; the placement has several")

    tensors = {}
    for name in rules:
        path, layer = names[name]
        for part, leaf in theta["/".join(path)].items():
            array = np.asarray(leaf, np.float32)
            tensors[_key(name, part.upper())] = np.ascontiguousarray((array if layer is None else array[layer]).T)
    first = next(iter(kinds.values()), LoRA())
    rank, rank_pattern = _common({name: kind.rank for name, kind in kinds.items()}, first.rank)
    alpha, alpha_pattern = _common({name: kind.alpha for name, kind in kinds.items()}, first.alpha)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "revision": revision,
        "task_type": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": first.dropout,
        "use_rslora": first.rslora,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "target_modules": sorted(rules),
        "bias": "none",
        "modules_to_save": None,
        "fan_in_fan_out": False,
    }
    directory.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"} | ({} if manifest is None else {_MANIFEST: json.dumps(manifest)})
    save_file(tensors, directory / WEIGHTS, metadata=metadata)
    (directory / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
    files.write_json(directory / CONFIG, config, indent=2, sort_keys=True)


def read_manifest(directory: str | Path) -> dict[str, Any] | None:
    """The manifest that `write` was given; None for a file of other origin."""
    try:
        with safe_open(Path(directory) / WEIGHTS, "np") as file:
            text = (file.metadata() or {}).get(_MANIFEST)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{Path(directory) / WEIGHTS}: not a readable safetensors file ({error})") from None
    return None if text is None else json.loads(text)


def _read_config(file: Path) -> dict[str, Any]:
    config = files.read_json(file)
    for field in ("peft_type", "r", "lora_alpha", "target_modules"):
        if config.get(field) is None:
            raise ValueError(f"{file}: field {field!r} is missing")
    for field, value in config.items():
        if field in _READ | _NOTES or _off(value):
            continue
        if isinstance(value, dict | list) or not any(
            type(one) is type(value) and one == value for one in _NEUTRAL.get(field, ())
        ):
            raise ValueError(f"{file}: {field} = {value!r} is not supported; only plain LoRA is")
    try:
        check_types(_Plain, {field: config[field] for field in _READ if config.get(field) is not None}, f"{file}: ")
    except ValueError as error:
        raise ValueError(f"{error}, as peft writes it") from None
    for field, values in (("r", config.get("rank_pattern")), ("lora_alpha", config.get("alpha_pattern"))):
        for value in (config[field], *(values or {}).values()):
            if value <= 0:
                raise ValueError(f"{file}: {field} and its patterns must be positive, not {value}")
    if isinstance(config["target_modules"], str) and _layers(config) is not None:
        raise ValueError(f"{file}: layers_to_transform needs target_modules as a list of names, as in peft")
    if not 0 <= (config.get("lora_dropout") or 0) < 1:
        raise ValueError(f"{file}: lora_dropout is {config['lora_dropout']}; it must be in [0, 1)")
    whole = [value for name in ("target_modules", "exclude_modules") if isinstance(value := config.get(name), str)]
    patterns = _listed(config.get("layers_pattern"))
    for pattern in (*whole, *patterns, *(config.get("rank_pattern") or ()), *(config.get("alpha_pattern") or ())):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{file}: {pattern!r} is no regular expression ({error})") from None
    return config


class _Plain(NamedTuple):
    """The types of what is read."""

    r: int
    lora_alpha: float
    target_modules: str | tuple[str, ...]
    lora_dropout: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    exclude_modules: str | tuple[str, ...]
    layers_to_transform: int | tuple[int, ...]
    layers_pattern: str | tuple[str, ...]


def _off(value: Any) -> bool:
    """Null, false or empty; 0 is not: it may be the number of a layer."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _say_unused(file: Path, config: Mapping[str, Any], rules: Mapping[str, LoRA], names: Names) -> None:
    """Logs the patterns that name nothing; peft says nothing about them."""
    targets = config["target_modules"]
    for target in targets if isinstance(targets, list) else ():
        if not any(f".{name}".endswith(f".{target}") for name in names):
            logging.warning("%s: target_modules names %r, which is no linear map of this policy", file, target)
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in config.get(field) or ():
            if not any(_matches(pattern, name) for name in rules):
                logging.warning("%s: %s names %r, which matches no adapted map", file, field, pattern)


def _read_tensors(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        pickled = file.with_suffix(".bin").is_file()
        why = f"; {file.with_suffix('.bin').name} is a pickle and not read, save with safe_serialization=True"
        raise ValueError(f"{file} is missing{why if pickled else ''}")
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: not a readable safetensors file ({error})") from None


def _targets(config: dict[str, Any], name: str) -> bool:
    """PEFT's rule: the chosen names but the excluded; of those that end so, only the chosen layers."""
    if _named(config.get("exclude_modules") or [], name) or not _named(config["target_modules"], name):
        return False
    layers = _layers(config)
    if layers is None or name in config["target_modules"]:  # a whole name is meant as it is
        return True
    patterns = _listed(config.get("layers_pattern")) or [r"[^.]*"]
    found = (re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name) for pattern in patterns)
    return next((int(match[1]) in layers for match in found if match), False)


def _named(target: str | list[str], name: str) -> bool:
    """A string is a regular expression for the whole name, a list holds names or their last parts."""
    if isinstance(target, str):
        return re.fullmatch(target, name) is not None
    return any(f".{name}".endswith(f".{suffix}") for suffix in target)


def _layers(config: Mapping[str, Any]) -> list[int] | None:
    """The numbers of the layers to adapt; None is all."""
    layers = config.get("layers_to_transform")
    return [layers] if isinstance(layers, int) else layers or None


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) and value else list(value or ())


def _lora_of(config: dict[str, Any], name: str) -> LoRA:
    return LoRA(
        rank=_from_pattern(config.get("rank_pattern"), name, config["r"]),
        alpha=float(_from_pattern(config.get("alpha_pattern"), name, config["lora_alpha"])),
        dropout=config.get("lora_dropout") or 0.0,
        rslora=config.get("use_rslora") or False,
    )


def _from_pattern(patterns: Mapping[str, Value] | None, name: str, default: Value) -> Value:
    """PEFT's rule: the first pattern that matches the name, or a tail of it that begins after a dot."""
    return next((value for pattern, value in (patterns or {}).items() if _matches(pattern, name)), default)


def _matches(pattern: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def _common(values: Mapping[str, Value], default: Value) -> tuple[Value, dict[str, Value]]:
    """The commonest value, and patterns for the names that have another."""
    common = Counter(values.values()).most_common(1)[0][0] if values else default
    return common, {re.escape(name): value for name, value in values.items() if value != common}


def _key(name: str, part: str) -> str:
    return f"base_model.model.{name}.lora_{part}.weight"


def _in_order(stack: Mapping[int | None, str]) -> list[int | None]:
    return sorted(stack, key=lambda layer: -1 if layer is None else layer)


def _checked(file: Path, tensors: Mapping[str, np.ndarray], key: str, part: str, rank: int) -> np.ndarray:
    """One tensor in our layout."""
    array = tensors[key].astype(np.float32)
    if array.ndim != 2 or array.shape[0 if part == "A" else 1] != rank:
        raise ValueError(f"{file}: {key!r} has shape {list(array.shape)}, its rank should be {rank}")
    if not np.isfinite(array).all():
        raise ValueError(f"{file}: {key!r} holds NaN or infinity; the file is damaged")
    return array.T
