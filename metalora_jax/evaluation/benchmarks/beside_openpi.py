"""pi0's benchmark beside openpi: its frames, and its table of LoRA steps, memory, and what the frozen front keeps."""

import dataclasses
import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import build
from metalora_jax.policies.pi0.operations import operations
from metalora_jax.policies.policy import STAGES, Stage
from metalora_jax.policies.stages import advance
from metalora_jax.types import Observation, PyTree
from metalora_jax.words import plural

OURS: dict[str, dict[str, Any]] = {
    "expert": {"placement": "expert", "rank": 32},
    "decoder_expert": {"placement": "openpi", "rank": None},
}
"""Side of the benchmark -> placement preset and rank; the ranks are openpi's."""

OPENPI, FAIR = "openpi", "openpi_frozen_vision"
SIDES = (OPENPI, FAIR, *OURS)


class Row(NamedTuple):
    """A line of the table."""

    title: str
    side: str
    work: str
    bar: float | None = None  # how many times faster than openpi it is to be


ROWS = (
    Row("openpi, as it is", OPENPI, "step"),
    Row("openpi, vision tower frozen too", FAIR, "step"),
    Row("ours, expert only, warm", "expert", "warm", 15.0),
    Row("the same, cold", "expert", "cold"),
    Row("ours, decoder + expert, warm", "decoder_expert", "warm", 3.0),
    Row("the same, cold", "decoder_expert", "cold"),
)


def batch(config: Pi0Config, frames: int) -> dict[str, np.ndarray]:
    """Made-up frames with three cameras, as arrays that both sides read."""
    rng = np.random.default_rng(0)
    pictures = (frames, config.cameras, config.image_size, config.image_size, 3)
    return dict(
        images=rng.uniform(-1, 1, pictures).astype(np.float32),
        image_mask=np.ones(pictures[:2], bool),
        tokens=rng.integers(3, config.vocab_size, (frames, config.max_tokens)).astype(np.int32),
        token_mask=np.ones((frames, config.max_tokens), bool),
        state=rng.normal(size=(frames, config.action_dim)).astype(np.float32),
        actions=rng.normal(size=(frames, config.horizon, config.action_dim)).astype(np.float32),
    )


def table(raw: Mapping[str, Any]) -> str:
    """The raw figures of `experiments/benchmark_pi0.py` as Markdown; ratios are of processor seconds.

    Args:
      raw: "sizes" (fields of `Pi0Config`), "frames", "cores", "steps", and of every side what its `prepare` told.
    """
    sizes, steps = raw["sizes"], raw["steps"]
    loads = sorted(step["load"] for step in steps)
    lines = [
        f"pi0's widths, {sizes['layers']} of 18 layers of Gemma, {sizes['vision_layers']} of 27 of SigLIP, "
        f"{sizes['vocab_size']} tokens; {plural(raw['frames'], 'frame')} a step, three cameras; {raw['cores']} cores, "
        f"load {loads[0]:.1f} to {loads[-1]:.1f}. Medians, least and most; memory is the highest of all steps.",
        "",
        "| LoRA step | trained | CPU-s | wall, s | faster than openpi | than openpi, tower frozen | bar | GiB | n |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rivals = [_seconds(steps, side, "step", "cpu") for side in (OPENPI, FAIR)]
    for row in ROWS:
        cpu, wall = (_seconds(steps, row.side, row.work, clock) for clock in ("cpu", "wall"))
        if not cpu:
            lines.append(f"| {row.title} | not measured |" + " |" * 7)
            continue
        times = [f"{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in (cpu, wall)]
        faster = [f"{statistics.median(x) / statistics.median(cpu):.1f}" if x else "" for x in rivals]
        peak = max(step["peak_gib"] for step in steps if (step["side"], step["work"]) == (row.side, row.work))
        bar = "" if row.bar is None else f"{row.bar:.0f}"
        cells = [row.title, f"{raw[row.side]['trained']:,}", *times, *faster, bar, f"{peak:.1f}", str(len(cpu))]
        lines.append(f"| {' | '.join(cells)} |")
    measured, whole = Pi0Config.pi0_base(**sizes), Pi0Config.pi0_base()
    lines += ["", "By operations alone, of the linear maps and attention, a warm step is faster than openpi's:", ""]
    lines += ["| | expert only | than openpi, tower frozen | decoder + expert | than openpi, tower frozen |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for title, config in (("at the measured depth", measured), ("at pi0's depth", whole)):
        cost = step_operations(config)
        ratios = [f"{cost[rival] / cost[side]:.1f}" for side in OURS for rival in (OPENPI, FAIR)]
        lines.append(f"| {title} | {' | '.join(ratios)} |")
    lines += ["", "What the frozen front keeps of a frame with three cameras:", ""]
    lines += ["| | features (decoder + expert) | context (expert only) |", "|---|---:|---:|"]
    half = Pi0Config.pi0_base(dtype="bfloat16", param_dtype="bfloat16")
    for title, config in (("as measured", measured), ("pi0, float32", whole), ("pi0, bfloat16", half)):
        kept = kept_bytes(config)
        lines.append(f"| {title} | {kept['features'] / 1e6:.1f} MB | {kept['context'] / 1e6:.1f} MB |")
    return "\n".join(lines) + "\n"


def _seconds(steps: list[Mapping[str, Any]], side: str, work: str, clock: str) -> list[float]:
    return [step[clock] for step in steps if (step["side"], step["work"]) == (side, work)]


def step_operations(config: Pi0Config) -> dict[str, float]:
    """Floating-point operations of a frame in a warm step, by side; norms, softmax and the adapters are not counted.

    openpi computes every layer a second time for the gradient, trains the tower's weights unless it is frozen, and runs
    the decoder's last layer whole. Ours keeps what the gradient needs.
    """
    ops = operations(config, config.cameras)
    rest, keys = (operations(dataclasses.replace(config, layers=n), config.cameras) for n in (config.layers + 1, 1))
    condition, attention = rest.condition - keys.condition, rest.condition_attention
    expert = ops.velocity + ops.velocity_backward
    theirs = 3 * condition + attention + expert + ops.velocity
    return {
        OPENPI: 4 * ops.encode + theirs,
        FAIR: ops.encode + theirs,
        "expert": expert,
        "decoder_expert": ops.condition + ops.condition_backward + expert,
    }


def kept_bytes(config: Pi0Config) -> dict[str, int]:
    """What the frozen front keeps of one frame, by the stage that it ends at; nothing is computed."""
    graph, params = nnx.split(nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0))))
    image = (1, config.cameras, config.image_size, config.image_size, 3)

    def front(params: PyTree, stage: Stage) -> PyTree:
        tokens = jnp.zeros((1, config.max_tokens), jnp.int32)
        seen = Observation(
            jnp.zeros(image), jnp.ones(image[:2], bool), tokens, tokens == 0, jnp.zeros((1, config.action_dim))
        )
        return advance(nnx.merge(graph, params), seen, stage)

    shapes = {stage: jax.eval_shape(partial(front, stage=stage), params) for stage in STAGES[1:]}
    return {
        stage: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)) for stage, kept in shapes.items()
    }
