"""Plots how the cost of a meta-step grows with tasks, inner steps, frames and noise draws, and MAML's memory.

    python experiments/scaling.py --output=runs/scaling

With the nano SmolVLA and adapters on decoder, action expert and heads; --base selects another.
"""

import json
from pathlib import Path

import jax
from absl import flags

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.learner import learner
from metalora_jax.commands import start
from metalora_jax.evaluation.benchmarks import scaling

_OUTPUT = flags.DEFINE_string("output", None, "Directory for the figure and the raw points.", required=True)
_BASE = flags.DEFINE_string("base", "", "Base directory; empty is the nano SmolVLA in the package.")
_PLACEMENT = flags.DEFINE_string("placement", "", "A preset of the base's family; empty is the first.")
_REPEATS = flags.DEFINE_integer("repeats", 9, "Repeats of each point.", lower_bound=1)


def main(_: list[str]) -> None:
    output = Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    base = bases.load(_BASE.value or None)
    placement = base.family.preset(_PLACEMENT.value or base.family.presets[0], b_std=0.02)
    learn = learner(base, placement, jax.random.key(0))
    points = [*scaling.time_points(base, learn, _REPEATS.value), *scaling.memory_points(base, learn)]
    (output / "raw.json").write_text(json.dumps(points, indent=1) + "\n")
    scaling.figure(points).savefig(output / "scaling.png")
    for name in scaling.VARIED:
        chosen = [point for point in points if point["varied"] == name]
        slope, intercept, r2 = scaling.straight_line([p["value"] for p in chosen], [p["cpu_seconds"] for p in chosen])
        print(f"{name + ':':8} {intercept:.3f} + {slope:.3f} CPU-s each, R² = {r2:.4f}")
    print(f"figure:  {output / 'scaling.png'}\nraw:     {output / 'raw.json'}")


if __name__ == "__main__":
    start.run(main)
