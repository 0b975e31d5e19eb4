"""One scene: a policy fails under a hidden condition, sees one demonstration, adapts in a few steps, and runs again.

    make scene               (or: metalora scene)

It uses the base and the adapter in the package, and ends with a film and a GIF. --survey plays no scene of its own: it
tries every known task under two hidden conditions that training never saw, and prints the table of all of them.
"""

from pathlib import Path
from runpy import run_path

from absl import flags
from ml_collections import config_flags

from metalora_jax.commands import recipes
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.evaluation.protocol import scene
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.machine.progress import progress

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe; by default the quickstart's.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart/scene", "Directory for the film and the GIF.")
_SURVEY = flags.DEFINE_bool("survey", False, "Print a table of all known tasks under two test conditions instead.")

default_config = "quickstart"
check = Comparison.from_config  # what --print_config holds the config against


def main(_: list[str]) -> None:
    comparison = Comparison.from_config(_CONFIG.value.to_dict())
    if not _SURVEY.value:
        if comparison.scene is None:
            raise ValueError("the config has no section `scene`: see configs/quickstart.py")
        scene.first_scene(comparison.scene, comparison.closed_loop, Path(_WORKDIR.value))
        return
    common = run_path(str(recipes.folder() / "common.py"))
    openings = scene.openings(common["TASKS"], comparison.conditions or ConditionRange(), draws=2, seed=comparison.seed)
    tried = scene.survey(openings, comparison.closed_loop, comparison.workers)
    print("\n".join(scene.table(list(progress(tried, description="scenes", total=len(openings))))))
