"""libero_few_shot cut down: the meta-learned adapter, its control and LoRA from scratch, three step counts, four
episodes a task, meta-seed and point, shorter episodes.

    python experiments/collect.py --config=configs/libero_demos.py:picking
    python experiments/pretrain.py --config=configs/nano_libero.py --workdir=runs/libero/suite
    python experiments/few_shot.py --config=configs/libero_small.py --workdir=runs/libero/small

experiments/results/libero_strong_base is its outcome, with stand-ins for some of LIBERO's textures and meshes: trained
on a GPU in a minute or two an arm, then searched, adapted and run on two cores in an hour and a half.
"""

from pathlib import Path
from runpy import run_path

from ml_collections import ConfigDict


def get_config(split: str = "suite") -> ConfigDict:
    """Fewer arms, shorter meta-training, fewer points; a split of libero_few_shot follows a colon."""
    config = run_path(str(Path(__file__).with_name("libero_few_shot.py")))["get_config"](split)
    config.meta_seeds = (0, 1)
    with config.unlocked():
        for name in ("head_lora", "full_head", "full_expert"):
            del config.arms[name]
    for arm in ("meta", "control"):
        config.arms[arm].batch.meta_batch = 8
        config.arms[arm].data.demos = 5
        config.arms[arm].outer.steps = 1000
    config.arms.control.batch.query_demos = 3
    config.search = dict(learned=(0.5, 1.0, 2.0), sgd=(), adam=(0.003, 0.01))
    config.protocol.update(steps=(0, 10, 100), shots_steps=(10,), draws_per_task=2, episodes=2)
    for suite in config.control.max_steps:  # all but 2 of 216 undisturbed demonstrations are shorter
        config.control.max_steps[suite] = 180
    config.report.title += ": scripted demonstrations, stand-in visuals"
    return config
