"""The headline comparison: known tasks under a hidden, held-out rotation of the action frame, from one demonstration.

    python experiments/collect.py --config=configs/metaworld_demos.py
    python experiments/few_shot.py --config=configs/few_shot_conditions.py --workdir=runs/few_shot_conditions

Every method adapts on the same frames, with the same flow noise, and is evaluated from the same simulator starts.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Three meta-seeds, all baselines."""
    conditions = SimpleNamespace(**run_path(str(Path(__file__).with_name("metaworld_conditions.py"))))
    config = ConfigDict()
    config.base = ""
    config.seed = 0
    config.meta_seeds = (0, 1, 2)
    config.conditions = dict(yaw=conditions.YAW)
    config.arms = dict(
        meta=conditions.get_config("fomaml_rates").to_dict(),
        control=conditions.get_config("multitask").to_dict(),
        lora=dict(placement=(conditions.lora(conditions.EXPERT, 0.0),)),
        head_lora=dict(placement=(conditions.lora(conditions.HEADS, 0.0),)),
        full_head=dict(placement=(dict(pattern=conditions.HEADS, kind="dense"),)),
    )
    config.search = dict(learned=(0.3, 1.0), sgd=(0.3, 1.0), adam=(0.003, 0.01, 0.03))
    cameras = ("agentview",)
    config.validation = dict(directory="runs/demos/held_out", tasks=conditions.TASKS[::3], demos=8, cameras=cameras)
    config.test = dict(directory="runs/demos/held_out", tasks=conditions.TASKS, demos=8, cameras=cameras)
    config.protocol = dict(
        distribution="conditions",
        steps=(0, 1, 3, 5, 10, 100),
        shots=(1, 3, 5),
        shots_steps=(3,),
        draws_per_task=2,
        episodes=1,
        retention_steps=3,
        frames=32,
        flow_draws=2,
        max_norm=1.0,
        short=10,
    )
    config.control = dict(execute=2, max_steps=200, ensemble=placeholder(float))
    config.films = dict(tasks=("door-open", "drawer-open", "window-close"), steps=3)
    config.workers = 2
    config.report = dict(
        title="Hidden action rotation, one demonstration",
        reference="meta",
        thresholds=(0.5, 0.6, 0.8),
        steps=3,
        labels=dict(
            meta="Meta-learned LoRA",
            control="Multi-task LoRA (control)",
            lora="LoRA from scratch",
            head_lora="Head-only LoRA",
            full_head="Full head fine-tuning",
            base="Frozen base",
        ),
    )
    return config
