"""What a reader of a report must know before quoting it."""

from collections.abc import Iterable, Mapping, Sequence

from metalora_jax.evaluation.reports import statistics
from metalora_jax.evaluation.reports.contrasts import REPLAYS, Alteration, Retention, WrongInstruction, grouped
from metalora_jax.evaluation.reports.copies import Cell
from metalora_jax.evaluation.reports.frontier import Frontier
from metalora_jax.evaluation.reports.records import Episode
from metalora_jax.evaluation.reports.sections import Section
from metalora_jax.words import plural


def cautions(
    episodes: Sequence[Episode],
    sections: Sequence[Section],
    kept: Sequence[Retention],
    misled: Sequence[WrongInstruction],
    inputs: Sequence[Alteration],
    tradeoffs: Frontier,
    copies: Mapping[Cell, int],
) -> Iterable[str]:
    """Whole sentences: copies, few episodes or seeds, what was not compared and why, errors."""
    for (method, split), cells in grouped(copies, lambda c: (c.method, f"{c.distribution} / {c.split}")).items():
        steps = ", ".join(map(str, sorted({c.steps for c in cells})))
        yield f"{split}: meta-seeds of {method} repeat each other, episode by episode, at steps {steps}: one counts."
    for section in sections:
        name = f"{section.distribution} / {section.split}"
        fewest = min(point.n for point in section.points)
        yield f"{name}: {statistics.power_note(fewest)}"
        if section.meta_seeds == 1:
            yield f"{name}: there is only one meta-seed; no interval covers the variation between meta-training runs."
        for reason in dict.fromkeys(p.unpaired for p in section.points if p.unpaired):
            yield f"{name}: not compared: {reason}."
    for reason in dict.fromkeys(row.unpaired for row in kept if row.unpaired):
        yield f"retention: not compared: {reason}."
    for gate in tradeoffs.gates:
        if not gate.exact:
            absent = f", {gate.absent} for want of an episode of the base from the same start" if gate.absent else ""
            yield (
                f"gated: in {gate.n - gate.equal} of {plural(gate.n, 'episode')} on earlier tasks {gate.method} is not "
                f"what the base alone is{absent}: retention is not exact."
            )
    for reason in dict.fromkeys(row.unpaired for row in misled if row.unpaired):
        yield f"wrong instruction: not compared: {reason}."
    for reason in dict.fromkeys(row.unpaired for row in inputs if row.unpaired):
        yield f"replaced inputs: not compared: {reason}."
    for row in inputs:
        if row.replays and row.own is not None:
            yield (
                f"{row.method} hardly looks: after {row.steps} steps it solves {100 * row.success:.0f} % with noise "
                f"for pictures, {100 * row.own:.0f} % with true ones (a policy that looks keeps at most "
                f"{100 * REPLAYS:.0f} % of its success)."
            )
    new = {(e.distribution, e.task) for e in episodes if e.split != "base" and e.distribution == "tasks"}
    if any((e.distribution, e.task) in new for e in episodes if e.split == "base"):
        yield "retention: measured on some of the new tasks themselves, not on tasks of pretraining alone."
    if broken := [e.error for e in episodes if e.error is not None]:
        yield (
            f"{len(broken)} of {len(episodes)} episodes ended in an error and count as failures. The first error: "
            f"{broken[0]}."
        )
