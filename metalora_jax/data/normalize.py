"""Normalisation statistics: computed once from training demonstrations, then carried with the base and every adapter.

They are never recomputed from a k-shot support set: a single demonstration has constant dimensions, whose standard
deviation of ~1e-6 has caused losses of up to 1e10. Scales have a floor for the same reason.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.types import Demo


class Statistics(NamedTuple):
    """Mean and scale of each dimension of the robot's own state and action vectors, float32."""

    state_mean: np.ndarray  # (state_dim,)
    state_std: np.ndarray  # (state_dim,), each >= the floor
    action_mean: np.ndarray  # (action_dim,)
    action_std: np.ndarray  # (action_dim,), each >= the floor

    def to_json(self) -> dict[str, Any]:
        """Plain lists, exact for float32."""
        return {k: [float(x) for x in v] for k, v in self._asdict().items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Statistics":
        """Inverse of `to_json`; raises ValueError if a key is missing or unknown."""
        if set(fields) != set(cls._fields):
            raise ValueError(f"normalisation statistics have keys {sorted(fields)}, expected {sorted(cls._fields)}")
        return cls(**{k: np.asarray(v, np.float32) for k, v in fields.items()})

    def digest(self) -> str:
        """Short hash that an adapter's manifest records."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def compute(demos: Sequence[Demo], floor: float = 0.01) -> Statistics:
    """Statistics over all steps of `demos`; a scale below `floor` (in the robot's units) is raised to it."""
    if not demos:
        raise ValueError("normalisation statistics need at least one demonstration")
    state = np.concatenate([d.state for d in demos]).astype(np.float64)
    actions = np.concatenate([d.actions for d in demos]).astype(np.float64)
    values = (state.mean(0), np.maximum(state.std(0), floor), actions.mean(0), np.maximum(actions.std(0), floor))
    return Statistics(*(v.astype(np.float32) for v in values))


_NEEDS = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


def shift_and_scale(stats: Mapping[str, np.ndarray], mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale, float32, that normalise like one of lerobot's modes.

    Args:
      stats: "mean", "std", "min", "max", "q01", ... -> (width,).
      mode: "MEAN_STD"; "MIN_MAX", "QUANTILES" (q01, q99) and "QUANTILE10" (q10, q90) map to [-1, 1]; "IDENTITY".

    Raises:
      ValueError: if the mode is unknown, or a statistic that it needs is missing.
    """
    if mode == "IDENTITY":
        width = len(next(iter(stats.values())))
        return np.zeros(width, np.float32), np.ones(width, np.float32)
    if mode not in _NEEDS:
        raise ValueError(f"normalisation mode {mode!r} is unknown; known: IDENTITY, {', '.join(_NEEDS)}")
    if missing := [name for name in _NEEDS[mode] if name not in stats]:
        raise ValueError(f"normalisation mode {mode} needs the statistic {missing[0]!r}, found only {sorted(stats)}")
    first, second = (stats[name].astype(np.float32) for name in _NEEDS[mode])
    if mode == "MEAN_STD":
        return first, second + np.float32(1e-8)  # lerobot's guard against dividing by zero
    return (first + second) / 2, (second - first + np.float32(1e-8)) / 2


def normalize_state(statistics: Statistics, state: np.ndarray, width: int) -> np.ndarray:
    """(..., state_dim) in robot units -> (..., width), zero beyond state_dim."""
    return _pad((state - statistics.state_mean) / statistics.state_std, width)


def normalize_actions(statistics: Statistics, actions: np.ndarray, width: int) -> np.ndarray:
    """(..., action_dim) in robot units -> (..., width), zero beyond action_dim."""
    return _pad((actions - statistics.action_mean) / statistics.action_std, width)


def unnormalize_actions(statistics: Statistics, actions: np.ndarray) -> np.ndarray:
    """(..., >= action_dim) normalised -> (..., action_dim) in robot units."""
    dims = len(statistics.action_mean)
    return actions[..., :dims] * statistics.action_std + statistics.action_mean


def _pad(values: np.ndarray, width: int) -> np.ndarray:
    extra = width - values.shape[-1]
    if extra < 0:
        raise ValueError(f"{values.shape[-1]} dimensions do not fit the model's {width}; use a wider config")
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, extra)]).astype(np.float32)
