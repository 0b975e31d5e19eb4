"""One change at a time from the meta-learned arm of libero_few_shot: rank, place, inner steps, support, method.

Meta-training has four demonstrations of a task: with a support of three, one is left for the query instead of two.

python experiments/ablate.py --config=configs/libero_ablation.py --workdir=runs/libero/ablation
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

DECODER = r"text/layers/.*|text/last/self_attn/(k|v)_proj"


def get_config() -> ConfigDict:
    """One meta-seed, a fifth of the meta-training, and three step counts."""
    here = Path(__file__)
    conditions = SimpleNamespace(**run_path(str(here.with_name("metaworld_conditions.py"))))
    config = run_path(str(here.with_name("libero_few_shot.py")))["get_config"]()
    start = config.arms.meta
    start.outer.steps = 200
    with config.unlocked():
        config.arms = dict(meta=start.to_dict())

    def method(name: str) -> dict:
        made = conditions.get_config(name)
        made.meta.inner_steps = start.meta.inner_steps
        return {"meta": made.meta.to_dict(), "outer.rate_of_rates": made.outer.rate_of_rates}

    axes = {
        "rank": {str(r): {"placement.0.rank": r, "placement.0.alpha": 2.0 * r} for r in (1, 2, 8, 16)},
        "where": {
            "decoder": {"placement.0.pattern": DECODER},
            "heads": {"placement.0.pattern": conditions.HEADS},
            "decoder and expert": {"placement.0.pattern": f"{DECODER}|{conditions.EXPERT}"},
        },
        "inner steps": {str(k): {"meta.inner_steps": k} for k in (1, 3, 5)},
        "support": {f"{k} demonstrations": {"batch.shots": k, "batch.query_demos": 4 - k} for k in (2, 3)},
        "method": {
            "FOMAML, a rate for each tensor": method("fomaml_rates"),
            "FOMAML": method("fomaml"),
            "Reptile": method("reptile"),
            "ANIL": method("anil"),
            "MAML": method("maml"),
            "MAML, learned rates": method("maml_rates"),
        },
    }
    config.meta_seeds = (0,)
    config.grid = ConfigDict(dict(start="meta", mode="each", axes=axes), allow_dotted_keys=True)
    config.protocol.update(steps=(0, 3, 10), shots=(1,), shots_steps=(10,), retention_steps=0, instruction_steps=0)
    config.report.update(
        title="Ablation on new LIBERO tasks, one demonstration", labels=dict(meta="FOMAML, a rate for each parameter")
    )
    return config
