"""Pretrains a nano SmolVLA on LIBERO, from pixels, on the tasks that a split of configs/libero_few_shot.py trains on.

    metalora collect --config=configs/libero_demos.py:picking
    metalora pretrain --config=configs/nano_libero.py --workdir=runs/libero/suite

The split follows a colon, `--config=configs/nano_libero.py:composition --workdir=runs/libero/composition`: the base
must not have seen what is held out. `metalora evaluate_base` judges it on what it has seen.

A GPU's work: 20,000 steps took four minutes on an H200. experiments/results/libero_strong_base/base is the outcome, for
those who have none: --config.base=... in comparisons.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.training.augmentation import SymmetryConfig

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(split: str = "suite") -> ConfigDict:
    """As configs/nano_smolvla.py, with LIBERO's two cameras (they admit a mirror), and more of everything."""
    tasks = common.split_named(split).train
    steady = tuple(task for task in tasks if task not in common.UNSTEADY)
    config = ConfigDict()
    config.seed = 0
    config.data = {
        part: common.data(f"{common.LIBERO_DIRECTORY}/{part}", known, demos, common.LIBERO_CAMERAS)
        for part, known, demos in (("clean", tasks, 4), ("plenty", tasks, 10), ("noisy", steady, 16))
    }
    config.model = dict(
        type="smolvla",
        cameras=len(common.LIBERO_CAMERAS),
        max_state_dim=8,
        max_action_dim=7,
        vision_hidden=96,
        vision_layers=4,
        vision_mlp=384,
        text_hidden=128,
        text_mlp=384,
        layers=4,
        heads=8,
        vocab_size=512,
        max_tokens=24,
        pad_token_id=0,
        fake_image_token_id=1,
        global_image_token_id=2,
    )
    config.control = common.libero_control()
    config.batch = 128
    config.noise_draws = 2
    config.augment = ImageAugmentation(variants=1)._asdict()  # the picture itself alone
    config.symmetries = SymmetryConfig("libero")._asdict()  # none
    config.shift = 2
    config.brightness = 0.2
    config.learning_rate = 1e-3
    config.steps = 20000
    config.warmup = 200
    config.weight_decay = 1e-3
    config.checkpoint_every = 2000
    return config
