"""Pretrains a nano SmolVLA, pi0 or pi0.5 for the SO-101, from pixels, on all twelve tasks of the world so101.

    metalora collect --config=configs/so101_demos.py
    metalora pretrain --config=configs/nano_so101.py --workdir=runs/so101/nano
    metalora evaluate_base --config=configs/nano_so101.py --base=runs/so101/nano/base \\
        --workdir=runs/so101/nano_evaluation

docs/so101.md has the figures. The last command also says what is left without pictures, state or words. With
--config=configs/nano_so101.py:pi0 or :pi05 it is the other families' nano, at sizes as near to SmolVLA's as they have.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.training.augmentation import SymmetryConfig

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(family: str = "smolvla") -> ConfigDict:
    """As configs/nano_smolvla.py, with the SO-101's two cameras and six joints; `family` is a policy's type."""
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        clean=common.data("runs/so101/demos/clean", common.SO101_TASKS, 100, common.SO101_CAMERAS),
        noisy=common.data("runs/so101/demos/noisy", common.SO101_TASKS, 120, common.SO101_CAMERAS),
    )
    config.model = _MODELS[family]
    config.control = dict(
        world="so101",
        execute=3,
        max_steps=dict(lift=40, place=60, push=40),
        ensemble=placeholder(float),
        simulator=dict(fps=10),
    )
    config.grounding = dict(scenes=6000, steps=1500, batch=48, learning_rate=2e-3, beside=12)
    config.batch = 48
    config.noise_draws = 2
    config.augment = ImageAugmentation(variants=1)._asdict()  # the picture itself alone
    config.symmetries = SymmetryConfig("so101")._asdict()  # none
    config.shift = 0
    config.brightness = 0.1
    config.learning_rate = 2e-3
    config.opening = 0.25
    config.steps = 3000
    config.warmup = 200
    config.weight_decay = 1e-3
    config.checkpoint_every = 250
    return config


_SIZES = dict(cameras=len(common.SO101_CAMERAS), text_mlp=192, layers=3, vocab_size=512)
_SMOLVLA = dict(
    type="smolvla",
    max_state_dim=6,
    max_action_dim=6,
    vision_hidden=64,
    vision_layers=1,
    vision_mlp=192,
    max_tokens=14,
    pad_token_id=0,
    fake_image_token_id=1,
    global_image_token_id=2,
)
# Without SmolVLA's shuffle of patches: as many tokens from patches twice as wide.
_PI0 = dict(type="pi0", action_dim=6, vision_hidden=96, vision_layers=2, vision_mlp=256, expert_mlp=192, max_tokens=14)
_MODELS = dict(
    smolvla=_SMOLVLA | _SIZES,
    pi0=_PI0 | _SIZES,
    pi05=_PI0 | _SIZES | dict(type="pi05", max_tokens=64),  # the state is in the prompt
)
