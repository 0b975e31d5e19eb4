"""Meta-learns adapters for a robot of one's own, from a LeRobot dataset: no simulator, nothing to fill in but paths.

    metalora convert --policy=lerobot/smolvla_base --demos=my_dataset --output=runs/base
    metalora meta_train --config=own_robot --config.data.directory=my_dataset --config.base=runs/base \\
        --workdir=runs/meta

The directory may be a name on the hub with a revision, `lerobot/svla_so100_pickplace@main`. Tasks, cameras and episodes
are read from the data. Of five tasks the last is held out, for judging afterwards, and of each task the last episode:
the adapter is held against those as it is learned, and WORKDIR/best is the one that does best there. The log names them
when the run starts. A placement follows a colon, `--config=own_robot:expert`: plan (the default),
expert, decoder, head, lerobot, all_linear, ftm, fla.

With one or two tasks there is little to learn about adapting. Copies of each on other robots of the same kind, whose
joints are calibrated otherwise and whose cameras stand otherwise, make more tasks of them:

    --config.deployments.copies=3 --config.deployments.offset=5 --config.deployments.gain=0.03

`--config.data.frames=8` takes so few frames of each demonstration instead of all: the frozen front takes seconds a
frame on a CPU, once.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.adapters.placement import to_json
from metalora_jax.data.deployments import DeploymentRange
from metalora_jax.policies.smolvla.presets import preset

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(placement: str = "plan") -> ConfigDict:
    """FOMAML with learned rates, two demonstrations to judge by for each one to learn from."""
    data = dict(
        directory="",
        tasks=(),  # all
        demos=placeholder(int),  # all of each
        cameras=(),  # all, in the data's order
        keys=(),  # such as "state=observation.joints", of features with other names
        episodes=placeholder(tuple),  # all
        drop=(),
        skip_bad=False,
        frames=placeholder(int),  # all
        held_out_tasks=0.2,
    )
    config = common.training("fomaml_rates", data, None, steps=300)
    config.base = "runs/base"
    config.placement = tuple(to_json(preset(placement, b_std=0.02)))
    config.batch.update(meta_batch=4, frames=4, query_frames=4, noise_draws=4)
    config.meta.inner_steps = 5
    config.meta.micro_batch = 1
    config.validation = dict(every=50, episodes=("last:1",))
    config.symmetries = None
    config.deployments = DeploymentRange()._asdict()  # none
    return config
