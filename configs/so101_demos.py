"""Records the demonstrations that configs/nano_so101.py reads: twelve tasks of the SO-101, 100 + 120 of each, 64 px.

Cameras: front and wrist. Control at 10 Hz; --config.simulator.fps=30 records at 30 Hz, into a directory of its own.

    metalora collect --config=configs/so101_demos.py
    metalora to_lerobot --demos=runs/so101/demos/clean --world=so101 --fps=10 --output=runs/so101/lerobot

The second command makes a LeRobot dataset of them, with LeRobot's names of the joints.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """Parts differ in whether the joints are pushed (`noise`, in degrees); no two demonstrations share a scene."""
    config = ConfigDict()
    config.directory = "runs/so101/demos"
    config.world = "so101"
    config.image_size = 64
    config.workers = 2
    config.simulator = dict(fps=10)
    config.parts = dict(
        clean=dict(tasks=common.SO101_TASKS, demos=100, first_seed=100_000, apart=1_000, noise=0.0),
        noisy=dict(tasks=common.SO101_TASKS, demos=120, first_seed=200_000, apart=1_000, noise=1.5),
    )
    return config
