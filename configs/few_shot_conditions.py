"""The headline comparison: known tasks under a hidden, held-out rotation of the action frame, from one demonstration.

    metalora collect --config=configs/metaworld_demos.py
    metalora few_shot --config=configs/few_shot_conditions.py --workdir=runs/few_shot_conditions

Every method adapts on the same frames, with the same flow noise, and is evaluated from the same simulator starts.
Rates, and the length and outer rate of both trained arms, are chosen by success on validation. Two arms take no
gradient step.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """Three meta-seeds, all baselines; every trained arm has as many ways to be trained."""
    known, shift = common.data("runs/demos/clean", common.TASKS, 15), dict(yaw=common.YAW)
    config = ConfigDict()
    config.base = ""
    config.seed = 0
    config.meta_seeds = (0, 1, 2)
    config.conditions = shift
    config.arms = dict(
        meta=common.training("fomaml_rates", known, shift).to_dict(),
        control=common.training("multitask", known, shift).to_dict(),
        lora=dict(placement=common.lora(common.EXPERT)),
        head_lora=dict(placement=common.lora(common.HEADS)),
        full_head=dict(placement=common.dense(common.HEADS)),
        identify_yaw=dict(identify="yaw"),
        identify_linear=dict(identify="linear"),
    )
    ways = {
        "longer": {"outer.steps": 2000},
        "slower": {"outer.learning_rate": 3e-3},
        "faster": {"outer.learning_rate": 3e-2},
    }
    config.alternatives = ConfigDict(dict(meta=ways, control=ways), allow_dotted_keys=True)
    config.search = dict(learned=(0.3, 1.0, 3.0), sgd=(0.3, 1.0), adam=(0.003, 0.01, 0.03), ridge=(0.01, 0.03, 0.1))
    config.validation = common.data("runs/demos/validation", common.TASKS[::3], 8)
    config.test = common.data("runs/demos/held_out", common.TASKS, 8)
    config.protocol = common.protocol(
        distribution="conditions",
        steps=(0, 1, 3, 5, 10, 100),
        shots=(1, 3, 5),
        shots_steps=(3,),
        demonstration_draws=2,
        retention_steps=3,
        search_episodes=1,
        search_widenings=4,
    )
    config.control = common.control()
    config.films = dict(tasks=("door-open", "drawer-open", "window-close"), steps=3)
    config.workers = 2
    config.report = common.report("Hidden action rotation, one demonstration", 3, common.LABELS)
    return config
