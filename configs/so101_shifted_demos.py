"""Records the demonstrations that configs/few_shot_so101.py reads, on arms that differ from the base's: 64 px, 10 Hz.

    metalora collect --config=configs/so101_shifted_demos.py

Each robot has a calibration of its own (four joints are up to a dozen degrees off, turn up to 15 % too far or too
little, and their readings with them), its front camera stands up to 3 cm along each axis and 0.1 rad about each from
where it should, and the light differs.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config() -> ConfigDict:
    """Robots to meta-train on, to choose rates by and to test on; no two demonstrations share a scene."""
    tasks, shift = common.SO101_TASKS, common.SO101_SHIFT
    config = ConfigDict()
    config.directory = "runs/so101/shifted"
    config.world = "so101"
    config.image_size = 64
    config.workers = 2
    config.simulator = dict(fps=10)
    config.parts = dict(
        train=dict(tasks=tasks, robots=64, demos=3, first_seed=300_000, apart=100, noise=0.0, conditions=shift),
        validation=dict(
            tasks=tasks[::3], robots=8, demos=6, first_seed=400_000, apart=100, noise=0.0, conditions=shift
        ),
        test=dict(tasks=tasks[::2], robots=16, demos=6, first_seed=500_000, apart=100, noise=0.0, conditions=shift),
    )
    config.parts.validation.split = "validation"
    config.parts.test.split = "test"
    return config
