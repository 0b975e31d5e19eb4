"""As few_shot_conditions, with three hidden shifts at once: rotation, a gain for each axis, and latency.

python experiments/collect.py --config=configs/metaworld_demos.py
python experiments/few_shot.py --config=configs/few_shot_shifts.py --workdir=runs/few_shot_shifts
"""

from pathlib import Path
from runpy import run_path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """One meta-seed, at most ten steps."""
    config = run_path(str(Path(__file__).with_name("few_shot_conditions.py")))["get_config"]()
    shifts = dict(yaw=config.conditions.yaw, gain=(0.6, 1.4), latency=(0, 2))
    with config.unlocked():
        config.conditions = shifts
        for arm in ("meta", "control"):
            config.arms[arm].conditions = shifts
    config.meta_seeds = (0,)
    config.protocol.steps = (0, 1, 3, 5, 10)
    config.protocol.shots = (1, 5)
    config.report.title = "Hidden rotation, gains and latency, one demonstration"
    return config
