"""openpi's normalisation statistics: `assets/<asset_id>/norm_stats.json` of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax.machine import files
from metalora_jax.policies.policy import Normalization, StatisticsSets
from metalora_jax.words import plural

FILE = "norm_stats.json"
EPS = 1e-6  # added to standard deviations and to the spreads of quantiles
_FEATURES = {"state": "observation.state", "actions": "action"}
_REQUIRED, _OPTIONAL = ("mean", "std"), ("q01", "q99")


def read(assets: Path, pi05: bool, width: int) -> tuple[StatisticsSets, Normalization]:
    """The statistics of a checkpoint, by asset id; a single one has no name.

    pi0 normalises by (x - mean) / (std + 1e-6), pi0.5 by (x - q01) / (q99 - q01 + 1e-6) * 2 - 1. openpi cuts
    statistics to the width of the data, which is the policy's at most; so it is done here.

    Args:
      assets: the folder; there may be none.
      pi05: whether it is a pi0.5.
      width: action_dim of the policy, which is that of the state, too.

    Raises:
      ValueError: a file is damaged, or its numbers are not finite or differ in width; names the file and the field.
    """
    found = {asset: assets / asset / FILE for asset in ids(assets)}
    sets: StatisticsSets = {}
    said = []
    for asset, file in found.items():
        sets[asset if len(found) > 1 else ""], doubts = _read(file, width)
        said += doubts
    mode = "OPENPI_QUANTILES" if pi05 else "MEAN_STD"
    source = next(iter(found.values())).relative_to(assets.parent).as_posix() if len(found) == 1 else assets.name
    return sets, Normalization({"STATE": mode, "ACTION": mode}, source, tuple(said), eps=EPS)


def ids(assets: Path) -> list[str]:
    """The asset ids of a checkpoint, sorted."""
    return sorted(file.parent.relative_to(assets).as_posix() for file in assets.rglob(FILE))


def from_scaling(statistics: Mapping[str, np.ndarray], pi05: bool) -> dict[str, dict[str, list[float] | None]]:
    """What stands under "norm_stats" so that openpi normalises by one shift and one scale: the inverse of `read`.

    For pi0 these are mean and std, without quantiles. pi0.5 reads quantiles alone; its mean and std, which openpi asks
    for but does not use, are the shift and the scale.

    Args:
      statistics: "observation.state.mean", "observation.state.std", "action.mean", "action.std" -> (width,).
      pi05: whether it is a pi0.5.
    """
    found: dict[str, dict[str, list[float] | None]] = {}
    for theirs, ours in _FEATURES.items():
        shift, scale = (statistics[f"{ours}.{part}"].astype(np.float64) for part in _REQUIRED)
        if pi05:
            quantiles = (shift - scale).tolist(), (shift + scale - EPS).tolist()
            rows = (shift.tolist(), scale.tolist(), *quantiles)
        else:
            rows = shift.tolist(), np.maximum(scale - EPS, 0).tolist(), None, None
        found[theirs] = dict(zip((*_REQUIRED, *_OPTIONAL), rows, strict=True))
    return found


def _read(file: Path, width: int) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """One file's statistics, and what there is to say of them."""
    stats = files.read_json(file).get("norm_stats")
    if not isinstance(stats, Mapping) or (missing := [name for name in _FEATURES if name not in stats]):
        what = f"norm_stats.{missing[0]}" if isinstance(stats, Mapping) else "norm_stats"
        raise ValueError(f"{file}: {what} is missing; compute the statistics again (openpi's compute_norm_stats)")
    found, said = {}, []
    for theirs, ours in _FEATURES.items():
        where = f"{file}: norm_stats.{theirs}"
        if not isinstance(stats[theirs], Mapping):
            raise ValueError(f"{where} is {str(stats[theirs])[:60]}; it must hold mean, std and perhaps q01 and q99")
        given = {name: stats[theirs].get(name) for name in (*_REQUIRED, *_OPTIONAL)}
        rows = {name: _row(f"{where}.{name}", x) for name, x in given.items() if x is not None or name in _REQUIRED}
        dimensions = len(rows["mean"])
        for name, row in rows.items():
            if len(row) != dimensions:
                raise ValueError(f"{where}.{name} has {plural(len(row), 'dimension')}, its mean {dimensions}")
        if dimensions > width:
            said.append(f"{where} has {dimensions} dimensions, the policy {width}: the first {width} are taken")
        found[ours] = {name: row[:width] for name, row in rows.items()}
    if others := sorted(set(stats) - set(_FEATURES)):
        said.append(f"{file}: norm_stats.{others[0]} is of nothing that the policy reads here, and left out")
    return found, said


def _row(where: str, values: Any) -> np.ndarray:
    """A list of numbers, (width,) float64."""
    if not isinstance(values, list) or not values or not all(type(x) in (int, float) for x in values):
        raise ValueError(f"{where} is {str(values)[:60]}; it must be a list with a number for each dimension")
    row = np.asarray(values, np.float64)
    if not np.isfinite(row).all():
        raise ValueError(f"{where} is not finite in dimension {int((~np.isfinite(row)).argmax())}")
    return row
