"""Pretrains a base policy from demonstrations, and ends with a base directory.

python experiments/pretrain.py --config=configs/nano_smolvla.py --workdir=runs/nano
"""

from pathlib import Path

import jax
from absl import flags
from flax import nnx
from ml_collections import config_flags

from metalora_jax.adaptation import base
from metalora_jax.data import normalize
from metalora_jax.data.frames import gather
from metalora_jax.envs.world import world
from metalora_jax.fields import to_fields
from metalora_jax.policies import registry
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA
from metalora_jax.training import checkpoint, command, loop, pretrain

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for checkpoints, metrics and the base.", required=True)


def main(_: list[str]) -> None:
    config, workdir = pretrain.Pretraining.from_config(_CONFIG.value.to_dict()), Path(_WORKDIR.value)
    checkpoint.claim(workdir, to_fields(config))
    demos = config.demos()
    statistics = normalize.compute([demo for recorded in demos.values() for demo in recorded])
    size = SmolVLAConfig.nano(**config.model)
    where = world(config.control.world)
    instructions = [where.instruction(task) for task in where.tasks()]
    tokenizer = pretrain.train_tokenizer(instructions, size.vocab_size)

    model = SmolVLA(size, rngs=nnx.Rngs(config.seed))
    reads = base.preprocessor(registry.of_model(model), model, tokenizer, statistics)
    frames = gather(demos, reads, config.augment)
    graph, params = nnx.split(model)
    optimizer = pretrain.optimizer(config.learning_rate, config.steps, config.warmup, config.weight_decay)
    action_dim = len(statistics.action_mean)
    gradient = pretrain.gradient(graph, action_dim, config.noise_draws, config.shift, config.brightness)
    labelled = pretrain.label(frames)
    state = loop.run(
        workdir,
        loop.init(nnx.to_pure_dict(params), optimizer),
        jax.jit(lambda state, batch, key: loop.update(state, batch, key, gradient, optimizer), donate_argnums=0),
        lambda step: pretrain.draw_batch(frames, labelled, config.seed, step, config.batch),
        steps=config.steps,
        seed=config.seed,
        description="pretrain",
        checkpoint_every=config.checkpoint_every,
    )
    base.save(workdir / "base", base.make(nnx.merge(graph, state.params), tokenizer, statistics))
    print(f"base: {workdir / 'base'}")


if __name__ == "__main__":
    command.run(main)
