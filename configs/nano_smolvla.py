"""Pretrains the nano SmolVLA that ships with the package, from pixels, on fourteen Meta-World tasks.

    python experiments/collect.py --config=configs/metaworld_demos.py
    python experiments/pretrain.py --config=configs/nano_smolvla.py --workdir=runs/nano

The result is judged by `experiments/evaluate_base.py`; the card in metalora_jax/policies/smolvla/nano has the figures.
Light (`brightness`) and place (`shift` [px]) are drawn anew in every step. It may also learn from a fixed number of
variants of every frame (`augment`), from tasks in a mirror (`symmetries`), and, where a config adds `paraphrases`
(task -> texts), from variants told in other words: the fields are those of meta-training.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.training.augmentation import SymmetryConfig

TASKS = (
    "button-press",
    "button-press-topdown",
    "coffee-button",
    "door-close",
    "door-open",
    "drawer-close",
    "drawer-open",
    "faucet-close",
    "faucet-open",
    "handle-press",
    "handle-press-side",
    "plate-slide",
    "window-close",
    "window-open",
)


def get_config() -> ConfigDict:
    """Two kinds of demonstrations: undisturbed ones, and ones in which the expert is pushed and recovers."""
    config = ConfigDict()
    config.seed = 0
    config.data = {
        part: dict(directory=f"runs/demos/{part}", tasks=TASKS, demos=demos, cameras=("agentview",))
        for part, demos in (("clean", 15), ("noisy", 25))
    }
    config.model = dict(
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
    config.control = dict(execute=2, max_steps=200, ensemble=placeholder(float))
    config.batch = 64
    config.draws = 2
    config.augment = ImageAugmentation(variants=1)._asdict()  # the picture itself alone
    config.symmetries = SymmetryConfig("metaworld")._asdict()  # none: the camera stands in a corner
    config.shift = 0
    config.brightness = 0.2
    config.rate = 1e-3
    config.steps = 10000
    config.warmup = 200
    config.weight_decay = 1e-3
    config.checkpoint_every = 250
    return config
