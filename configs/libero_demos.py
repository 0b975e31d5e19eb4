"""Records scripted demonstrations of one LIBERO suite: 20 of each task, 128 px, two cameras, in LIBERO's own layout.

python experiments/collect.py --config=configs/libero_demos.py:libero_object

About 20 s of one core for each demonstration, nearly all of it rendering. Any field can be set on the command line,
such as --config.image_size=256 or --config.parts.libero_object.noise=0.2.
"""

from ml_collections import ConfigDict


def get_config(suite: str = "libero_object") -> ConfigDict:
    """`suite`: libero_spatial, libero_object, libero_goal, libero_10 or libero_90."""
    config = ConfigDict()
    config.directory = "runs/libero_demos"
    config.world = "libero"
    config.image_size = 128
    config.workers = 2
    # Starts below 50 are LIBERO's initial states, which evaluation uses.
    config.parts = {suite: dict(suite=suite, demos=20, first_seed=1_000, noise=0.0)}
    return config
