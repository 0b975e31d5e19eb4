"""Records scripted demonstrations of one LIBERO suite with its domain randomised: each in another scene.

    metalora collect --config=configs/libero_randomised.py:libero_object

Cameras are moved and turned, lights dimmed or brightened, surfaces (textures, too) tinted, half of the textures of what
stands fast (table, floor, walls, furniture) exchanged, and contact, masses and joints changed mildly. A demonstration's
file keeps what was drawn for it, so that it can be replayed.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))

CONDITIONS = dict(
    camera=0.03,
    camera_turn=0.05,
    light=(0.6, 1.4),
    colour=0.5,
    friction=(0.8, 1.2),
    mass=(0.8, 1.25),
    damping=(0.8, 1.25),
    texture=0.5,
)


def get_config(suite: str = "libero_object") -> ConfigDict:
    """A suite, or `picking`, as in configs/libero_demos.py; the seeds are others."""
    what = dict(tasks=common.SHORT + common.LONG) if suite == "picking" else dict(suite=suite)
    config = ConfigDict()
    config.directory = common.LIBERO_DIRECTORY
    config.world = "libero"
    config.image_size = 64 if suite == "picking" else 128
    config.workers = 2
    config.parts = dict(randomised=dict(**what, demos=20, first_seed=3_000, noise=0.0, conditions=CONDITIONS))
    return config
