"""One scene, then the full comparison of few_shot_conditions cut down to minutes on two cores.

    make quickstart

Against the full comparison there are fewer tasks, arms, seeds, steps, shots and episodes. Inner rates are chosen by
loss, not by success in closed loop, and the search tries Adam alone, over the same three rates. Data, frames and starts
are the same for all arms. One arm takes no gradient step: it estimates the turn in closed form, and turns the frozen
base's commands back. Intervals are wide.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))

TASKS = (
    "coffee-button",
    "door-close",
    "door-open",
    "drawer-close",
    "faucet-close",
    "faucet-open",
    "window-close",
    "window-open",
)


def get_config() -> ConfigDict:
    """One meta-seed; of the full comparison's arms, those without which the meta-learned one would say nothing."""
    root = "runs/quickstart/demos"
    known, held_out = common.data(f"{root}/clean", TASKS, 8), common.data(f"{root}/held_out", TASKS, 4)
    validation = common.data(f"{root}/validation", TASKS[::2], 2)
    shift = dict(yaw=common.YAW)
    config = ConfigDict()
    # The choice of `metalora scene --survey`, whose table is in the adapter's card.
    config.scene = dict(
        task="coffee-button",
        condition=dict(yaw=3.1269243577470647),  # [rad]
        demo_start=30_001,
        episode_start=57_101_000,
        steps=3,
    )
    config.demos = dict(
        directory=root,
        world="metaworld",
        image_size=64,
        workers=2,
        parts=dict(
            clean=dict(tasks=TASKS, demos=8, first_seed=10_000, noise=0.0),
            held_out=dict(tasks=TASKS, demos=4, first_seed=30_000, noise=0.0),
            validation=dict(tasks=TASKS[::2], demos=2, first_seed=40_000, noise=0.0),
        ),
    )
    config.base = ""
    config.seed = 0
    config.meta_seeds = (0,)
    config.conditions = shift
    config.arms = dict(
        meta=common.training("fomaml_rates", known, shift, steps=250).to_dict(),
        control=common.training("multitask", known, shift, steps=250).to_dict(),
        lora=dict(placement=common.lora(common.EXPERT)),
        identify_yaw=dict(identify="yaw"),
    )
    config.search = dict(learned=(1.0,), sgd=(), adam=(0.003, 0.01, 0.03))
    config.validation = validation
    config.test = held_out
    config.protocol = common.protocol(
        distribution="conditions",
        steps=(0, 1, 3, 10),
        shots=(1,),
        shots_steps=(),
        demonstration_draws=2,
        retention_steps=0,
    )
    config.control = common.control()
    config.films = dict(tasks=("door-open", "window-close"), steps=3)
    config.workers = 2
    config.report = common.report("Quickstart: hidden action rotation, one demonstration", 3, common.LABELS)
    return config
