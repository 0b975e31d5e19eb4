"""Records scripted demonstrations of LIBERO, two cameras, in its own layout: one suite, 20 of each task, 128 px.

    metalora collect --config=configs/libero_demos.py:libero_object

`picking` records what configs/libero_few_shot.py reads, at 64 px, as the nano base sees it. Of the tasks of four suites
that ask for picking and placing alone: eight as they should be, ten more for pretraining, and sixteen in which the hand
is pushed off course. Of libero_90's tasks, which only meta-training has: five.
5 to 12 s of one core for each demonstration, most of it rendering. Any field can be set on the command line, such as
--config.workers=16, --config.image_size=256 or --config.parts.clean.noise=0.2.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(suite: str = "libero_object") -> ConfigDict:
    """`suite`: libero_spatial, libero_object, libero_goal, libero_10, libero_90, or picking."""
    config = ConfigDict()
    config.directory = common.LIBERO_DIRECTORY
    config.world = "libero"
    config.image_size = 64 if suite == "picking" else 128
    config.workers = 2
    # Starts below 50 are LIBERO's initial states, which evaluation uses.
    if suite == "picking":
        tasks = common.SHORT + common.LONG
        steady = tuple(task for task in tasks if task not in common.UNSTEADY)
        config.parts = dict(
            clean=dict(tasks=tasks, demos=8, first_seed=1_000, noise=0.0),
            plenty=dict(tasks=tasks, demos=10, first_seed=1_500, noise=0.0),
            noisy=dict(tasks=steady, demos=16, first_seed=2_000, noise=0.2),
            more=dict(tasks=common.MORE, demos=5, first_seed=3_000, noise=0.0, folder="clean"),
        )
    else:
        config.parts = dict(clean=dict(suite=suite, demos=20, first_seed=1_000, noise=0.0))
    return config
