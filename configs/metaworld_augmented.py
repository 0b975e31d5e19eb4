"""As metaworld_conditions.py, with four variants of every frame: cropped, coloured, and told in other words.

    metalora meta_train --config=configs/metaworld_augmented.py --workdir=runs/augmented

The method follows a colon.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

from metalora_jax.data import instructions

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(method: str = "fomaml_rates") -> ConfigDict:
    """The first variant is the frame itself, with its instruction."""
    config = common.training(method, common.data("runs/demos/clean", common.TASKS, 15), dict(yaw=common.YAW))
    config.augment.variants = 4
    table = instructions.read(Path(__file__).with_name("paraphrases") / "metaworld.json")
    config.paraphrases = {task: table[task] for task in common.TASKS}
    return config
