"""Meta-trains adapters on a frozen base, and ends with an adapter directory.

    metalora meta_train --config=configs/metaworld_conditions.py --workdir=runs/conditions_maml

A section `validation`, such as --config.validation.every=100 on a recipe that has one, keeps tasks or episodes out,
looks at them on the way, and keeps the adapter that did best on them in WORKDIR/best.

Any field can be changed on the command line, such as --config.meta.inner_steps=3. The same command resumes; with more
--config.outer.steps, it goes on with a run that has ended.
"""

from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from metalora_jax.training.meta_train import BEST, meta_train
from metalora_jax.training.metrics import Sink, check_installed, tensorboard_sink, wandb_sink
from metalora_jax.training.recipe import Recipe

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for checkpoints, metrics and the adapter.", required=True)
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Also write TensorBoard events to WORKDIR/tensorboard.")
_WANDB = flags.DEFINE_string("wandb", None, "Also send metrics to this Weights & Biases project.")

check = Recipe.from_config  # what --print_config holds the config against


def main(_: list[str]) -> None:
    check_installed(tensorboard=_TENSORBOARD.value, wandb=bool(_WANDB.value))
    workdir, recipe = Path(_WORKDIR.value), Recipe.from_config(_CONFIG.value.to_dict())

    def sinks(first_step: int) -> list[Sink]:
        made: list[Sink] = []
        if _TENSORBOARD.value:
            made.append(tensorboard_sink(workdir / "tensorboard", first_step))
        if _WANDB.value:
            made.append(wandb_sink(_WANDB.value, workdir.name, recipe.to_json(), workdir))
        return made

    adapter = meta_train(recipe, workdir, sinks)
    logging.info("metrics: %s", workdir / "metrics.jsonl")
    if recipe.validation:
        print(f"best on what validation keeps out: {workdir / BEST}")
    print(f"adapter: {adapter}")
