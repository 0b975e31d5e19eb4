"""One change at a time from a meta-learned arm on new LIBERO tasks: rank, place, inner steps, support, method.

    metalora ablate --config=configs/libero_ablation.py --workdir=runs/libero/ablation \
        --config.base=experiments/results/libero_strong_base/base

Demonstrations as for libero_small, and the same starts. experiments/results/libero_ablation is its outcome. Each arm is
trained for a few minutes of one core; with a GPU, --config.arms.meta.outer.steps=1000 trains all of them for longer.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))

DECODER = r"text/layers/.*|text/last/self_attn/(k|v)_proj"


def get_config() -> ConfigDict:
    """One meta-seed, small batches, five inner steps, and two step counts with a rate searched for each method."""
    held = common.split_named("suite")
    start = common.libero_training("fomaml_rates", held)
    start.meta.inner_steps = 5
    start.batch.update(meta_batch=4, frames=16, replay_frames=8, query_frames=24, retained_frames=24)
    start.outer.steps = 300

    def method(name: str, rate: float = start.meta.inner_learning_rate) -> dict:
        made = common.training(name, {}, None)
        made.meta.update(inner_steps=start.meta.inner_steps, inner_learning_rate=rate)
        return {"meta": made.meta.to_dict(), "outer.learning_rate_of_rates": made.outer.learning_rate_of_rates}

    axes = {
        "rank": {str(r): {"placement.0.rank": r, "placement.0.alpha": 2.0 * r} for r in (1, 16)},
        "where": {
            "decoder": {"placement.0.pattern": DECODER},
            "heads": {"placement.0.pattern": common.HEADS},
            "decoder and expert": {"placement.0.pattern": f"{DECODER}|{common.EXPERT}"},
        },
        "inner steps": {str(k): {"meta.inner_steps": k} for k in (1, 10)},
        # Of a task's four demonstrations one is left for the query, instead of two.
        "support": {"3 demonstrations": {"batch.shots": 3, "batch.query_demos": 1}},
        "method": {
            "FOMAML, a rate for each tensor": method("fomaml_rates"),
            "FOMAML": method("fomaml"),
            "Reptile": method("reptile"),
            # What differentiates through the inner steps diverges at the start's rate, see libero_strong_base.
            "ANIL": method("anil", 0.1),
            "MAML": method("maml", 0.1),
            "MAML, learned rates": method("maml_rates", 0.1),
        },
    }
    config = ConfigDict()
    config.base = "runs/libero/suite/base"
    config.seed = 0
    config.meta_seeds = (0,)
    config.conditions = None
    config.arms = dict(meta=start.to_dict())
    config.grid = ConfigDict(dict(start="meta", mode="each", axes=axes), allow_dotted_keys=True)
    config.search = dict(learned=(0.5, 1.0, 2.0), sgd=(0.1, 0.3, 1.0), adam=(0.003, 0.01))
    config.validation = common.libero_data(held.validation, 8)
    config.test = common.libero_data(held.test, 8)
    config.replay = common.libero_data(held.train, 4)  # a third of each support minibatch
    config.protocol = common.libero_protocol(
        held,
        steps=(3, 10),
        shots=(1,),
        shots_steps=(10,),
        demonstration_draws=2,
        episodes=1,
        retention_steps=0,
        instruction_steps=0,
        frames=64,
        replay_frames=32,
    )
    config.control = common.libero_control(max_steps=common.LIBERO_SHORT_EPISODES)
    config.films = dict(tasks=held.test[::2], steps=10)
    config.workers = 2
    title = "Ablation on new LIBERO tasks, one demonstration: scripted demonstrations, stand-in visuals"
    config.report = common.report(title, 10, common.LIBERO_LABELS | dict(meta="FOMAML, a rate for each parameter"))
    return config
