"""Meta-learns adapters for new instructions: tasks that the base does not know, from one to five demonstrations.

    metalora meta_train --config=configs/metaworld_tasks.py --workdir=runs/tasks_maml

The method follows a colon, as in metaworld_conditions.py, from which this differs in the data and in nothing else.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(method: str = "fomaml_rates") -> ConfigDict:
    """Meta-training on the base's tasks and five more."""
    return common.training(method, common.data("runs/demos/clean", common.TASKS + common.NEW, 15), None)
