"""The baselines that libero_small leaves out, beside MAML: one meta-seed, one demonstration.

    python experiments/few_shot.py --config=configs/libero_baselines.py --workdir=runs/libero/baselines \
        --config.base=experiments/results/libero_strong_base/base

Demonstrations as for libero_small, and the same starts. experiments/results/libero_baselines is its outcome. What is
trained is trained for less than the arms of libero_small, so that it needs no GPU.
"""

from pathlib import Path
from runpy import run_path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Three step counts, four episodes a task and step count."""
    here = Path(__file__)
    config = run_path(str(here.with_name("libero_small.py")))["get_config"]()
    whole = run_path(str(here.with_name("libero_few_shot.py")))["get_config"]()
    config.meta_seeds = (0,)
    meta = config.arms.meta
    # At the rate that FOMAML starts from, MAML diverges: see libero_strong_base among the results.
    meta.meta.update(method="maml", rate=0.1)
    meta.batch.update(meta_batch=4, frames=16, replay_frames=8, query_frames=24, kept_frames=24)
    meta.data.demos = 4
    meta.outer.steps = 400
    meta.checkpoint_every = 25
    full_expert = whole.arms.full_expert
    full_expert.batch.update(meta_batch=4, query_demos=3)
    full_expert.outer.steps = 500
    with config.unlocked():
        config.arms = dict(meta=meta.to_dict(), full_expert=full_expert.to_dict())
        for name in ("head_lora", "full_head"):
            config.arms[name] = whole.arms[name]
    config.protocol.update(shots=(1,), instruction_steps=0)
    config.report.labels.meta = "MAML, small batches"
    config.report.title = "Baselines and MAML on new LIBERO tasks: scripted demonstrations, stand-in visuals"
    return config
