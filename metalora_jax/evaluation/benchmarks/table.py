"""The benchmark's table: what was measured, held against the peer and against the arithmetic that must be done."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from metalora_jax.evaluation.benchmarks.benchmark import FRAMES, STEPS, TASKS
from metalora_jax.policies.policy import Operations


class Row(NamedTuple):
    """A line of the table: two pieces of work that are held against each other."""

    title: str
    placement: str
    ours: str
    peer: str
    bar: float | None
    floor: Callable[[Operations], float]  # operations that the warm work cannot do without


def _step(ops: Operations) -> float:
    return FRAMES * (ops.condition + ops.condition_backward + ops.velocity + ops.velocity_backward)


def _expert_step(ops: Operations) -> float:
    return FRAMES * (ops.velocity + ops.velocity_backward)


_PASSES = TASKS * (STEPS + 1)
ROWS = (
    Row("LoRA step, decoder + expert, warm", "plan", "step", "step", 3.5, _step),
    Row("the same, cold", "plan", "step_cold", "step", 1.0, lambda ops: _step(ops) + FRAMES * ops.encode),
    Row("the same, warm; peer with cached vision", "plan", "step", "step_cached_vision", None, _step),
    Row("LoRA step, expert only, warm", "expert", "step", "step", 20.0, _expert_step),
    Row("FOMAML meta-step, warm", "plan", "meta_step", "meta_step", 3.5, lambda ops: _PASSES * _step(ops)),
    Row(
        "the same, cold",
        "plan",
        "meta_step_cold",
        "meta_step",
        1.8,
        lambda ops: _PASSES * _step(ops) + 2 * TASKS * FRAMES * ops.encode,
    ),
    Row(
        "10-step action chunk, batch 1",
        "plan",
        "sample",
        "sample",
        1.5,
        lambda ops: ops.encode + ops.condition + 10 * ops.velocity,
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
