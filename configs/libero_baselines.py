"""Every baseline beside the arms of libero_small: one meta-seed, one demonstration.

    python experiments/few_shot.py --config=configs/libero_baselines.py --workdir=runs/libero/baselines \
        --config.base=experiments/results/libero_strong_base/base

Demonstrations as for libero_small. experiments/results/libero_baselines is its outcome.
"""

from pathlib import Path
from runpy import run_path

from ml_collections import ConfigDict


def get_config(split: str = "suite") -> ConfigDict:
    """A split of libero_few_shot follows a colon."""
    here = Path(__file__)
    config = run_path(str(here.with_name("libero_small.py")))["get_config"](split)
    whole = run_path(str(here.with_name("libero_few_shot.py")))["get_config"](split)
    config.meta_seeds = (0,)
    with config.unlocked():
        for name in ("head_lora", "full_head", "full_expert"):
            config.arms[name] = whole.arms[name]
    # Twenty times the parameters of LoRA: half the tasks in a step and half the steps, for an hour less without a GPU.
    config.arms.full_expert.batch.update(meta_batch=4, query_demos=3)
    config.arms.full_expert.outer.steps = 500
    config.protocol.update(shots=(1,), instruction_steps=0)
    config.report.title = "Every baseline: new LIBERO tasks, one demonstration, scripted demonstrations, stand-in visuals"
    return config
