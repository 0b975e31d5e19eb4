"""Pretrains the nano SmolVLA that ships with the package, from pixels, on fourteen Meta-World tasks.

    metalora collect --config=configs/metaworld_demos.py
    metalora pretrain --config=configs/nano_smolvla.py --workdir=runs/nano

The result is judged by `metalora evaluate_base`; the card in metalora_jax/policies/smolvla/nano has the figures.
Light (`brightness`) and place (`shift` [px]) are drawn again in every step. It may also learn from a fixed number of
variants of every frame (`augment`), from tasks in a mirror (`symmetries`), and, where a config adds `paraphrases`
(task -> texts), from variants told in other words: the fields are those of meta-training. Where actions are absolute, a
config may add `relative`, such as ("all_but_gripper",): those are learned as differences from the state.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.training.augmentation import SymmetryConfig

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """Two kinds of demonstrations: undisturbed ones, and ones in which the expert is pushed and recovers."""
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        clean=common.data("runs/demos/clean", common.TASKS, 15),
        noisy=common.data("runs/demos/noisy", common.TASKS, 25),
    )
    config.model = dict(
        type="smolvla",
        vision_hidden=64,
        vision_layers=3,
        vision_mlp=192,
        text_mlp=192,
        layers=3,
        vocab_size=512,
        max_tokens=14,
        pad_token_id=0,
        fake_image_token_id=1,
        global_image_token_id=2,
    )
    config.control = common.control()
    config.batch = 64
    config.noise_draws = 2
    config.augment = ImageAugmentation(variants=1)._asdict()  # the picture itself alone
    config.symmetries = SymmetryConfig("metaworld")._asdict()  # none: the camera stands in a corner
    config.shift = 0
    config.brightness = 0.2
    config.learning_rate = 1e-3
    config.steps = 10000
    config.warmup = 200
    config.weight_decay = 1e-3
    config.checkpoint_every = 250
    return config
