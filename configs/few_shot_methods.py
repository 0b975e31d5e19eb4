"""The meta-learners against each other, on hidden rotations from one demonstration.

python experiments/collect.py --config=configs/metaworld_demos.py
python experiments/few_shot.py --config=configs/few_shot_methods.py --workdir=runs/few_shot_methods

All are meta-trained for a fifth of the steps of few_shot_conditions, so that differences in speed show.
"""

from collections.abc import Mapping
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

_HERE = Path(__file__)
conditions = SimpleNamespace(**run_path(str(_HERE.with_name("metaworld_conditions.py"))))


def recipe(method: str = "fomaml_rates", **changes: object) -> dict[str, Any]:
    """A shortened recipe of metaworld_conditions; `changes` are fields of it, "__" for the dot."""
    config = conditions.get_config(method)
    config.outer.steps = 200
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config.to_dict()


def comparison(title: str, arms: Mapping[str, tuple[str, dict[str, Any]]]) -> ConfigDict:
    """As few_shot_conditions, with other arms, name -> (label, recipe), and fewer cells; the arm "meta" is the one that
    the others are held against."""
    config = run_path(str(_HERE.with_name("few_shot_conditions.py")))["get_config"]()
    with config.unlocked():
        config.arms = {name: recipe for name, (_, recipe) in arms.items()}
    config.report.labels = {name: label for name, (label, _) in arms.items()}
    config.report.title = title
    config.protocol.shots = (1,)
    config.protocol.steps = (0, 3, 10)
    config.protocol.retention_steps = 0
    return config


def get_config() -> ConfigDict:
    """Five methods, three meta-seeds."""
    return comparison(
        "Meta-learners: hidden action rotation, one demonstration",
        dict(
            meta=("FOMAML, learned rates", recipe()),
            second_order=("MAML, learned rates", recipe("maml_rates")),
            fixed_rate=("FOMAML, one fixed rate", recipe("fomaml")),
            reptile=("Reptile", recipe("reptile")),
            anil=("ANIL", recipe("anil")),
        ),
    )
