"""Which ingredient carries the effect: one change at a time from the meta-learned arm of few_shot_conditions.

All arms are meta-trained for a fifth of the full comparison's steps, so that differences in speed show.

python experiments/few_shot.py --config=configs/few_shot_ablation.py --workdir=runs/few_shot_ablation
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One meta-seed; every arm is meta-trained, and evaluated like the full comparison's."""
    here = Path(__file__)
    conditions = SimpleNamespace(**run_path(str(here.with_name("metaworld_conditions.py"))))
    config = run_path(str(here.with_name("few_shot_conditions.py")))["get_config"]()
    config.meta_seeds = (0,)
    arms, labels = {}, {}

    def arm(name: str, label: str, method: str = "fomaml_rates", **changes: object) -> None:
        recipe = conditions.get_config(method)
        recipe.outer.steps = 200
        recipe.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
        arms[name], labels[name] = recipe.to_dict(), label

    arm("meta", "First order, learned rates")
    arm("second_order", "second order", "maml_rates")
    arm("fixed_rate", "one fixed rate", "fomaml")
    arm("reptile", "Reptile", "reptile")
    arm("anil", "heads only in the inner loop", "anil")
    arm("four_draws", "four flow draws", batch__draws=4)
    arm("no_clip", "no inner clipping", meta__max_norm=1e9)
    arm("zero_b", "B starts at zero", placement=(conditions.lora(conditions.EXPERT, 0.0),))
    arm("heads", "heads only adapted", placement=(conditions.lora(conditions.HEADS, 0.02),))
    arm("dropout", "adapter dropout 0.05", placement=(conditions.lora(conditions.EXPERT, 0.02, 0.05),))
    arm("five_steps", "trained with K = 5", meta__inner_steps=5)
    arm("one_step", "trained with K = 1", meta__inner_steps=1)
    arm("short", "a third of the meta-training", outer__steps=70)
    arm("slow", "outer rate 0.003", outer__rate=3e-3)
    with config.unlocked():
        config.arms = arms
    config.report.labels = labels
    config.report.title = "Ablation: hidden action rotation, one demonstration"
    config.protocol.shots = (1,)
    config.protocol.steps = (0, 3, 10)
    config.protocol.retention_steps = 0
    return config
