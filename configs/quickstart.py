"""The full comparison of few_shot_conditions cut down to fit a laptop: fewer tasks, seeds, steps and episodes.

    make quickstart

The search for inner rates tries Adam alone, over the full comparison's three rates, so that minutes go into episodes.
Intervals are wide.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

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
    """One meta-seed; the same arms as the full comparison, from the same recipes."""
    full = SimpleNamespace(**run_path(str(Path(__file__).with_name("few_shot_conditions.py"))))
    config = full.get_config()
    root = "runs/quickstart/demos"
    config.demos = dict(
        directory=root,
        world="metaworld",
        image_size=64,
        workers=2,
        parts=dict(
            clean=dict(tasks=TASKS, demos=8, first_seed=10_000, noise=0.0),
            held_out=dict(tasks=TASKS, demos=6, first_seed=30_000, noise=0.0),
        ),
    )
    config.meta_seeds = (0,)
    for arm in ("meta", "control"):
        config.arms[arm].data = dict(directory=f"{root}/clean", tasks=TASKS, demos=8, cameras=("agentview",))
        config.arms[arm].outer.steps = 250
    for split in ("validation", "test"):
        config[split] = dict(directory=f"{root}/held_out", tasks=TASKS, demos=6, cameras=("agentview",))
    config.search = dict(learned=(1.0,), sgd=(), adam=(0.003, 0.01, 0.03))
    config.protocol.steps = (0, 1, 3, 5, 10)
    config.protocol.draws_per_task = 2
    config.protocol.episodes = 1
    config.protocol.retention_steps = 0
    config.films.tasks = ("door-open", "window-close")
    config.report.title = "Quickstart: hidden action rotation, one demonstration"
    return config
