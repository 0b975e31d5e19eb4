"""How much the variance of an adapter's gradient falls with the flow draws per frame, and what they cost.

    python experiments/flow_draws.py --config=configs/metaworld_conditions.py

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
from metalora_jax.training import command, meta_train, task_batches

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_DRAWS = flags.DEFINE_list("draws", ["1", "2", "4", "8", "16"], "Values of M.")
_REPEATS = flags.DEFINE_integer("repeats", 100, "Gradients for each M.", lower_bound=2)


def main(_: list[str]) -> None:
    config = _CONFIG.value.to_dict()
    config["data"]["tasks"] = config["data"]["tasks"][:1]
    known = meta_train.setting(config)
    bank = frozen_front.frozen_bank(known.base, known.frames, known.learner.stage)
    rng = np.random.default_rng(config["seed"])
    relabel = meta_train.relabel_of(known.conditions.sample(rng, "train") if known.conditions else None)
    rows = task_batches.query_rows(known.frames, config["data"]["tasks"][0], [0], relabel, known.batch.frames, rng)
    batch, theta = task_batches.fill(rows, bank), known.learner.theta
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
    command.run(main)
