"""The benchmark's table: what was measured, held against the peer and against the arithmetic that must be done."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from metalora_jax.evaluation.benchmarks.benchmark import CAMERAS, FRAMES, STEPS, TASKS
from metalora_jax.policies.smolvla.config import SmolVLAConfig


class Operations(NamedTuple):
    """Floating-point operations of one frame, forward; norms, softmax and the adapters themselves are not counted."""

    vision: float
    text: float
    expert: float
    text_attention: float  # part of `text`
    expert_attention: float  # part of `expert`

    @property
    def text_backward(self) -> float:
        """Gradients of the activations: as much as the linear maps, twice the attention; frozen weights need none."""
        return self.text + self.text_attention

    @property
    def expert_backward(self) -> float:
        """The same for the expert."""
        return self.expert + self.expert_attention


def operations(config: SmolVLAConfig) -> Operations:
    """Of the sizes of a config, with CAMERAS cameras."""
    patches, d, m = config.grid**2, config.vision_hidden, config.vision_mlp
    vision_layer = 2 * patches * (4 * d * d + 2 * d * m) + 4 * patches**2 * d
    stem = 2 * patches * 3 * config.patch_size**2 * d
    connector = 2 * config.image_tokens * d * config.pixel_shuffle**2 * config.text_hidden
    vision = CAMERAS * (config.vision_layers * vision_layer + stem + connector)
    prefix = CAMERAS * config.image_tokens + config.max_tokens + 1
    h, kv, q = config.text_hidden, config.kv_width, config.heads * config.head_dim
    text_attention = (config.layers - 1) * 4 * prefix**2 * q
    text_maps = (config.layers - 1) * (2 * h * q + 2 * h * kv + 3 * h * config.text_mlp) + 2 * h * kv
    text = 2 * prefix * text_maps + text_attention
    tokens, e = config.chunk_size, config.expert_hidden
    own = tokens * (2 * e * q + 3 * e * config.expert_mlp)
    self_maps = len(config.self_layers) * (own + 2 * tokens * e * kv)
    cross_maps = len(config.cross_layers) * (own + 2 * prefix * kv * kv)
    heads = tokens * (2 * e * config.max_action_dim + 3 * e * e)
    keys = len(config.self_layers) * (prefix + tokens) + len(config.cross_layers) * prefix
    expert_attention = 4 * tokens * keys * q
    expert = 2 * (self_maps + cross_maps + heads) + expert_attention
    return Operations(vision, text, expert, text_attention, expert_attention)


class Row(NamedTuple):
    """A line of the table: two pieces of work that are held against each other."""

    title: str
    placement: str
    ours: str
    peer: str
    bar: float | None
    floor: Callable[[Operations], float]  # operations that the warm work cannot do without


def _step(ops: Operations) -> float:
    return FRAMES * (ops.text + ops.text_backward + ops.expert + ops.expert_backward)


def _expert_step(ops: Operations) -> float:
    return FRAMES * (ops.expert + ops.expert_backward)


_PASSES = TASKS * (STEPS + 1)
ROWS = (
    Row("LoRA step, decoder + expert, warm", "plan", "step", "step", 3.5, _step),
    Row("the same, cold", "plan", "step_cold", "step", 1.0, lambda ops: _step(ops) + FRAMES * ops.vision),
    Row("the same, warm; peer with cached vision", "plan", "step", "step_cached_vision", None, _step),
    Row("LoRA step, expert only, warm", "expert", "step", "step", 20.0, _expert_step),
    Row("FOMAML meta-step, warm", "plan", "meta_step", "meta_step", 3.5, lambda ops: _PASSES * _step(ops)),
    Row(
        "the same, cold",
        "plan",
        "meta_step_cold",
        "meta_step",
        1.8,
        lambda ops: _PASSES * _step(ops) + 2 * TASKS * FRAMES * ops.vision,
    ),
    Row(
        "10-step action chunk, batch 1",
        "plan",
        "sample",
        "sample",
        1.5,
        lambda ops: ops.vision + ops.text + 10 * ops.expert,
    ),
)


def table(raw: Sequence[Mapping[str, Any]], ops: Operations, clock: Literal["cpu", "wall"] = "cpu") -> str:
    """The raw figures as Markdown: medians of both, their ratio, memory, and the share of the arithmetic's floor.

    Ratios and the floor go by processor seconds on a CPU, and by the clock on the wall on an accelerator.
    """
    matmul = [r for r in raw if r["work"] == "matmul"]
    ours, peer = (max((r[clock] for r in matmul if r["side"] == side), default=0.0) for side in ("ours", "peer"))
    columns = ("work", "ours, CPU-s", "wall, s", "peer, CPU-s", "wall, s", "faster", "bar", "of the floor")
    unit = "processor second" if clock == "cpu" else "second"
    size, dtype = matmul[0]["size"], matmul[0]["dtype"]
    lines = [
        f"Ceiling, a product of {size} x {size} matrices in {dtype}: JAX {ours / 1e9:.0f}, torch {peer / 1e9:.0f} "
        f"billion operations a {unit}. Floor: the operations of the model (adapters, norms and softmax not counted; "
        "nothing computed twice) over the higher of the two; on an accelerator its share is the model FLOP "
        "utilisation. Medians; memory is the highest.",
        "",
        f"| {' | '.join(columns)} | GiB, ours / peer | n |",
        f"|---|{'---:|' * (len(columns) + 1)}",
    ]
    for row in ROWS:
        sides = [
            [r for r in raw if (r.get("placement"), r["side"], r["work"]) == (row.placement, side, work)]
            for side, work in (("ours", row.ours), ("peer", row.peer))
        ]
        mine, theirs = sides
        if not mine:
            lines.append(f"| {row.title} | not measured |" + " |" * len(columns))
            continue
        floor = 100 * row.floor(ops) / max(ours, peer) / _median(mine, clock)
        faster = f"{_median(theirs, clock) / _median(mine, clock):.1f}" if theirs else ""
        memory = " / ".join(f"{max(r['peak_gib'] for r in side):.1f}" if side else "" for side in sides)
        seconds = [f"{_median(side, key):.2f}" if side else "" for side in sides for key in ("cpu", "wall")]
        cells = [row.title, *seconds, faster, "" if row.bar is None else f"{row.bar:.1f}", f"{floor:.0f} %", memory]
        lines.append(f"| {' | '.join(cells)} | {len(mine)} |")
    if scaled := {r["scaled"] for r in raw if r.get("scaled", 1) != 1}:
        lines.append(
            f"\nThe peer's meta-step was run for {TASKS / max(scaled):.0f} of its {TASKS} tasks, and scaled up."
        )
    for r in raw:
        if r["work"] == "largest_meta_batch":
            lines.append(f"\nLargest meta-batch that fits ({r['placement']}): {r['tasks']} tasks.")
    lines.append("\nA PyTorch user could cache the vision features as well: the third row holds us against that.")
    return "\n".join(lines) + "\n"


def _median(records: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.median(record[key] for record in records)
