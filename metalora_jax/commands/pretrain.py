"""Pretrains a base policy from demonstrations, and ends with a base directory.

    metalora pretrain --config=configs/nano_smolvla.py --workdir=runs/nano

`config.model.type` is the policy's type; the other fields of `config.model` are those of its config.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import flags
from flax import nnx
from ml_collections import config_flags

from metalora_jax.adaptation import base
from metalora_jax.data.frames import gather
from metalora_jax.data.preprocessor import Preprocessor
from metalora_jax.envs.world import world
from metalora_jax.fields import to_fields
from metalora_jax.policies import registry
from metalora_jax.policies.policy import Policy
from metalora_jax.training import checkpoint, grounding, loop, pretrain
from metalora_jax.training.recipe import Pretraining
from metalora_jax.types import PyTree

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for checkpoints, metrics and the base.", required=True)

check = Pretraining.from_config  # what --print_config holds the config against


def main(_: list[str]) -> None:
    recipe, workdir = Pretraining.from_config(_CONFIG.value.to_dict()), Path(_WORKDIR.value)
    model = pretrain.create(recipe)
    family, sizes = registry.of_model(model), model.sizes
    checkpoint.claim(workdir, to_fields(recipe))
    demos = pretrain.read(recipe)
    every = [demo for recorded in demos.values() for demo in recorded]
    robot = pretrain.embodiment(recipe, every)
    statistics = pretrain.statistics(recipe, every, family.modes, sizes.chunk, robot.action or ())
    where = world(recipe.control.world)
    instructions = [where.instruction(task) for task in where.tasks()]
    tokenizer = pretrain.train_tokenizer(instructions, sizes.vocabulary)

    reads = base.preprocessor(family, model, tokenizer, statistics)
    frames = gather(demos, reads, recipe.augment, in_memory=True)
    graph, weights = nnx.split(model)
    params = nnx.to_pure_dict(weights)
    prepare = partial(family.prepare_float_images, size=sizes.image)
    action_dim = len(statistics.action_mean)
    gradient = pretrain.gradient(graph, action_dim, recipe.noise_draws, recipe.shift, recipe.brightness, prepare)
    labelled = pretrain.label(frames)

    def batch(step: int) -> PyTree:
        return pretrain.draw_batch(frames, labelled, recipe.seed, step, recipe.batch, opening=recipe.opening)

    if recipe.grounding is not None:
        states = np.concatenate([demo.state for demo in every])
        params, lesson = _grounded(recipe, recipe.grounding, workdir / "grounding", model, reads, states, prepare)
        gradient = grounding.beside(gradient, _seeing(recipe, graph, prepare))
    schedule = pretrain.schedule(recipe.learning_rate, recipe.steps, recipe.warmup)
    optimizer = pretrain.optimizer(schedule, recipe.weight_decay)
    state = loop.run(
        workdir,
        loop.init(params, optimizer),
        jax.jit(lambda state, batch, key: loop.update(state, batch, key, gradient, optimizer), donate_argnums=0),
        batch if recipe.grounding is None else lambda step: grounding.Both(batch(step), lesson(step)),
        steps=recipe.steps,
        seed=recipe.seed,
        description="pretrain",
        checkpoint_every=recipe.checkpoint_every,
        learning_rate=schedule,
    )
    trained = state.params if recipe.grounding is None else state.params["policy"]
    base.save(workdir / "base", base.make(nnx.merge(graph, trained), tokenizer, statistics, robot))
    print(f"base: {workdir / 'base'}")


def _grounded(
    recipe: Pretraining,
    config: grounding.Grounding,
    workdir: Path,
    model: Policy,
    reads: Preprocessor,
    states: np.ndarray,
    prepare: pretrain.Prepare,
) -> tuple[PyTree, Callable[[int], grounding.Lesson]]:
    """What `grounding.gradient` learns, learned, with the weights of `model`; and the lessons of later steps."""
    workdir.mkdir(exist_ok=True)
    where, cameras, sizes = world(recipe.control.world), recipe.learned.cameras, model.sizes
    known = grounding.kept(
        workdir / "scenes.npz",
        lambda: grounding.scenes(recipe.control, cameras, states, sizes.image, recipe.seed, config.scenes),
    )
    told = [where.instruction(task) for task in where.tasks()]
    lesson = grounding.lessons(known, told, where.things, reads, recipe.seed, config.batch)
    first = lesson(0)
    images = jax.ShapeDtypeStruct((1, len(cameras), sizes.image, sizes.image, 3), "float32")
    width = jax.eval_shape(lambda images: model.encode(images), images).shape[-1]
    graph, weights = nnx.split(model)
    start = {
        "policy": nnx.to_pure_dict(weights),
        "pointers": grounding.pointers(sizes, width, first.points.shape, first.named.shape, recipe.seed),
    }
    schedule = pretrain.schedule(config.learning_rate, config.steps, config.steps // 20)
    optimizer = pretrain.optimizer(schedule, recipe.weight_decay)
    gradient = _seeing(recipe, graph, prepare)
    state = loop.run(
        workdir,
        loop.init(start, optimizer),
        jax.jit(lambda state, batch, key: loop.update(state, batch, key, gradient, optimizer), donate_argnums=0),
        lesson,
        steps=config.steps,
        seed=recipe.seed,
        description="grounding",
        checkpoint_every=recipe.checkpoint_every,
        learning_rate=schedule,
    )
    return state.params, grounding.lessons(known, told, where.things, reads, recipe.seed + 1, config.beside)


def _seeing(recipe: Pretraining, graph: nnx.GraphDef, prepare: pretrain.Prepare) -> loop.Gradient:
    augment = partial(pretrain.augment, shift=0, brightness=recipe.brightness, prepare=prepare)
    return grounding.gradient(graph, augment)
