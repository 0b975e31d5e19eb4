"""Records all demonstrations that the other configs read: 25 tasks, 15 to 56 of each, 64 px.

Cameras: agentview and topview.

metalora collect --config=configs/metaworld_demos.py
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """Parts differ in their seeds, and in whether the expert is pushed (`noise`, in action units)."""
    known, others = common.TASKS, common.NEW + common.VALIDATION + common.TEST
    config = ConfigDict()
    config.directory = "runs/demos"
    config.world = "metaworld"
    config.image_size = 64
    config.workers = 2
    config.parts = dict(
        clean=dict(tasks=known + others, demos=15, first_seed=10_000, noise=0.0),
        noisy=dict(tasks=known, demos=25, first_seed=20_000, noise=0.3),
        held_out=dict(tasks=known, demos=8, first_seed=30_000, noise=0.0),
        validation=dict(tasks=known[::3], demos=8, first_seed=40_000, noise=0.0),
    )
    return config
