"""Meta-learns adapters for new instructions: tasks that the base does not know, from one to five demonstrations.

    python experiments/meta_train.py --config=configs/metaworld_tasks.py --workdir=runs/tasks_maml

The method follows a colon, as in metaworld_conditions.py, from which this differs in the data and in nothing else.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

NEW = ("button-press-wall", "door-lock", "handle-pull", "plate-slide-back", "plate-slide-side")
VALIDATION = ("dial-turn", "handle-pull-side")
TEST = ("door-unlock", "lever-pull", "plate-slide-back-side", "sweep-into")


def get_config(method: str = "fomaml_rates") -> ConfigDict:
    """Meta-training on the base's tasks and five more."""
    conditions = SimpleNamespace(**run_path(str(Path(__file__).with_name("metaworld_conditions.py"))))
    config = conditions.get_config(method)
    config.data.tasks = conditions.TASKS + NEW
    with config.unlocked():
        config.conditions = None
    return config
