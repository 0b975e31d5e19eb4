"""Runs a grid of variants of one arm as a comparison, and ends with one report.

    metalora ablate --config=configs/few_shot_ablation.py --workdir=runs/few_shot_ablation

The section `grid` of the config is described in metalora_jax/evaluation/protocol/grid.py. Variants are trained and
evaluated in `config.workers` processes. Ctrl-C loses nothing; the same command resumes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from metalora_jax.evaluation.protocol import experiment, films
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.protocol.grid import expand
from metalora_jax.evaluation.reports import report

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for adapters, records and the report.", required=True)


def check(config: Mapping[str, Any]) -> None:
    """Refuses a grid that holds a variant which could not run."""
    Comparison.from_config(expand(config))


def main(_: list[str]) -> None:
    workdir, comparison = Path(_WORKDIR.value), Comparison.from_config(expand(_CONFIG.value.to_dict()))
    films.check(comparison.films)
    print(f"arms: {', '.join(comparison.arms)}")
    experiment.run(comparison, workdir)
    print(f"raw records: {workdir / 'episodes.jsonl'}")
    films.before_and_after(comparison, workdir)
    print(f"report: {report.write_report(workdir)}")
