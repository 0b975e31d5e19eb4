"""Offline error held against closed-loop success, on the simulated SO-101 with wrong calibrations of its joints.

    metalora collect --config=configs/so101_demos.py
    metalora pretrain --config=configs/nano_so101.py --workdir=runs/so101/nano
    python experiments/offline_against_success.py --config=configs/so101_offline_against_success.py \\
        --workdir=runs/so101/offline_against_success

Neither the base nor the adapters are told of a condition; the demonstrations are recorded under it.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))

_JOINTS = ("pan", "lift", "elbow")


def _offset(joint: int, degrees: float) -> dict:
    return dict(joint_offset=tuple(degrees if i == joint else 0.0 for i in range(6)))


def get_config() -> ConfigDict:
    """No shift, and an offset of ten degrees to either side of each joint in which the base's training had none."""
    config = ConfigDict()
    config.base = "runs/so101/nano/base"
    config.seed = 0
    config.cameras = common.SO101_CAMERAS
    config.control = dict(
        world="so101",
        execute=3,
        max_steps=dict(lift=40, place=60, push=40),
        ensemble=placeholder(float),
        simulator=dict(fps=10),
    )
    config.tasks = ("lift-red", "push-green")
    config.conditions = {"none": {}} | {
        f"{joint} {degrees:+d}": _offset(i, float(degrees)) for i, joint in enumerate(_JOINTS) for degrees in (-10, 10)
    }
    config.placement = common.lora(common.EXPERT)
    config.shots = 2
    config.held_out = 3
    config.first_demo = 60_000
    config.learning_rates = (0.003, 0.03)
    config.steps = (0, 1, 3, 10, 30, 100)
    config.frames = 32
    config.noise_draws = 2
    config.max_norm = 1.0
    config.episodes = 10
    config.offline = dict(stride=1, samples=4)
    config.workers = 1
    return config
