"""Pretrains a nano SmolVLA on LIBERO, from pixels, on the tasks that a split of configs/libero_few_shot.py trains on.

    python experiments/collect.py --config=configs/libero_demos.py:picking
    python experiments/pretrain.py --config=configs/nano_libero.py --workdir=runs/libero/suite

The split follows a colon, `--config=configs/nano_libero.py:composition --workdir=runs/libero/composition`: the base
must not have seen what is held out. `experiments/evaluate_base.py` judges it on what it has seen.

A GPU's work: 20,000 steps took four minutes on an H200. experiments/results/libero_strong_base/base is the outcome, for
those who have none: --config.base=... in comparisons.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict


def get_config(split: str = "suite") -> ConfigDict:
    """As configs/nano_smolvla.py, with LIBERO's two cameras (they admit a mirror), and more of everything."""
    here = Path(__file__)
    few_shot = SimpleNamespace(**run_path(str(here.with_name("libero_few_shot.py"))))
    if split not in few_shot.SPLITS:
        raise ValueError(f"no split named {split!r}; choose from {', '.join(few_shot.SPLITS)}")
    config = run_path(str(here.with_name("nano_smolvla.py")))["get_config"]()
    tasks = few_shot.SPLITS[split].train
    steady = tuple(task for task in tasks if task not in few_shot.UNSTEADY)
    config.data = {
        part: dict(directory=f"{few_shot.DIRECTORY}/{part}", tasks=known, demos=demos, cameras=few_shot.CAMERAS)
        for part, known, demos in (("clean", tasks, 4), ("plenty", tasks, 10), ("noisy", steady, 16))
    }
    config.model.update(cameras=len(few_shot.CAMERAS), max_tokens=24, max_state_dim=8, max_action_dim=7)
    config.model.update(vision_hidden=96, vision_layers=4, vision_mlp=384)
    with config.model.unlocked():
        config.model.update(layers=4, text_hidden=128, text_mlp=384, heads=8)
    config.control = few_shot.get_config(split).control
    config.symmetries.world = config.control.world
    config.batch = 128
    config.shift = 2
    config.steps = 20000
    config.checkpoint_every = 2000
    return config
