"""Meta-learns adapters that undo a hidden rotation of the robot's action frame, on known Meta-World tasks.

    metalora collect --config=configs/metaworld_demos.py
    metalora meta_train --config=configs/metaworld_conditions.py --workdir=runs/conditions_maml

The method follows a colon, `--config=configs/metaworld_conditions.py:fomaml`; each has only the fields that it uses.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(method: str = "maml_rates") -> ConfigDict:
    """Meta-training with one of common.METHODS, on what the base knows."""
    return common.training(method, common.data("runs/demos/clean", common.TASKS, 15), dict(yaw=common.YAW))
