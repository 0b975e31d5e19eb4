"""Which ingredient carries the effect: one change at a time from the meta-learned arm, as few_shot_methods trains it.

metalora collect --config=configs/metaworld_demos.py
metalora ablate --config=configs/few_shot_ablation.py --workdir=runs/few_shot_ablation
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """One meta-seed: small differences between these arms mean nothing."""
    known, shift = common.data("runs/demos/clean", common.TASKS, 15), dict(yaw=common.YAW)
    config = ConfigDict()
    config.base = ""
    config.seed = 0
    config.meta_seeds = (0,)
    config.conditions = shift
    config.arms = dict(meta=common.training("fomaml_rates", known, shift, steps=200).to_dict())
    axes = {
        "flow draws": {"4": {"batch.noise_draws": 4}},
        "inner clipping": {"none": {"meta.max_norm": 1e9}},
        "B": {"starts at zero": {"placement.0.b_std": 0.0}},
        "where": {"heads": {"placement.0.pattern": common.HEADS}},
        "dropout": {"0.05": {"placement.0.dropout": 0.05}},
        "inner steps": {"1": {"meta.inner_steps": 1}, "5": {"meta.inner_steps": 5}},
        "outer steps": {"70": {"outer.steps": 70}},
        "outer rate": {"0.003": {"outer.learning_rate": 3e-3}},
    }
    config.grid = ConfigDict(dict(start="meta", mode="each", axes=axes), allow_dotted_keys=True)
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
    title = "Ablation: hidden action rotation, one demonstration"
    config.report = common.report(title, 3, dict(meta="FOMAML, learned rates"))
    return config
