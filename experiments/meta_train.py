"""Meta-trains adapters on a frozen base, and ends with an adapter directory.

    python experiments/meta_train.py --config=configs/metaworld_conditions.py --workdir=runs/conditions_maml

Any field can be changed on the command line, such as --config.meta.inner_steps=3. The same command resumes; with more
--config.outer.steps, it goes on with a run that has ended.
"""

from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from metalora_jax.training import command
from metalora_jax.training.meta_train import meta_train
from metalora_jax.training.metrics import Sink, check_installed, tensorboard_sink, wandb_sink
from metalora_jax.training.recipe import Recipe

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for checkpoints, metrics and the adapter.", required=True)
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Also write TensorBoard events to WORKDIR/tensorboard.")
_WANDB = flags.DEFINE_string("wandb", None, "Also send metrics to this Weights & Biases project.")


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
    print(f"adapter: {adapter}")


if __name__ == "__main__":
    command.run(main)
