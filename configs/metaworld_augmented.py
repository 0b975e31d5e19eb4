"""As metaworld_conditions.py, with four variants of every frame: cropped, coloured, and told in other words.

    python experiments/meta_train.py --config=configs/metaworld_augmented.py --workdir=runs/augmented

The method follows a colon.
"""

from pathlib import Path
from runpy import run_path

from ml_collections import ConfigDict

from metalora_jax.data import instructions

_HERE = Path(__file__)


def get_config(method: str = "fomaml_rates") -> ConfigDict:
    """The first variant is the frame itself, with its instruction."""
    config = run_path(str(_HERE.with_name("metaworld_conditions.py")))["get_config"](method)
    config.augment.variants = 4
    table = instructions.read(_HERE.with_name("paraphrases") / "metaworld.json")
    with config.unlocked():
        config.paraphrases = {task: table[task] for task in config.data.tasks}
    return config
