"""libero_few_shot cut down: the meta-learned adapter, its control and LoRA from scratch, three step counts, four
episodes a task, meta-seed and point, shorter episodes.

    metalora collect --config=configs/libero_demos.py:picking
    metalora pretrain --config=configs/nano_libero.py --workdir=runs/libero/suite
    metalora few_shot --config=configs/libero_small.py --workdir=runs/libero/small

experiments/results/libero_strong_base is its outcome, with stand-ins for some of LIBERO's textures and meshes: trained
on a GPU in a minute or two an arm, then searched, adapted and run on two cores in an hour and a half.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(split: str = "suite") -> ConfigDict:
    """Fewer arms, fewer points; a split of libero_few_shot follows a colon."""
    held = common.split_named(split)
    config = ConfigDict()
    config.base = f"runs/libero/{split}/base"
    config.seed = 0
    config.meta_seeds = (0, 1)
    config.conditions = None
    config.arms = dict(
        meta=common.libero_training("fomaml_rates", held, demos=5).to_dict(),
        control=common.libero_training("multitask", held, demos=5).to_dict(),
        lora=dict(placement=common.lora(common.EXPERT)),
    )
    config.search = dict(learned=(0.5, 1.0, 2.0), sgd=(), adam=(0.003, 0.01))
    config.validation = common.libero_data(held.validation, 8)
    config.test = common.libero_data(held.test, 8)
    config.replay = common.libero_data(held.train, 4)  # a third of each support minibatch
    config.protocol = common.libero_protocol(
        held,
        steps=(0, 10, 100),
        shots=(1, 3, 5),
        shots_steps=(10,),
        demonstration_draws=2,
        episodes=2,
        retention_steps=10,
        instruction_steps=10,
        frames=64,
        replay_frames=32,
    )
    config.control = common.libero_control(max_steps=common.LIBERO_SHORT_EPISODES)
    config.films = dict(tasks=held.test[::2], steps=10)
    config.workers = 2
    title = f"New LIBERO tasks ({split}), one demonstration: scripted demonstrations, stand-in visuals"
    config.report = common.report(title, 10, common.LIBERO_LABELS)
    return config
