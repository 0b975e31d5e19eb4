"""Which ingredient carries the effect: one change at a time from the meta-learned arm, as few_shot_methods trains it.

python experiments/collect.py --config=configs/metaworld_demos.py
python experiments/few_shot.py --config=configs/few_shot_ablation.py --workdir=runs/few_shot_ablation
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One meta-seed: small differences between these arms mean nothing."""
    methods = SimpleNamespace(**run_path(str(Path(__file__).with_name("few_shot_methods.py"))))
    recipe, lora = methods.recipe, methods.conditions.lora
    expert, heads = methods.conditions.EXPERT, methods.conditions.HEADS
    config = methods.comparison(
        "Ablation: hidden action rotation, one demonstration",
        dict(
            meta=("FOMAML, learned rates", recipe()),
            four_draws=("four flow draws", recipe(batch__draws=4)),
            no_clip=("no inner clipping", recipe(meta__max_norm=1e9)),
            zero_b=("B starts at zero", recipe(placement=(lora(expert, 0.0),))),
            heads=("heads only adapted", recipe(placement=(lora(heads, 0.02),))),
            dropout=("adapter dropout 0.05", recipe(placement=(lora(expert, 0.02, 0.05),))),
            five_steps=("trained with K = 5", recipe(meta__inner_steps=5)),
            one_step=("trained with K = 1", recipe(meta__inner_steps=1)),
            short=("a third of the meta-training", recipe(outer__steps=70)),
            slow=("outer rate 0.003", recipe(outer__rate=3e-3)),
        ),
    )
    config.meta_seeds = (0,)
    return config
