"""Writes the test cells of a comparison as a file of problems, which policies of other code can be put to.

    metalora problems --config=configs/few_shot_so101.py --output=runs/so101/problems.json

Each problem names its demonstrations, its hidden condition, and the starts of its episodes; see docs/problems.md.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from metalora_jax.evaluation.protocol import published
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.machine import files

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_OUTPUT = flags.DEFINE_string("output", None, "The file to write.", required=True)

check = Comparison.from_config  # what --print_config holds the config against


def main(_: list[str]) -> None:
    found = published.problems(Comparison.from_config(_CONFIG.value.to_dict()))
    path = Path(_OUTPUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, found.to_json())
    episodes = sum(len(problem.starts) for problem in found.problems.values())
    print(f"{len(found.problems)} problems, {episodes} episodes: {path}")
