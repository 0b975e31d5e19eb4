"""As few_shot_conditions, with three hidden shifts at once: rotation, a gain for each axis, and latency.

metalora collect --config=configs/metaworld_demos.py
metalora few_shot --config=configs/few_shot_shifts.py --workdir=runs/few_shot_shifts
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """One meta-seed, at most ten steps."""
    known = common.data("runs/demos/clean", common.TASKS, 15)
    shifts = dict(yaw=common.YAW, gain=(0.6, 1.4), latency=(0, 2))
    config = ConfigDict()
    config.base = ""
    config.seed = 0
    config.meta_seeds = (0,)
    config.conditions = shifts
    config.arms = dict(
        meta=common.training("fomaml_rates", known, shifts).to_dict(),
        control=common.training("multitask", known, shifts).to_dict(),
        lora=dict(placement=common.lora(common.EXPERT)),
        head_lora=dict(placement=common.lora(common.HEADS)),
        full_head=dict(placement=common.dense(common.HEADS)),
        identify_yaw=dict(identify="yaw"),
        identify_linear=dict(identify="linear"),
    )
    config.search = dict(learned=(0.3, 1.0, 3.0), sgd=(0.3, 1.0), adam=(0.003, 0.01, 0.03), ridge=(0.01, 0.03, 0.1))
    config.validation = common.data("runs/demos/validation", common.TASKS[::3], 8)
    config.test = common.data("runs/demos/held_out", common.TASKS, 8)
    config.protocol = common.protocol(
        distribution="conditions",
        steps=(0, 1, 3, 5, 10),
        shots=(1, 5),
        shots_steps=(3,),
        demonstration_draws=2,
        retention_steps=3,
        search_episodes=1,
        search_widenings=4,
    )
    config.control = common.control()
    config.films = dict(tasks=("door-open", "drawer-open", "window-close"), steps=3)
    config.workers = 2
    config.report = common.report("Hidden rotation, gains and latency, one demonstration", 3, common.LABELS)
    return config
