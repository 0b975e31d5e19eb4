"""Are normalisation statistics valid, and from enough data? Those of one demonstration have made losses explode."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.adaptation.conventions import FAR_ACTION, FAR_STATE
from metalora_jax.data import relative_statistics
from metalora_jax.data.normalize import Statistics
from metalora_jax.data.text import named
from metalora_jax.evaluation.doctor.findings import Finding, Outcome
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.words import plural

FLOOR = 0.01  # of `normalize.compute`
TINY = 1e-4  # no robot's dimension varies so little; dividing by it amplifies noise
NARROW = 4.0  # factor by which demonstrations may vary more than the statistics say
TOO_NARROW = 0.1  # times as much as the statistics say; one task of many reaches 0.3 in most dimensions
OUTSIDE = 5.0  # times the share of numbers that quantiles leave out
FEW = 5  # demonstrations that are too few for statistics
_REMEDY = "use the statistics of the base's training tasks; never compute them from a support set"
_NAMES = {"state": ("state", "observation.state", "proprio"), "action": ("action", "actions")}


class Scales(NamedTuple):
    """Statistics of state or action: name ("mean", "std", "min", "max", "q01", "q99") -> (width,) float64."""

    state: Mapping[str, np.ndarray]
    action: Mapping[str, np.ndarray]
    steps: int | None = None  # how many they come from, if the file says so
    demos: int | None = None


def of(statistics: Statistics) -> Scales:
    """The statistics of a base; of the commands, where it predicts some relative to the state."""
    known = statistics.of_commands()._asdict()
    fields = {name: np.asarray(known[name], np.float64) for name in known if name.endswith(("_mean", "_std"))}
    state, action = ({"mean": fields[f"{kind}_mean"], "std": fields[f"{kind}_std"]} for kind in ("state", "action"))
    return Scales(state, action)


def read(path: Path) -> Scales:
    """From a JSON file: ours, LeRobot's stats.json, openpi's norm_stats.json or OpenVLA's dataset_statistics.json.

    Raises:
      ValueError: if it is missing, damaged, or none of these.
    """
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}); write it again") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: not a JSON object; {_REMEDY}")
    try:
        if "state_mean" in fields:
            return of(Statistics.from_json(fields))
        while len(fields) == 1:  # openpi's "norm_stats", OpenVLA's name of the data set
            (fields,) = fields.values()
        parts = {kind: next(fields[name] for name in names if name in fields) for kind, names in _NAMES.items()}
        steps, demos = fields.get("num_transitions"), fields.get("num_trajectories")
        if steps is None and "count" in parts["action"]:  # LeRobot's
            steps = int(np.ravel(parts["action"]["count"])[0])
        state, action = (_numbers(f"{path}: {kind}", parts[kind]) for kind in ("state", "action"))
        return Scales(state, action, steps, demos)
    except (StopIteration, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: it has no statistics of state and action; {_REMEDY}") from error


def _numbers(where: str, part: Any) -> dict[str, np.ndarray]:
    if not isinstance(part, Mapping):
        raise ValueError(f"{where} is {named(part)}, expected its statistics by name; {_REMEDY}")
    if missing := [name for name in ("mean", "std") if name not in part]:
        raise ValueError(f"{where} has no {' and no '.join(missing)}; {_REMEDY}")
    numbers = {}
    for name in ("mean", "std", "min", "max", "q01", "q10", "q90", "q99"):
        if name not in part:
            continue
        try:
            numbers[name] = np.asarray(part[name], np.float64).ravel()
        except (TypeError, ValueError):
            raise ValueError(f"{where}: {name} is {named(part[name])}, expected numbers; {_REMEDY}") from None
        if part[name] is None or not numbers[name].size:
            shown = named(part[name]) if part[name] is None else "empty"
            raise ValueError(f"{where}: {name} is {shown}, expected numbers; {_REMEDY}")
    return numbers


def statistics(given: Scales, where: str, recordings: Sequence[Recording], bounded: bool = True) -> Outcome:
    """Is no dimension degenerate, and do the statistics cover the demonstrations, and not far more?

    Args:
      given: the statistics.
      where: their file.
      recordings: to compare with.
      bounded: whether actions lie in [-1, 1], as in the simulators.
    """
    found = []
    for kind, own in (("state", given.state), ("action", given.action)):
        data = [getattr(r, "state" if kind == "state" else "actions").astype(np.float64) for r in recordings]
        if unsound := _numbers_wrong(where, kind, own, bounded):
            found += unsound
            continue
        if data and data[0].shape[1] != len(own["mean"]):
            what = f"{kind} has {plural(len(own['mean']), 'dimension')}, the demonstrations have {data[0].shape[1]}"
            found.append(Finding(where, what, "use the statistics of this robot and of this state"))
            continue
        if kind == "action" and (wrong := relative(where, own, recordings)):
            found.append(wrong)
            continue
        found += _degenerate(where, kind, own, data)
        found += _uncovered(where, kind, own, data)
        found += _narrow_quantiles(where, kind, own, data)
        found += _narrow(where, kind, own, data)
    sound = all(len(own["mean"]) == len(own["std"]) for own in (given.state, given.action))
    if sound and (said := _too_few(given, recordings)):
        found.insert(0, Finding(where, said, _REMEDY))
    note = f"one unit of the policy: state {_figures(given.state['std'])}, action {_figures(given.action['std'])}"
    return Outcome("statistics", tuple(found), note)


def relative(where: str, own: Mapping[str, np.ndarray], recordings: Sequence[Recording]) -> Finding | None:
    """What there is to say about action statistics that are those of relative actions, of absolute recorded ones."""
    if len({(r.state.shape[1], r.actions.shape[1]) for r in recordings}) != 1:
        return None
    if not relative_statistics.are(own, [r.state for r in recordings], [r.actions for r in recordings]):
        return None
    return Finding(
        where,
        "its statistics of actions are those of actions relative to the state, the recorded actions are absolute",
        "lerobot's recompute_stats(relative_action=True) leaves no mark: recompute them without it before a policy is "
        "trained under them",
    )


def against(given: Scales, where: str, base: Scales) -> list[Finding]:
    """Dimensions whose scale differs from the base's."""
    found = []
    for kind, own, known in (("state", given.state, base.state), ("action", given.action, base.action)):
        if len(own["mean"]) != len(known["mean"]):
            what = f"{kind} has {plural(len(own['mean']), 'dimension')}, the base's has {len(known['mean'])}"
            found.append(Finding(where, what, _REMEDY))
            continue
        factor = own["std"] / known["std"]
        away = (own["mean"] - known["mean"]) / known["std"]
        for i in range(len(factor)):
            if not 0.1 < factor[i] < 10 or abs(away[i]) > FAR_STATE:
                what = (
                    f"{kind} dimension {i}: {factor[i]:.2g} times the base's scale, {away[i]:+.1f} of it from its mean"
                )
                found.append(Finding(where, what, "units or data set differ: use the base's own statistics"))
    return found


def _numbers_wrong(where: str, kind: str, own: Mapping[str, np.ndarray], bounded: bool) -> list[Finding]:
    if len({len(values) for values in own.values()}) > 1:
        return [Finding(where, f"{kind}: its statistics differ in width", _REMEDY)]
    if not all(np.isfinite(values).all() for values in own.values()):
        return [Finding(where, f"{kind}: not all numbers are finite", _REMEDY)]
    found = []
    for low, high in (("min", "mean"), ("mean", "max"), ("q01", "q99"), ("q10", "q90")):
        if low in own and high in own and (wrong := np.flatnonzero(own[low] > own[high] + 1e-6)).size:
            found.append(Finding(where, f"{kind} dimension {wrong[0]}: {low} lies above {high}", _REMEDY))
    found += _impossible(where, kind, own, bounded)
    if (wrong := np.flatnonzero(own["std"] < 0)).size:
        found.append(Finding(where, f"{kind} dimension {wrong[0]}: negative standard deviation", _REMEDY))
    return found


def _impossible(where: str, kind: str, own: Mapping[str, np.ndarray], bounded: bool) -> list[Finding]:
    """A variance is at most (max - mean)(mean - min) (Bhatia and Davis 2000)."""
    if "min" in own and "max" in own:
        low, high = own["min"], own["max"]
    elif kind == "action" and bounded:
        low, high = np.array(-1.0), np.array(1.0)
    else:
        return []
    most = np.sqrt(np.maximum((high - own["mean"]) * (own["mean"] - low), 0.0))
    what = "no values can have this mean and standard deviation; are they the smallest and largest value?"
    return [
        Finding(where, f"{kind} dimension {i}: {what}", _REMEDY)
        for i in np.flatnonzero(own["std"] > 1.05 * most + 2 * FLOOR)
    ]


def _degenerate(where: str, kind: str, own: Mapping[str, np.ndarray], data: Sequence[np.ndarray]) -> list[Finding]:
    found = []
    spread = np.concatenate(data).std(axis=0) if data else np.full(len(own["std"]), np.inf)
    for i, std in enumerate(own["std"]):
        if abs(std) < TINY:
            what = f"{kind} dimension {i} has a standard deviation of {std:.1g}"
        elif kind == "action" and i == len(own["std"]) - 1 and std <= FLOOR * 1.001:
            what = "the gripper never moves in these statistics"
        elif std <= FLOOR * 1.001 and spread[i] > 2 * FLOOR and data:
            what = f"{kind} dimension {i} is constant in these statistics, but moves in the demonstrations"
        else:
            continue
        found.append(Finding(where, f"{what}: degenerate", _REMEDY))
    return found


def _uncovered(where: str, kind: str, own: Mapping[str, np.ndarray], data: Sequence[np.ndarray]) -> list[Finding]:
    if not data:
        return []
    values, scale = np.concatenate(data), np.maximum(np.abs(own["std"]), TINY)
    away = (values.mean(0) - own["mean"]) / scale
    furthest = np.abs(values - own["mean"]).max(0) / scale
    wider = values.std(0) / scale
    far = [
        i for i in range(len(scale)) if abs(away[i]) > FAR_STATE or furthest[i] > 2 * FAR_ACTION or wider[i] > NARROW
    ]
    return [
        Finding(
            where,
            f"{kind} dimension {i}: the demonstrations lie {away[i]:+.1f} standard deviations away, up to "
            f"{furthest[i]:.0f}, and vary {wider[i]:.1f} times as much; other units, or statistics of too little data",
            _REMEDY,
        )
        for i in far
    ]


def _narrow(where: str, kind: str, own: Mapping[str, np.ndarray], data: Sequence[np.ndarray]) -> list[Finding]:
    """Demonstrations that hardly leave the mean in most dimensions; one task alone may leave some of them still."""
    if not data:
        return []
    wide = own["std"] > FLOOR * 1.001
    if not wide.any():
        return []
    share = np.concatenate(data).std(0)[wide] / own["std"][wide]
    middle = float(np.median(share))
    if middle >= TOO_NARROW:
        return []
    hint = ": radians for degrees?" if abs(np.log(middle * 180 / np.pi)) < np.log(4) else ""
    what = f"{kind}: the demonstrations vary {middle:.2g} times as much as these statistics, in the median{hint}"
    return [Finding(where, f"{what}; other units, or another robot", "bring them into the units of the statistics")]


def _narrow_quantiles(
    where: str, kind: str, own: Mapping[str, np.ndarray], data: Sequence[np.ndarray]
) -> list[Finding]:
    """Means of the episodes' quantiles are no quantiles: far more than their share of the numbers lies outside."""
    found = []
    for low, high, expected in (("q01", "q99", 0.02), ("q10", "q90", 0.2)):
        if not data or low not in own or high not in own:
            continue
        values = np.concatenate(data)
        share = float(((values < own[low]) | (values > own[high])).mean())
        if share > min(OUTSIDE * expected, 0.5):
            what = (
                f"{kind}: {share:.0%} of the demonstrations' numbers lie outside [{low}, {high}], {expected:.0%} "
                "expected: quantiles of other data, or averaged over episodes"
            )
            found.append(Finding(where, what, "compute them over all frames together"))
    return found


def _too_few(given: Scales, recordings: Sequence[Recording]) -> str:
    """Whether the file says that it comes from few demonstrations, or a few of these give exactly the same numbers."""
    if given.demos is not None and given.demos <= FEW:
        return f"computed from {plural(given.demos, 'demonstration')}"
    longest = max((len(r.actions) for r in recordings), default=100)
    if given.steps is not None and given.steps <= longest:
        return f"computed from {given.steps} steps, which is one demonstration or less"
    for r in recordings:
        if _equal(given, [r]):
            return f"computed from one demonstration, {r.file} {r.name}"
    for file in dict.fromkeys(r.file for r in recordings):
        own = [r for r in recordings if r.file == file]
        for number in range(2, min(FEW, len(own)) + 1):
            if _equal(given, own[:number]):
                return f"computed from {number} demonstrations, the first of {file}"
    if 1 < len(recordings) <= FEW and _equal(given, recordings):
        return f"computed from these {len(recordings)} demonstrations"
    return ""


def _equal(given: Scales, recordings: Sequence[Recording]) -> bool:
    pairs = ((given.state, [r.state for r in recordings]), (given.action, [r.actions for r in recordings]))
    for own, parts in pairs:
        values = np.concatenate(parts).astype(np.float64)
        if values.shape[1] != len(own["mean"]) or not np.allclose(own["mean"], values.mean(0), rtol=1e-3, atol=1e-4):
            return False
        least = np.where(own["std"] <= FLOOR * 1.001, FLOOR, 0.0)  # with our floor, or without it
        std = values.std(0)
        if not np.allclose(np.maximum(own["std"], least), np.maximum(std, least), rtol=0.02, atol=1e-4):
            return False
    return True


def _figures(values: np.ndarray) -> str:
    return " ".join(f"{value:.2g}" for value in values)
