"""Normalisation statistics: computed once from training demonstrations, then carried with the base and every adapter.

They are never recomputed from a k-shot support set: a single demonstration has constant dimensions, whose standard
deviation of ~1e-6 has caused losses of up to 1e10. Scales have a floor for the same reason.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.data import relative as relatives
from metalora_jax.types import Demo
from metalora_jax.words import plural

FLOOR = 0.01  # [units of the robot] least scale of a dimension that hardly moves: 0.01 rad or m then counts as 1
TINY = 1e-4  # [units of the robot] no joint, hand or gripper varies so little; dividing by it amplifies noise
CHUNK = 50  # actions in a chunk of lerobot's policies, where theirs is not known
_KINDS = ("state", "action")
_ROWS = ("state_mean", "state_std", "action_mean", "action_std")


class Statistics(NamedTuple):
    """Mean and scale of each dimension of the robot's own state and action vectors, float32."""

    state_mean: np.ndarray  # (state_dim,)
    state_std: np.ndarray  # (state_dim,), each >= the floor
    action_mean: np.ndarray  # (action_dim,)
    action_std: np.ndarray  # (action_dim,), each >= the floor
    # (action_dim,) bool: the policy predicts these minus the state at the chunk's start, whose statistics these are
    # then, see `data.relative`. None: actions as they are recorded
    relative: np.ndarray | None = None
    of_differences: bool = False  # what was recorded, and made relative, were differences already (openpi's pi0_libero)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, exact for float32. What is relative is written only where something is."""
        fields: dict[str, Any] = {k: [float(x) for x in getattr(self, k)] for k in _ROWS}
        if self.relative is not None:
            fields["relative"] = self.relative.tolist()
        return fields | ({"of_differences": True} if self.of_differences else {})

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Statistics":
        """Inverse of `to_json`.

        Raises:
          ValueError: a key is missing or unknown, a value is no list of numbers, or see `checked`.
        """
        if set(fields) - {"relative", "of_differences"} != set(_ROWS):
            raise ValueError(f"normalisation statistics have keys {sorted(fields)}, expected {sorted(_ROWS)}")
        mask, differences = fields.get("relative"), fields.get("of_differences", False)
        if mask is not None and not (isinstance(mask, list) and all(type(x) is bool for x in mask)):
            raise ValueError(f"relative is {str(mask)[:60]}; it must be a list of true or false for each dimension")
        if type(differences) is not bool:
            raise ValueError(f"of_differences is {differences!r}; it must be true or false")
        rows = {name: _row(name, fields[name]) for name in _ROWS}
        return cls(**rows, relative=None if mask is None else np.array(mask), of_differences=differences).checked()

    def checked(self) -> "Statistics":
        """Itself.

        Raises:
          ValueError: mean and scale differ in width, a number is not finite, or a scale is not positive; or what is
            relative does not fit them, see `relative.checked`.
        """
        for kind in _KINDS:
            mean, scale = getattr(self, f"{kind}_mean"), getattr(self, f"{kind}_std")
            if mean.ndim != 1 or not mean.size or mean.shape != scale.shape:
                raise ValueError(
                    f"{kind}: its statistics differ in width, {kind}_mean has shape {mean.shape} and {kind}_std "
                    f"{scale.shape}; both need a number for each dimension"
                )
            for name, wrong in (
                (f"{kind}_mean", ~np.isfinite(mean)),
                (f"{kind}_std", ~(np.isfinite(scale) & (scale > 0))),
            ):
                if wrong.any():
                    i, rule = int(wrong.argmax()), "finite" if name.endswith("mean") else "finite and positive"
                    value = getattr(self, name)[i]
                    raise ValueError(f"{kind}: not all numbers are {rule}, {name} is {value:g} in dimension {i}")
        if self.relative is not None:
            relatives.checked(self.relative, len(self.state_mean), len(self.action_mean))
        elif self.of_differences:
            raise ValueError("of_differences is set, and no action is relative; set both or neither")
        return self

    def of_commands(self) -> "Statistics":
        """Those of the commands themselves: these, or an estimate where they are of actions minus the state.

        Absolute commands go where the state goes, so its place and spread are taken for theirs. Where the recorded
        actions were differences, nothing tells theirs, and these stay as they are.
        """
        if self.relative is None:
            return self
        mean, std = self.action_mean.copy(), self.action_std.copy()
        if not self.of_differences:
            at = np.flatnonzero(self.relative)
            mean[at], std[at] = self.state_mean[at], self.state_std[at]
        return Statistics(self.state_mean, self.state_std, mean, std)

    def narrowed(self, state: int | None = None, action: int | None = None) -> "Statistics":
        """The first dimensions of each, for a robot that has fewer; None keeps all.

        Raises:
          ValueError: there are fewer than asked for.
        """
        for kind, width in zip(_KINDS, (state, action), strict=True):
            if width is not None and not 0 < width <= (there := len(getattr(self, f"{kind}_mean"))):
                raise ValueError(f"{kind}: its statistics have {plural(there, 'dimension')}, {width} cannot be kept")
        mask = None if self.relative is None else self.relative[:action]
        some = mask is not None and mask.any()
        return Statistics(
            *(self.state_mean[:state], self.state_std[:state], self.action_mean[:action], self.action_std[:action]),
            relative=mask if some else None,
            of_differences=self.of_differences and bool(some),
        )

    def digest(self) -> str:
        """Short hash that an adapter's manifest records."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def compute(
    demos: Sequence[Demo],
    floor: float = FLOOR,
    modes: Mapping[str, str] | None = None,
    eps: float = 1e-8,
    relative: np.ndarray | None = None,
    chunk: int = CHUNK,
    of_differences: bool = False,
) -> Statistics:
    """Statistics over all steps of `demos`; a scale below `floor` (in the robot's units) is raised to it.

    Args:
      demos: of the training tasks.
      floor: least scale.
      modes: "STATE" and "ACTION" -> one of the modes of `shift_and_scale`; "MEAN_STD" where they are left out.
      eps: see there; of no account beside a floor, but for "OPENPI_QUANTILES".
      relative: see `Statistics`; those of actions are then over all actions of the chunks from all steps, in every
        dimension, as openpi's are: see `relative.of_episodes`.
      chunk: actions in a chunk of the policy; matters where some are relative.
      of_differences: see `Statistics`.

    Raises:
      ValueError: there are no demonstrations, they differ in width, a mode is unknown, or `relative` does not fit them.
    """
    if not demos:
        raise ValueError("normalisation statistics need at least one demonstration")
    parts: list[np.ndarray] = []
    for kind, every in (("STATE", [d.state for d in demos]), ("ACTION", [d.actions for d in demos])):
        if len(widths := sorted({values.shape[1] for values in every})) > 1:
            raise ValueError(
                f"the demonstrations have {' and '.join(map(str, widths))} {kind.lower()} dimensions; take statistics "
                "of one robot at a time"
            )
        if kind == "ACTION" and relative is not None:
            every = [relatives.of_episodes([d.state for d in demos], every, relative, chunk)]
        values, mode = np.concatenate(every).astype(np.float64), (modes or {}).get(kind, MEAN_STD)
        if mode == MEAN_STD:
            shift, scale = values.mean(0), values.std(0)
        else:
            shift, scale = shift_and_scale(_of_data(values), mode, eps)
        parts += [shift, np.maximum(scale, floor)]
    state_mean, state_std, action_mean, action_std = (part.astype(np.float32) for part in parts)
    return Statistics(state_mean, state_std, action_mean, action_std, relative, of_differences)


MEAN_STD, IDENTITY, OPENPI_QUANTILES = "MEAN_STD", "IDENTITY", "OPENPI_QUANTILES"
_NEEDS = {
    MEAN_STD: ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
    OPENPI_QUANTILES: ("q01", "q99"),
}
OUTSIDE = {"QUANTILES": 0.02, "QUANTILE10": 0.2, OPENPI_QUANTILES: 0.02}
"""Share of all numbers that lie outside the two quantiles of a mode."""


def _of_data(values: np.ndarray) -> dict[str, np.ndarray]:
    """Every statistic that a mode needs, (T, width) -> (width,); quantiles over all steps, never means of episodes'."""
    quantiles = {f"q{q:02d}": np.quantile(values, q / 100, axis=0) for q in (1, 10, 90, 99)}
    return quantiles | {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}


def shift_and_scale(stats: Mapping[str, np.ndarray], mode: str, eps: float = 1e-8) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale, float32, that normalise like one of lerobot's modes, or of openpi's.

    Args:
      stats: "mean", "std", "min", "max", "q01", ... -> (width,).
      mode: "MEAN_STD"; "MIN_MAX", "QUANTILES" (q01, q99) and "QUANTILE10" (q10, q90) map to [-1, 1]; "IDENTITY".
        "OPENPI_QUANTILES" is (x - q01) / (q99 - q01 + eps) * 2 - 1.
      eps: guard against dividing by zero: added to std, and in place of a spread that is 0; openpi adds it to any.

    Raises:
      ValueError: the mode is unknown; or a statistic that it needs is missing, of another width, or has no positive
        spread but for a constant dimension, see `held`.
    """
    if mode == IDENTITY:
        width = len(next(iter(stats.values())))
        return np.zeros(width, np.float32), np.ones(width, np.float32)
    if mode not in _NEEDS:
        raise ValueError(f"normalisation mode {mode!r} is unknown; known: IDENTITY, {', '.join(_NEEDS)}")
    if missing := [name for name in _NEEDS[mode] if name not in stats]:
        raise ValueError(f"normalisation mode {mode} needs the statistic {missing[0]!r}, found only {sorted(stats)}")
    exact: Any = np.float64 if mode == OPENPI_QUANTILES else np.float32  # as each of the two computes
    first, second = (stats[name].astype(exact) for name in _NEEDS[mode])
    low, high = _NEEDS[mode]
    if first.shape != second.shape:
        raise ValueError(
            f"{low} has {plural(first.size, 'dimension')} and {high} {second.size}; they are of different data"
        )
    spread = second if mode == MEAN_STD else second - first
    if (wrong := np.flatnonzero(~(spread >= 0))).size:
        what = f"{high} is {second[wrong[0]]:g}" if mode == MEAN_STD else f"{high} lies below {low}"
        raise ValueError(f"{what} in dimension {wrong[0]}")
    if mode == MEAN_STD:
        return first, second + np.float32(eps)
    guard = np.where((spread == 0) | (mode == OPENPI_QUANTILES), exact(eps), exact(0))
    return ((first + second + guard) / 2).astype(np.float32), ((spread + guard) / 2).astype(np.float32)


def held(shift: np.ndarray, scale: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Shift and scale with the scale of constant dimensions, below `TINY`, raised to `FLOOR`; and which those are.

    At the constant itself the network still reads what it has learned: 0 under MEAN_STD, -1 under the other modes,
    where lerobot maps the lower end to -1. Away from it, it reads bounded values, where lerobot divides by 1e-8.
    """
    constant = scale < TINY
    lower = shift - scale + np.float32(FLOOR)
    moved = shift if mode == MEAN_STD else np.where(constant, lower, shift)
    return moved.astype(np.float32), np.where(constant, np.float32(FLOOR), scale), np.flatnonzero(constant).tolist()


def averaged(stats: Mapping[str, np.ndarray], mode: str) -> list[int]:
    """Dimensions whose quantiles cannot be those of the data that have this mean, spread, min and max.

    98 % of all numbers lie between q01 and q99, 1 % on either side: that bounds the variance. Means of the episodes'
    quantiles, which lerobot writes, often lie so close together that it is exceeded.
    """
    if mode not in OUTSIDE or not {"mean", "std", "min", "max", *_NEEDS[mode]} <= stats.keys():
        return []
    low, high, least, most, mean, std = (
        stats[name].astype(np.float64) for name in (*_NEEDS[mode], "min", "max", "mean", "std")
    )
    outside = OUTSIDE[mode]
    inner = np.maximum(np.square(high - mean), np.square(low - mean))
    largest = (1 - outside) * inner + outside / 2 * (np.square(least - mean) + np.square(most - mean))
    return np.flatnonzero(np.square(std) > 1.1 * largest + 1e-12).tolist()


def impossible(stats: Mapping[str, np.ndarray]) -> list[tuple[str, list[int]]]:
    """What cannot be true of one set of numbers, and in which dimensions; only of statistics that are there."""
    known = {name: value.astype(np.float64) for name, value in stats.items() if name != "count"}
    if not {"min", "max"} <= known.keys() or len({value.shape for value in known.values()}) > 1:
        return []
    low, high = known["min"], known["max"]
    room = 1e-3 * np.abs(high - low) + 1e-5 * np.maximum(np.abs(low), np.abs(high)) + 1e-6  # float32, and estimates
    wrong = [("the smallest value is above the largest", low > high)]
    for name in ("mean", "q01", "q10", "q90", "q99"):
        if name in known:
            outside = (known[name] < low - room) | (known[name] > high + room)
            wrong.append((f"{name} lies outside the smallest and the largest value", outside))
    if "std" in known:  # Popoviciu's bound, and Bessel's correction of few numbers
        wrong.append(
            ("std is too large for the smallest and the largest value", known["std"] > 0.75 * (high - low) + room)
        )
    return [(what, np.flatnonzero(where).tolist()) for what, where in wrong if where.any()]


def outside(stats: Mapping[str, np.ndarray], mode: str, values: np.ndarray) -> float:
    """Share of `values` (T, width) that lie outside the quantiles that a mode of `OUTSIDE` uses."""
    low, high = (stats[name] for name in _NEEDS[mode])
    return float(((values < low) | (values > high)).mean())


def normalize_state(statistics: Statistics, state: np.ndarray, width: int) -> np.ndarray:
    """(..., state_dim) in robot units -> (..., width), zero beyond state_dim."""
    _same_width("state", state, statistics.state_mean)
    return _pad((state - statistics.state_mean) / statistics.state_std, width)


def unnormalize_state(statistics: Statistics, state: np.ndarray) -> np.ndarray:
    """(..., >= state_dim) normalised -> (..., state_dim) in robot units."""
    return state[..., : len(statistics.state_mean)] * statistics.state_std + statistics.state_mean


def normalize_actions(statistics: Statistics, actions: np.ndarray, width: int) -> np.ndarray:
    """(..., action_dim) in robot units -> (..., width), zero beyond action_dim."""
    _same_width("action", actions, statistics.action_mean)
    return _pad((actions - statistics.action_mean) / statistics.action_std, width)


def unnormalize_actions(statistics: Statistics, actions: np.ndarray) -> np.ndarray:
    """(..., >= action_dim) normalised -> (..., action_dim) in robot units."""
    dims = len(statistics.action_mean)
    return actions[..., :dims] * statistics.action_std + statistics.action_mean


def _row(name: str, values: Any) -> np.ndarray:
    """A list of numbers as a file holds it, (width,) float32; nothing is guessed from text, null or one number."""
    if not isinstance(values, list | tuple) or not all(type(x) in (int, float) for x in values):
        raise ValueError(f"{name} is {str(values)[:60]}; it must be a list with a number for each dimension")
    return np.asarray(values, np.float32)


def _same_width(kind: str, values: np.ndarray, known: np.ndarray) -> None:
    """NumPy would repeat a single dimension for all of them."""
    if values.shape[-1] != len(known):
        raise ValueError(
            f"{kind}s have {plural(values.shape[-1], 'dimension')}, the base's statistics have {len(known)}; take "
            "demonstrations of the robot that the base is for, or make a base with "
            "statistics of this one (metalora convert)"
        )


def _pad(values: np.ndarray, width: int) -> np.ndarray:
    extra = width - values.shape[-1]
    if extra < 0:
        raise ValueError(f"{values.shape[-1]} dimensions do not fit the model's {width}; use a wider config")
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, extra)]).astype(np.float32)
