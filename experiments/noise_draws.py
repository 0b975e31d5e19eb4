"""How much the variance of an adapter's gradient falls with the noise draws per frame, and what they cost.

    python experiments/noise_draws.py --config=configs/metaworld_conditions.py

One minibatch of one task under one hidden condition; only the draws of (t, noise) differ between the gradients, which
is the noise that more draws can reduce. Ends with a table.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from metalora_jax import trees
from metalora_jax.adaptation import frozen_front
from metalora_jax.adaptation.learner import loss_fn
from metalora_jax.commands import start
from metalora_jax.training import meta_train, task_batches
from metalora_jax.training.recipe import Recipe

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_DRAWS = flags.DEFINE_list("draws", ["1", "2", "4", "8", "16"], "Values of M.")
_REPEATS = flags.DEFINE_integer("repeats", 100, "Gradients for each M.", lower_bound=2)


def main(_: list[str]) -> None:
    recipe = Recipe.from_config(_CONFIG.value.to_dict())
    [task] = tasks = recipe.data.tasks[:1]
    recipe = recipe._replace(data=recipe.data._replace(tasks=tasks))
    known = meta_train.setting(recipe)
    frozen = frozen_front.frozen_output(known.base, known.frames, known.learner.stage)
    rng = np.random.default_rng(recipe.seed)
    relabel = meta_train.relabel_of(recipe.conditions.sample(rng, "train") if recipe.conditions else None)
    rows = task_batches.query_rows(known.frames, task, [0], relabel, recipe.batch.frames, rng)
    batch, theta = task_batches.fill(rows, frozen), known.learner.theta
    print("| draws M | variance over squared norm of the mean | times M, against M = 1 | ms a gradient |")
    print("|---|---|---|---|")
    first = None
    for draws in map(int, _DRAWS.value):
        gradient = jax.jit(jax.grad(loss_fn(known.learner, draws=draws)))
        jax.block_until_ready(gradient(theta, batch, jax.random.key(0)))
        start = time.perf_counter()
        found = [gradient(theta, batch, jax.random.key(i)) for i in range(_REPEATS.value)]
        jax.block_until_ready(found)
        cost = 1000 * (time.perf_counter() - start) / len(found)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
        mean = jax.tree.map(lambda x: x.mean(axis=0), stacked)
        spread = sum(float(x.var(axis=0, ddof=1).sum()) for x in jax.tree.leaves(stacked))
        ratio = spread / float(trees.global_norm(mean)) ** 2
        first = first or spread * draws
        print(f"| {draws} | {ratio:.3f} | {spread * draws / first:.2f} | {cost:.1f} |")


if __name__ == "__main__":
    start.run(main)
