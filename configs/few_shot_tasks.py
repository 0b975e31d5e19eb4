"""The comparison on new instructions: tasks that neither the base nor meta-training has seen, disjoint by text.

python experiments/collect.py --config=configs/metaworld_demos.py
python experiments/few_shot.py --config=configs/few_shot_tasks.py --workdir=runs/few_shot_tasks
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """As few_shot_conditions, on other tasks and without a shift."""
    here = Path(__file__)
    tasks = SimpleNamespace(**run_path(str(here.with_name("metaworld_tasks.py"))))
    config = run_path(str(here.with_name("few_shot_conditions.py")))["get_config"]()
    with config.unlocked():
        config.conditions = None
    for arm, recipe in (("meta", "fomaml_rates"), ("control", "multitask")):
        config.arms[arm] = tasks.get_config(recipe).to_dict()
        config.arms[arm].outer.steps = 400
    for split, names in (("validation", tasks.VALIDATION), ("test", tasks.TEST)):
        config[split] = dict(directory="runs/demos/clean", tasks=names, demos=15, cameras=("agentview",))
    config.protocol.distribution = "tasks"
    config.protocol.steps = (0, 1, 3, 5, 10)
    config.protocol.shots = (1, 5)
    config.protocol.draws_per_task = 3
    with config.protocol.unlocked():
        config.protocol.retention_tasks = config.arms.meta.data.tasks
    config.films.tasks = ("door-unlock", "plate-slide-back-side")
    config.report.title = "New tasks, one demonstration"
    return config
