"""The comparison on new instructions: tasks that neither the base nor meta-training has seen, disjoint by text.

metalora collect --config=configs/metaworld_demos.py
metalora few_shot --config=configs/few_shot_tasks.py --workdir=runs/few_shot_tasks
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """As few_shot_conditions, on other tasks and without a shift."""
    known = common.data("runs/demos/clean", common.TASKS + common.NEW, 15)
    config = ConfigDict()
    config.base = ""
    config.seed = 0
    config.meta_seeds = (0, 1, 2)
    config.conditions = None
    config.arms = dict(
        meta=common.training("fomaml_rates", known, None, steps=400).to_dict(),
        control=common.training("multitask", known, None, steps=400).to_dict(),
        lora=dict(placement=common.lora(common.EXPERT)),
        head_lora=dict(placement=common.lora(common.HEADS)),
        full_head=dict(placement=common.dense(common.HEADS)),
    )
    config.search = dict(learned=(0.3, 1.0), sgd=(0.3, 1.0), adam=(0.003, 0.01, 0.03))
    config.validation = common.data("runs/demos/clean", common.VALIDATION, 15)
    config.test = common.data("runs/demos/clean", common.TEST, 15)
    config.protocol = common.protocol(
        distribution="tasks",
        steps=(0, 1, 3, 5, 10),
        shots=(1, 5),
        shots_steps=(3,),
        demonstration_draws=3,
        retention_steps=3,
        retention_tasks=common.TASKS + common.NEW,
        retention_per_cell=5,  # of 12 cells: each earlier task three times or four, for every arm and meta-seed
        retention_scales=(0.25, 0.5, 0.75),
        retention_gated=True,
    )
    config.control = common.control()
    config.films = dict(tasks=("door-unlock", "plate-slide-back-side"), steps=3)
    config.workers = 2
    config.report = common.report("New tasks, one demonstration", 3, common.LABELS)
    return config
