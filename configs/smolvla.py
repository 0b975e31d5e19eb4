"""Meta-learns adapters on the real SmolVLA, from Meta-World demonstrations seen by two cameras.

    metalora convert --policy=lerobot/smolvla_base --demos='runs/demos/clean/*.hdf5' --output=runs/base
    metalora meta_train --config=configs/smolvla.py --workdir=runs/smolvla

A placement follows a colon, `--config=configs/smolvla.py:expert`: plan (the default), expert, decoder, head, lerobot,
all_linear, ftm, fla. The frozen front takes seconds a frame on a CPU, once: it is kept in ~/.cache/metalora_jax
(METALORA_CACHE). Under the last three nothing is frozen, and every step takes as long.
`--config.data.frames=8` takes so few frames of each demonstration instead of all.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.adapters.placement import to_json
from metalora_jax.policies.smolvla.presets import preset

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(placement: str = "plan") -> ConfigDict:
    """FOMAML with learned rates, one task at a time."""
    demos = common.data("runs/demos/clean", common.TASKS, 15, ("agentview", "topview"))
    config = common.training("fomaml_rates", demos | dict(frames=placeholder(int)), dict(yaw=common.YAW))
    config.base = "runs/base"
    config.placement = tuple(to_json(preset(placement, b_std=0.02)))
    config.batch.update(meta_batch=4, frames=4, query_frames=4, noise_draws=4)
    config.meta.inner_steps = 5
    config.meta.micro_batch = 1
    return config
