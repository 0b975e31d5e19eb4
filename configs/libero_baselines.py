"""The baselines that libero_small leaves out, beside MAML: one meta-seed, one demonstration.

    metalora few_shot --config=configs/libero_baselines.py --workdir=runs/libero/baselines \
        --config.base=experiments/results/libero_strong_base/base

Demonstrations as for libero_small, and the same starts. experiments/results/libero_baselines is its outcome. What is
trained is trained for less than the arms of libero_small, so that it needs no GPU.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """Three step counts, four episodes a task and step count."""
    held = common.split_named("suite")
    meta = common.libero_training("fomaml_rates", held)
    # At the rate that FOMAML starts from, MAML diverges: see libero_strong_base among the results.
    meta.meta.update(method="maml", inner_learning_rate=0.1)
    meta.batch.update(meta_batch=4, frames=16, replay_frames=8, query_frames=24, retained_frames=24)
    meta.outer.steps = 400
    meta.checkpoint_every = 25
    full_expert = common.libero_full_expert(held)
    full_expert.batch.meta_batch = 4
    full_expert.outer.steps = 500
    config = ConfigDict()
    config.base = "runs/libero/suite/base"
    config.seed = 0
    config.meta_seeds = (0,)
    config.conditions = None
    config.arms = dict(
        meta=meta.to_dict(),
        full_expert=full_expert.to_dict(),
        head_lora=dict(placement=common.lora(common.HEADS)),
        full_head=dict(placement=common.dense(common.HEADS)),
    )
    config.search = dict(learned=(0.5, 1.0, 2.0), sgd=(), adam=(0.003, 0.01))
    config.validation = common.libero_data(held.validation, 8)
    config.test = common.libero_data(held.test, 8)
    config.replay = common.libero_data(held.train, 4)  # a third of each support minibatch
    config.protocol = common.libero_protocol(
        held,
        steps=(0, 10, 100),
        shots=(1,),
        shots_steps=(10,),
        demonstration_draws=2,
        episodes=2,
        retention_steps=10,
        instruction_steps=0,
        frames=64,
        replay_frames=32,
    )
    config.control = common.libero_control(max_steps=common.LIBERO_SHORT_EPISODES)
    config.films = dict(tasks=held.test[::2], steps=10)
    config.workers = 2
    title = "Baselines and MAML on new LIBERO tasks: scripted demonstrations, stand-in visuals"
    config.report = common.report(title, 10, common.LIBERO_LABELS | dict(meta="MAML, small batches"))
    return config
