"""New LIBERO tasks from one, three and five demonstrations: meta-learned adapters against every baseline.

    metalora collect --config=configs/libero_demos.py:picking
    metalora pretrain --config=configs/nano_libero.py --workdir=runs/libero/suite
    metalora few_shot --config=configs/libero_few_shot.py --workdir=runs/libero/few_shot

What is held out follows a colon, `--config=configs/libero_few_shot.py:composition`; it needs a base of its own, which
has seen the training tasks of that split alone (runs/libero/<split>/base), and demonstrations in
runs/libero/demos/clean.

- suite (the default): two tasks of each of three suites, by instruction and by what is moved from where to where.
- across: five of libero_object's tasks, whose scene no training task has.
- composition: an object at a place, each of which training knows, but never together.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(split: str = "suite") -> ConfigDict:
    """Five draws of demonstrations and two starts for each: ten episodes a task and point."""
    held = common.split_named(split)
    config = ConfigDict()
    config.base = f"runs/libero/{split}/base"
    config.seed = 0
    config.meta_seeds = (0, 1)
    config.conditions = None
    config.arms = dict(
        meta=common.libero_training("fomaml_rates", held).to_dict(),
        control=common.libero_training("multitask", held).to_dict(),
        full_expert=common.libero_full_expert(held).to_dict(),
        lora=dict(placement=common.lora(common.EXPERT)),
        head_lora=dict(placement=common.lora(common.HEADS)),
        full_head=dict(placement=common.dense(common.HEADS)),
    )
    config.search = dict(learned=(0.3, 1.0), sgd=(0.3, 1.0), adam=(0.003, 0.01, 0.03))
    config.validation = common.libero_data(held.validation, 8)
    config.test = common.libero_data(held.test, 8)
    # What the base learned from: every arm replays it as it adapts, a third of each support minibatch.
    config.replay = common.libero_data(held.train, 4)
    config.protocol = common.libero_protocol(
        held,
        steps=(0, 1, 3, 5, 10, 100),
        shots=(1, 3, 5),
        shots_steps=(1, 10),
        demonstration_draws=5,
        episodes=2,
        retention_steps=10,
        # Under `suite` every one of 18 earlier tasks is run by five of 30 cells, from two starts each.
        retention_per_cell=3,
        retention_scales=(0.25, 0.5, 0.75),
        retention_gated=True,
        instruction_steps=10,
        frames=64,
        replay_frames=32,
    )
    config.control = common.libero_control()
    config.films = dict(tasks=held.test[::2], steps=10)
    config.workers = 2
    config.report = common.report(f"New LIBERO tasks ({split}), one demonstration", 10, common.LIBERO_LABELS)
    return config
