"""Conditions that relabelling cannot make: demonstrations were recorded under them, as files of `collect` say."""

from pathlib import Path

from metalora_jax.data import libero_hdf5
from metalora_jax.data.config import DataConfig
from metalora_jax.envs.conditions import Condition


def conditions(data: DataConfig) -> dict[str, Condition]:
    """The one condition of each task's demonstrations.

    Raises:
      ValueError: a file does not say what its demonstrations were recorded under, or they do not share one condition.
    """
    return {task: _condition(Path(data.directory, f"{task}{libero_hdf5.SUFFIX}")) for task in data.tasks}


def _condition(path: Path) -> Condition:
    known = libero_hdf5.provenance_of(path).get("conditions", []) if path.is_file() else []
    found = {Condition.from_json(fields) for fields in known}
    if len(found) != 1:
        said = f"names {len(found)} conditions" if found else "does not say what it was recorded under"
        raise ValueError(
            f"{path} {said}; with `recorded`, all demonstrations of a task share one: record them with `robots` in the "
            "parts of metalora collect"
        )
    return found.pop()
