"""Meta-learns adapters that undo a hidden rotation of the robot's action frame, on known Meta-World tasks.

    python experiments/collect.py --config=configs/metaworld_demos.py
    python experiments/meta_train.py --config=configs/metaworld_conditions.py --workdir=runs/conditions_maml

The method follows a colon, `--config=configs/metaworld_conditions.py:fomaml`; each has only the fields that it uses.
"""

import math
from pathlib import Path
from runpy import run_path

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.training.augmentation import SymmetryConfig

TASKS = run_path(str(Path(__file__).with_name("nano_smolvla.py")))["TASKS"]  # what the base knows
METHODS = ("maml_rates", "fomaml_rates", "maml", "fomaml", "anil", "reptile", "multitask")
YAW = (-math.pi, math.pi)  # [rad]
EXPERT = r"expert/.*|action_.*"
HEADS = r"action_.*"


def lora(pattern: str, b_std: float, dropout: float = 0.0) -> dict:
    """One placement rule."""
    return dict(pattern=pattern, kind="lora", rank=4, alpha=8.0, dropout=dropout, rslora=False, b_std=b_std)


def get_config(method: str = "maml_rates") -> ConfigDict:
    """Meta-training with one of METHODS."""
    if method not in METHODS:
        raise ValueError(f"no recipe named {method!r}; choose from {', '.join(METHODS)}")
    name, _, learned = method.partition("_")
    config = ConfigDict()
    config.base = ""  # a base directory; empty is the nano SmolVLA in the package
    config.seed = 0
    config.data = dict(directory="runs/demos/clean", tasks=TASKS, demos=15, cameras=("agentview",))
    config.conditions = dict(yaw=YAW)
    config.augment = ImageAugmentation(variants=1)._asdict()  # the picture itself alone
    config.symmetries = SymmetryConfig("metaworld")._asdict()  # none: the camera stands in a corner
    # B starts non-zero where it is meta-learned: at B = 0 no gradient reaches A.
    config.placement = (lora(EXPERT, 0.0 if method == "multitask" else 0.02),)
    config.batch = dict(meta_batch=6, shots=1, frames=16, query_demos=2, query_frames=32, draws=1)
    if method == "multitask":  # as many frames in each step as the others' support and query together
        config.batch.update(query_demos=3, query_frames=3 * 16 + 32)
    config.meta = ConfigDict(
        dict(
            method=name,
            inner_steps=3,
            optimizer="learned" if learned else "sgd",
            rate=0.1,
            max_norm=1.0,
            same_draws=False,
            micro_batch=placeholder(int),
            head=(HEADS,) if method == "anil" else None,
        ),
        allow_dotted_keys=True,
    )
    config.outer = ConfigDict(dict(steps=1000, rate=1e-2, rate_of_rates=0.03 if learned else None, max_norm=1.0))
    config.checkpoint_every = 50
    return config
