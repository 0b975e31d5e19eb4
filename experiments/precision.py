"""What bfloat16 costs in accuracy: loss and gradient of theta (float32) against those under float32 weights.

    python experiments/precision.py --policy=lerobot/smolvla_base

phi is kept in bfloat16 with the arithmetic in float32, and then with the arithmetic in bfloat16 as well.
"""

import jax
import jax.numpy as jnp
from absl import flags

from metalora_jax import trees
from metalora_jax.commands import start
from metalora_jax.evaluation.benchmarks import benchmark

_POLICY = flags.DEFINE_string("policy", None, "A policy: a directory, or a name on the hub.", required=True)
_PLACEMENT = flags.DEFINE_string("placement", "", "A preset of the policy's family; empty is the first.")
_B_STD = flags.DEFINE_float("b_std", 0.02, "Spread of the adapters' B, so that A has a gradient too.")

KINDS = (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16"))


def main(_: list[str]) -> None:
    first: tuple | None = None
    print("| phi in | arithmetic in | loss | off by, relative | gradient off by, relative | cosine of the gradients |")
    print("|---|---|---|---|---|---|")
    for stored, computed in KINDS:
        base = benchmark.load(_POLICY.value, param_dtype=stored, dtype=computed)
        placement = base.family.preset(_PLACEMENT.value or base.family.presets[0], b_std=_B_STD.value)
        work = benchmark.Work(base, placement, benchmark.batch_arrays(base.sizes, benchmark.FRAMES))
        loss, gradient = work.loss_and_gradient()
        del base, work  # one policy at a time in memory
        first = first or (loss, gradient)
        norm, own = (float(trees.global_norm(g)) for g in (first[1], gradient))
        apart = float(trees.global_norm(trees.sub(gradient, first[1]))) / norm
        inner = sum(float(jnp.vdot(a, b)) for a, b in zip(*map(jax.tree.leaves, (first[1], gradient)), strict=True))
        off = abs(loss - first[0]) / first[0]
        print(
            f"| {stored} | {computed} | {loss:.5f} | {off:.1e} | {apart:.1e} | {inner / norm / own:.5f} |", flush=True
        )


if __name__ == "__main__":
    start.run(main)
