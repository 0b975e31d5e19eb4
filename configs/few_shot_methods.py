"""The meta-learners against each other, on hidden rotations from one demonstration.

metalora collect --config=configs/metaworld_demos.py
metalora few_shot --config=configs/few_shot_methods.py --workdir=runs/few_shot_methods

All are meta-trained for a fifth of the steps of few_shot_conditions, so that differences in speed show.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """Five methods, three meta-seeds."""
    known, shift = common.data("runs/demos/clean", common.TASKS, 15), dict(yaw=common.YAW)
    methods = dict(meta="fomaml_rates", second_order="maml_rates", fixed_rate="fomaml", reptile="reptile", anil="anil")
    config = ConfigDict()
    config.base = ""
    config.seed = 0
    config.meta_seeds = (0, 1, 2)
    config.conditions = shift
    config.arms = {arm: common.training(name, known, shift, steps=200).to_dict() for arm, name in methods.items()}
    config.search = dict(learned=(0.3, 1.0), sgd=(0.3, 1.0), adam=(0.003, 0.01, 0.03))
    config.validation = common.data("runs/demos/validation", common.TASKS[::3], 8)
    config.test = common.data("runs/demos/held_out", common.TASKS, 8)
    config.protocol = common.protocol(
        distribution="conditions",
        steps=(0, 3, 10),
        shots=(1,),
        shots_steps=(3,),
        demonstration_draws=2,
        retention_steps=0,
    )
    config.control = common.control()
    config.films = dict(tasks=("door-open", "drawer-open", "window-close"), steps=3)
    config.workers = 2
    labels = dict(
        meta="FOMAML, learned rates",
        second_order="MAML, learned rates",
        fixed_rate="FOMAML, one fixed rate",
        reptile="Reptile",
        anil="ANIL",
    )
    config.report = common.report("Meta-learners: hidden action rotation, one demonstration", 3, labels)
    return config
