"""Several ways to train one arm, such as its length and outer rate: validation chooses, as it does for inner rates.

alternatives:
  control:                            an arm that is trained
    longer: {outer.steps: 2000}       its other ways: dotted fields of the arm, and their new values
    faster: {outer.learning_rate: 0.03}

Each is trained with the first meta-seed, and its inner rates are searched. The one with the most success on validation
(the least loss, where that is the same) is trained with the other seeds, and tested. The arm as it is given competes,
too. Arms that are to be compared should have as many ways.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from metalora_jax.evaluation.protocol.few_shot import Protocol, budgets
from metalora_jax.evaluation.protocol.grid import Change, changed
from metalora_jax.evaluation.protocol.search import Record, best
from metalora_jax.evaluation.reports.rates import STARTS
from metalora_jax.machine import files
from metalora_jax.training.recipe import Recipe

GIVEN = "given"  # the arm as the config has it

Alternatives = Mapping[str, Mapping[str, Change]]


def recipes(name: str, arm: Recipe, ways: Mapping[str, Change]) -> dict[str, Recipe]:
    """Every way to train an arm, by the name that it is tried under.

    Raises:
      ValueError: a way has no field of that name, a value out of range, or other data or conditions.
    """
    made = {called(name, GIVEN): arm}
    for way, change in ways.items():
        if not re.fullmatch(r"[\w.-]+", way) or way == GIVEN:
            raise ValueError(f"alternatives.{name}: {way!r} cannot name a way; use letters, digits, '_', '-', '.'")
        try:
            other = Recipe.from_config(changed(arm.to_json(), change))
        except ValueError as error:
            raise ValueError(f"alternatives.{name}.{way}: {error}") from None
        if (other.data, other.conditions) != (arm.data, arm.conditions):
            raise ValueError(f"alternatives.{name}.{way}: all ways learn from the same data, under the same conditions")
        made[called(name, way)] = other
    return made


def called(name: str, way: str) -> str:
    """What a way of an arm is called, in search.json and in the run's folder `arms`."""
    return f"{name}@{way}"


def choose(record: Record, ways: Sequence[str], protocol: Protocol) -> str:
    """Of the ways of an arm, by the names they were tried under, the best after all step counts."""
    steps = {budget: len(counts) for budget, counts in budgets(protocol).items()}

    def score(way: str) -> tuple[float, float]:
        found = {budget: best(tried, way) for budget, tried in record[way].items()}
        solved = sum(steps[budget] * (each.success or 0.0) for budget, each in found.items())
        return -solved, sum(steps[budget] * (each.loss or 0.0) for budget, each in found.items())

    return min(ways, key=score)


def started(workdir: Path) -> dict[str, str]:
    """Arm -> the way that was chosen for it, in a run's directory; nothing before the choice."""
    file = workdir / STARTS
    return files.read_json(file) if file.exists() else {}
