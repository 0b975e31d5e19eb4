"""Where a lerobot policy keeps its statistics, and by which modes it normalises; what contradicts itself is noted.

lerobot 0.4 normalises by policy_preprocessor.json and undoes it by policy_postprocessor.json, each with a state file.
Before, the statistics stood among the weights, as buffers. Old policies that were saved again can hold both.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.machine import files
from metalora_jax.policies import tensor_file
from metalora_jax.policies.policy import Normalization, StatisticsSets
from metalora_jax.policies.smolvla.lerobot import STATISTIC
from metalora_jax.words import plural

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
_STEPS = {PREPROCESSOR: "normalizer_processor", POSTPROCESSOR: "unnormalizer_processor"}
_FEATURES = {"STATE": "observation.state", "ACTION": "action"}
EPS, IDENTITY = 1e-8, "IDENTITY"  # lerobot's own
PICTURES = "observation.images."
_EMPTY, _NUMBERED = f"{PICTURES}empty_camera", re.compile(r"(camera|image)_?\d+")
_RENAMES = "rename_observations_processor"
_STRAY = "*normalizer_processor*.safetensors"

# What policies of this type do besides, and what is done here in its own way.
_KNOWN = {
    _RENAMES,
    "to_batch_processor",
    "smolvla_new_line_processor",
    "tokenizer_processor",
    "device_processor",
    *_STEPS.values(),
}

RELATIVE = "relative_actions_processor", "absolute_actions_processor"  # lerobot 0.6's, of policies like pi0

Key = tuple[str, str, str]  # data set, feature, statistic


class _Place(NamedTuple):
    """One place that holds statistics."""

    name: str
    numbers: Mapping[Key, np.ndarray]
    modes: Mapping[str, str] | None = None  # by which they are used there, if it says
    eps: float = EPS  # added to standard deviations
    widths: Mapping[str, int] = {}  # "STATE" and "ACTION" -> dimensions, if it says


def read(
    directory: Path, old_tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], steps: Collection[str] = ()
) -> tuple[StatisticsSets, Normalization]:
    """All statistics that a policy directory holds, and how they are used.

    Args:
      directory: with the two processor files and the state files that they name, or without.
      old_tensors: those of model.safetensors that are no weights.
      config: the policy's config.json.
      steps: what processors of its type do beside what SmolVLA's do, and is done here.

    Raises:
      ValueError: a processor file is no such file, has a step that is not done here, or names a state file that is
        missing, damaged or outside `directory`; or actions are undone by another mode than they were normalised by.
    """
    pre, post = (_pipeline(directory, file, steps) for file in _STEPS)
    named = {place.name for place in (pre, post) if place}
    buffers = list(_buffers(old_tensors))
    stray = [
        _Place(file.name, _numbers(tensor_file.TensorFile(file)))
        for file in sorted(directory.glob(_STRAY))
        if file.name not in named
    ]
    in_force = [place for place in (pre, post) if place and place.numbers] or buffers
    merged: dict[Key, np.ndarray] = {}
    for place in reversed([*in_force, *buffers]):  # the first one counts
        merged |= place.numbers
    wrong = [*_apart(in_force), *_unsound(merged), *_other_widths(in_force, _widths(config))]
    ignored = [place for place in (*buffers, *stray) if place not in in_force]
    said = [f"{line}; the former counts, as in lerobot" for other in ignored for line in _apart([*in_force[:1], other])]

    stated = _modes(directory / "config.json", "normalization_mapping", config.get("normalization_mapping")) or {}
    modes, of_modes = {kind: stated.get(kind, "MEAN_STD") for kind in _FEATURES}, []
    if pre and pre.modes:
        own = {kind: pre.modes.get(kind, IDENTITY) for kind in _FEATURES}
        of_modes = [
            f"{PREPROCESSOR} normalises {kind} by {own[kind]}, config.json says {modes[kind]}; the former counts, as "
            "in lerobot"
            for kind in _FEATURES
            if kind in stated and own[kind] != modes[kind]
        ]
        modes = own
    if post and post.modes and (undone := post.modes.get("ACTION", IDENTITY)) != modes["ACTION"]:
        raise ValueError(
            f"{directory}: actions are normalised by {modes['ACTION']}, but {POSTPROCESSOR} undoes {undone}; make the "
            "two agree, as the policy was trained"
        )

    sets: StatisticsSets = defaultdict(lambda: defaultdict(dict))
    for (data, feature, statistic), value in merged.items():
        sets[data][feature][statistic] = value
    files_used = " and ".join(dict.fromkeys(place.name.split(" (")[0] for place in in_force))
    plain = {data: {feature: dict(stats) for feature, stats in each.items()} for data, each in sets.items()}
    eps = pre.eps if pre else EPS
    return plain, Normalization(modes, files_used, (*of_modes, *said), tuple(wrong), _widths(config), eps)


def cameras(directory: Path, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What the robot calls the policy's cameras, in the policy's order; None where any has no name but a number.

    Policies that were fine-tuned from the public one call theirs camera1 to camera3. Where their names were mapped, the
    preprocessor still says how.

    Args:
      directory: of the policy.
      config: its config.json.
    """
    path = directory / PREPROCESSOR
    steps = files.read_json(path).get("steps", []) if path.is_file() else []
    renamed: dict[str, str] = {}
    for step in steps if isinstance(steps, list) else []:
        if _mapping(step).get("registry_name") == _RENAMES:
            renamed |= _mapping(_mapping(step.get("config")).get("rename_map"))
    robots = {theirs: own for own, theirs in renamed.items() if isinstance(theirs, str)}
    seen = [key for key, feature in _mapping(config.get("input_features")).items() if is_camera(key, feature)]
    names = tuple(robots.get(key, key).removeprefix(PICTURES) for key in seen)
    return None if not names or any(_NUMBERED.fullmatch(name) for name in names) else names


def is_camera(key: str, feature: Any) -> bool:
    """Whether an entry of input_features is a camera, and not a stand-in for one that is absent."""
    return _mapping(feature).get("type") == "VISUAL" and not key.startswith(_EMPTY)


def options_of(path: Path, name: str) -> Mapping[str, Any] | None:
    """What a processor file says of one of its steps; None where there is no such file or step."""
    steps = files.read_json(path).get("steps", []) if path.is_file() else []
    found = [step for step in steps if _mapping(step).get("registry_name") == name] if isinstance(steps, list) else []
    return _mapping(found[0].get("config")) if found else None


def _pipeline(directory: Path, file: str, known: Collection[str]) -> _Place | None:
    """The (un)normaliser of a processor file; None where there is none."""
    path = directory / file
    if not path.is_file():
        return None
    steps = files.read_json(path).get("steps", [])
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ValueError(f"{path}: `steps` is no list of objects; save the policy again")
    for step in steps:
        name = step.get("registry_name", step.get("class"))
        if name not in {*_KNOWN, *known} and _mapping(step.get("config")).get("enabled") is not False:
            remedy = "remove it if the policy works without it"
            if name in RELATIVE:
                remedy = "remove it, and say with metalora convert --relative_actions what it does"
            raise ValueError(
                f"{path}: its step {name!r} is not done here, and may change state, pictures or actions; {remedy}"
            )
    found = [step for step in steps if step.get("registry_name") == _STEPS[file]]
    if len(found) > 1:
        raise ValueError(
            f"{path}: {len(found)} steps are a {_STEPS[file]}; keep the one that the policy was trained with"
        )
    if not found:
        return None
    options = _mapping(found[0].get("config"))
    modes = _modes(path, "norm_map", options.get("norm_map")) or {}
    eps = options.get("eps", EPS)
    if type(eps) not in (int, float) or not 0 <= eps < float("inf"):
        raise ValueError(f"{path}: eps is {eps!r}; it must be a number, such as {EPS:g}")
    if modes and not _normalises_state(options):
        modes = {**modes, "STATE": IDENTITY}
    place = _Place(file, {}, modes, eps, _shapes(_mapping(options.get("features"))))
    if "state_file" not in found[0]:
        return place
    name = found[0]["state_file"]
    inside = isinstance(name, str) and name and not {"..", "/"} & set(PurePosixPath(name).parts)
    if not inside or "\\" in name or ":" in name:
        raise ValueError(f"{path}: state_file is {name!r}; it must name a file in {directory}")
    return place._replace(name=name, numbers=_numbers(tensor_file.TensorFile(directory / name)))


def _modes(file: Path, field: str, value: Any) -> dict[str, str] | None:
    """The modes that a file states; None where it states none."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(mode, str) for mode in value.values()):
        raise ValueError(
            f'{file}: {field} is {value!r}; it must name a mode for each kind, such as "STATE": "MEAN_STD"'
        )
    return dict(value)


def _normalises_state(options: Mapping[str, Any]) -> bool:
    """Whether the step normalises the state: only the features that it lists, and of those the chosen ones."""
    listed, chosen = options.get("features") or None, options.get("normalize_observation_keys")
    return all(names is None or _FEATURES["STATE"] in names for names in (listed, chosen))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(tensors: Mapping[str, np.ndarray]) -> dict[Key, np.ndarray]:
    found = {}
    for name in tensors:
        if (parts := STATISTIC.fullmatch(name)) is not None:
            feature = "observation.state" if parts["feature"].endswith("state") else "action"
            value = np.asarray(tensors[name], np.float32).reshape(-1)
            found[parts["set"] or "", feature, parts["stat"]] = value
    return found


def _buffers(tensors: Mapping[str, np.ndarray]) -> Iterator[_Place]:
    """The places of old checkpoints: normalize_inputs, normalize_targets and unnormalize_outputs, by how they counted.

    Actions were undone by unnormalize_outputs.
    """
    by_place: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, value in tensors.items():
        place = name.split(".")[0] if name.split(".")[0] in _BUFFERS else ""
        by_place[place][name] = value
    for place in ("", *_BUFFERS):
        if place in by_place and (numbers := _numbers(by_place[place])):
            yield _Place(f"model.safetensors ({place or 'buffers'})", numbers)


_BUFFERS = ("unnormalize_outputs", "normalize_targets", "normalize_inputs")


def _apart(places: list[_Place]) -> Iterator[str]:
    """Statistics that two places hold, and not alike."""
    for i, one in enumerate(places):
        for other in places[i + 1 :]:
            for key in sorted(one.numbers.keys() & other.numbers.keys()):
                mine, others = one.numbers[key], other.numbers[key]
                if mine.shape == others.shape and np.allclose(mine, others, rtol=1e-4, atol=1e-6, equal_nan=True):
                    continue
                name = ".".join(filter(None, key))
                yield f"{name} is {_figures(mine)} in {one.name}, but {_figures(others)} in {other.name}"
                break  # the others of the same file add nothing


def _unsound(numbers: Mapping[Key, np.ndarray]) -> Iterator[str]:
    """Statistics in force that are not finite, or not as wide as the others of their feature."""
    for (data, feature, statistic), value in numbers.items():
        if data or statistic == "count":
            continue
        if not np.isfinite(value).all():
            yield f"statistic {f'{feature}.{statistic}'!r} holds NaN or infinity"
        reference = next(v for (d, f, s), v in numbers.items() if (d, f) == (data, feature) and s != "count")
        if value.shape != reference.shape:
            own = plural(value.size, "dimension")
            yield f"{feature}.{statistic} has {own}, another statistic of {feature} {reference.size}"


def _widths(config: Mapping[str, Any]) -> dict[str, int]:
    """Dimensions of the state and of an action, where config.json says."""
    return _shapes({**_mapping(config.get("input_features")), **_mapping(config.get("output_features"))})


def _shapes(features: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for kind, feature in _FEATURES.items():
        shape = _mapping(features.get(feature)).get("shape")
        if isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int:
            found[kind] = shape[0]
    return found


def _other_widths(places: list[_Place], stated: Mapping[str, int]) -> Iterator[str]:
    """Widths that a processor declares and config.json contradicts."""
    for place in places:
        for kind, width in place.widths.items():
            if width != stated.get(kind, width):
                theirs = f"{width} dimensions by the processor of {place.name}"
                yield f"{_FEATURES[kind]} has {theirs}, {stated[kind]} by config.json"


def _figures(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{x:.3g}" for x in values[:4]) + (", ...]" if len(values) > 4 else "]")
