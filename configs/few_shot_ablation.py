"""Which ingredient carries the effect: one change at a time from the meta-learned arm, as few_shot_methods trains it.

python experiments/collect.py --config=configs/metaworld_demos.py
python experiments/ablate.py --config=configs/few_shot_ablation.py --workdir=runs/few_shot_ablation
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One meta-seed: small differences between these arms mean nothing."""
    methods = SimpleNamespace(**run_path(str(Path(__file__).with_name("few_shot_methods.py"))))
    config = methods.comparison(
        "Ablation: hidden action rotation, one demonstration",
        dict(meta=("FOMAML, learned rates", methods.recipe())),
    )
    config.meta_seeds = (0,)
    axes = {
        "flow draws": {"4": {"batch.draws": 4}},
        "inner clipping": {"none": {"meta.max_norm": 1e9}},
        "B": {"starts at zero": {"placement.0.b_std": 0.0}},
        "where": {"heads": {"placement.0.pattern": methods.conditions.HEADS}},
        "dropout": {"0.05": {"placement.0.dropout": 0.05}},
        "inner steps": {"1": {"meta.inner_steps": 1}, "5": {"meta.inner_steps": 5}},
        "outer steps": {"70": {"outer.steps": 70}},
        "outer rate": {"0.003": {"outer.rate": 3e-3}},
    }
    grid = dict(start="meta", mode="each", axes=axes)
    config.grid = ConfigDict(grid, allow_dotted_keys=True)
    return config
