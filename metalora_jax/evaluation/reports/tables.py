"""The tables of a report, from its numbers to the text of their cells."""

from collections.abc import Iterator, Sequence

from metalora_jax.evaluation.alterations import meaning
from metalora_jax.evaluation.reports.contrasts import Alteration, Retention, WrongInstruction
from metalora_jax.evaluation.reports.document import Table
from metalora_jax.evaluation.reports.frontier import Frontier, Rate, Tradeoff
from metalora_jax.evaluation.reports.points import Point
from metalora_jax.evaluation.reports.power import Power
from metalora_jax.evaluation.reports.provenance import Carrier, Standing
from metalora_jax.evaluation.reports.sections import Section
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.statistics import Interval
from metalora_jax.words import plural

NONE = "–"


def success_table(section: Section, shots: int, settings: Settings) -> Table:
    """Success over gradient steps on `shots` demonstrations, one row a method."""
    curves = {m: {p.steps: p for p in section.curve(m, shots)} for m in section.methods}
    steps = sorted({k for curve in curves.values() for k in curve})
    shown = {m: [curve.get(k) for k in steps] for m, curve in curves.items() if curve}
    return Table(
        ["", *(plural(k, "step") for k in steps)],
        [[_row_name(m, row, settings), *(_success_text(point) for point in row)] for m, row in shown.items()],
        [[None, *(None if point is None else point.success for point in row)] for row in shown.values()],
    )


def _row_name(method: str, row: Sequence[Point | None], settings: Settings) -> str:
    level = any(point is not None and point.level for point in row)
    return named(method, settings) + ("\nno gradient steps: one result" if level else "")


def _success_text(point: Point | None) -> str:
    if point is None:
        return NONE
    text = f"{percent(point.success)}\n{between(point.wilson)}, n {point.n}"
    if point.copies:
        text += f"\none of {point.copies + 1} equal meta-seeds"
    if point.versus is not None and point.p_holm is not None:
        text += f"\n+{point.versus.wins} -{point.versus.losses}, {p_text(point.p_holm)}"
    return text + ("\nnot paired" if point.unpaired else "")


def threshold_table(section: Section, settings: Settings) -> Table:
    """Gradient steps to each success rate."""
    columns = [(k, t) for t in settings.thresholds for k in section.shots]
    found = {
        (row.method, row.shots, row.threshold): _reached(row.steps, row.steps_by_lower_bound)
        for row in section.thresholds
    }
    methods = dict.fromkeys(row.method for row in section.thresholds)
    return Table(
        ["", *(f"{percent(t)}, {plural(k, 'demo')}" for k, t in columns)],
        [[named(m, settings), *(found.get((m, k, t), NONE) for k, t in columns)] for m in methods],
    )


def efficiency_table(section: Section, settings: Settings) -> Table:
    """Demonstrations to each success rate."""
    found = {
        (row.method, row.threshold): _reached(row.shots, row.shots_by_lower_bound) for row in section.sample_efficiency
    }
    methods = dict.fromkeys(row.method for row in section.sample_efficiency)
    return Table(
        ["", *(percent(t) for t in settings.thresholds)],
        [[named(m, settings), *(found[m, t] for t in settings.thresholds)] for m in methods],
    )


def power_table(section: Section, settings: Settings) -> Table:
    """Power of the comparisons at the section's headline steps, or of all where there are none."""

    def line(row: Power) -> list[str]:
        gain = "none" if row.gain is None else f"{100 * row.gain:.0f} points"
        needed = NONE if row.needed is None else str(row.needed)
        numbers = [str(v) for v in (row.shots, row.steps, row.pairs)]
        seen = [percent(row.discordant), f"{row.alpha:.2g}", gain, f"{100 * row.observed:+.0f} points", needed]
        return [named(row.method, settings), *numbers, *seen]

    head = ["method", "demos", "steps", "pairs", "discordant", "level", "detectable", "observed", "pairs needed"]
    shown = [row for row in section.power if row.steps == section.shots_steps]
    return Table(head, [line(row) for row in shown or section.power])


def _reached(estimate: int | None, bound: int | None) -> str:
    # The lower bound is never above the estimate: if the estimate does not reach the rate, neither does the bound.
    if estimate is None:
        return "not reached"
    return f"{estimate}\nlower bound: {'not reached' if bound is None else bound}"


def clock_table(section: Section, settings: Settings) -> Table:
    """Seconds for one adaptation."""
    steps = sorted({row.steps for row in section.wall_clock})
    found = {(row.method, row.shots, row.steps): row for row in section.wall_clock}
    text = {key: f"{row.median:.3g}\n{row.low:.3g} to {row.high:.3g}, n {row.n}" for key, row in found.items()}
    lines = dict.fromkeys((row.method, row.shots) for row in section.wall_clock)
    return Table(
        ["method", "demos", *(plural(k, "step") for k in steps)],
        [[named(m, settings), str(shots), *(text.get((m, shots, k), NONE) for k in steps)] for m, shots in lines],
    )


def point_table(section: Section, settings: Settings, title: str) -> Table:
    """Every point, folded under `title`."""

    def row(p: Point) -> list[str]:
        clustered = NONE if p.clustered is None else between(p.clustered)
        versus = [NONE] * 3 if p.versus is None else [str(p.versus.wins), str(p.versus.losses), f"{p.versus.p:.2g}"]
        adjusted = NONE if p.p_holm is None else f"{p.p_holm:.2g}"
        steps = f"none; reference {p.steps}" if p.level else str(p.steps)
        numbers = [str(p.shots), steps, *(str(v) for v in (p.n, p.errors, p.successes))]
        rates = [percent(p.success), between(p.wilson), clustered]
        return [named(p.method, settings), *numbers, *rates, *versus, adjusted]

    head = ["method", "demos", "steps", "n", "errors", "solved", "success", "Wilson", "clustered"]
    return Table([*head, "+", "-", "p", "p Holm"], [row(point) for point in section.points], folded=title)


def retention_table(rows: Sequence[Retention], settings: Settings) -> Table:
    """Success on tasks of pretraining, with the adapter on and off."""

    def line(r: Retention) -> list[str]:
        cell = [named(r.method, settings), r.distribution, str(r.shots), str(r.steps)]
        on = f"{percent(r.on)}\n{between(r.on_interval)}, n {r.n}"
        if r.off is None or r.off_interval is None or r.versus is None:
            return [*cell, on, NONE, NONE, NONE, "not paired"]
        off = f"{percent(r.off)}\n{between(r.off_interval)}"
        change = f"{100 * (r.on - r.off):+.0f} points\n+{r.versus.wins} -{r.versus.losses}"
        return [*cell, on, off, change, NONE if r.kept is None else percent(r.kept), p_text(r.versus.p)]

    head = ["method", "adapted to", "demos", "steps", "adapter on", "adapter off", "change", "kept", "exact McNemar"]
    return Table(head, [line(row) for row in rows])


def frontier_table(found: Frontier, settings: Settings) -> Table:
    """Success on new tasks and on earlier ones, of each method as adapted, scaled and gated."""
    exact = {(g.method, g.distribution, g.shots, g.steps): g for g in found.gates if g.exact}

    def rate(r: Rate) -> str:
        return f"{percent(r.success)}\n{between(r.interval)}, n {r.n}"

    def lines(r: Tradeoff) -> Iterator[list[str]]:
        key = (r.method, r.distribution, r.shots, r.steps)
        cell = [named(r.method, settings), r.distribution, str(r.shots), str(r.steps)]
        base, kept = (NONE if share is None else percent(share) for share in (r.base, r.kept))
        yield [*cell, f"{r.scale:g}", rate(r.new), rate(r.earlier), base, kept]
        if r.scale == 1 and (gate := exact.get(key)):
            shown = f"as the base\n{gate.equal} of {plural(gate.n, 'episode')} equal"
            yield [*cell, "1, gated", rate(r.new), shown, base, "all"]

    head = ["method", "adapted to", "demos", "steps", "scale", "new tasks", "earlier tasks", "base on these", "kept"]
    return Table(head, [line for row in found.rows for line in lines(row)])


def instruction_table(rows: Sequence[WrongInstruction], settings: Settings) -> Table:
    """Success of adapted policies with another task's instruction and with their own."""

    def line(r: WrongInstruction) -> list[str]:
        cell = [named(r.method, settings), f"{r.distribution}, {r.split}", str(r.shots), str(r.steps)]
        wrong = f"{percent(r.wrong)}\n{between(r.wrong_interval)}, n {r.n}"
        if r.own is None or r.own_interval is None or r.versus is None:
            return [*cell, wrong, NONE, NONE, "not paired"]
        own = f"{percent(r.own)}\n{between(r.own_interval)}"
        change = f"{100 * (r.wrong - r.own):+.0f} points\n+{r.versus.wins} -{r.versus.losses}"
        return [*cell, wrong, own, change, p_text(r.versus.p)]

    head = ["method", "split", "demos", "steps", "other instruction", "own instruction", "change", "exact McNemar"]
    return Table(head, [line(row) for row in rows])


def alterations_table(rows: Sequence[Alteration], settings: Settings) -> Table:
    """Success of policies with one of their inputs replaced and with all as they are."""

    def line(r: Alteration) -> list[str]:
        cell = [
            meaning(r.altered),
            named(r.method, settings),
            f"{r.distribution}, {r.split}",
            str(r.shots),
            str(r.steps),
        ]
        rate = f"{percent(r.success)}\n{between(r.interval)}, n {r.n}"
        if r.own is None or r.own_interval is None or r.versus is None:
            return [*cell, rate, NONE, NONE, "not paired"]
        own = f"{percent(r.own)}\n{between(r.own_interval)}"
        change = f"{100 * (r.success - r.own):+.0f} points\n+{r.versus.wins} -{r.versus.losses}"
        return [*cell, rate, own, change, p_text(r.versus.p)]

    head = ["the policy gets", "method", "split", "demos", "steps", "so", "as it is", "change", "exact McNemar"]
    return Table(head, [line(row) for row in rows])


def inputs_table(standing: Standing) -> Table:
    """One row for each fingerprint: the first digits of every digest, which provenance.jsonl has in full."""

    def row(carrier: Carrier) -> list[str]:
        line = standing.lines[carrier.fingerprint]
        made = line.inputs
        data = [made.data.get(split) for split in ("training", "validation", "test")]
        digests = [made.code, made.config, made.base, made.statistics, made.adapter, *data]
        commit = NONE if line.commit is None else line.commit[:12] + (", modified" if line.changed else "")
        known = [carrier.fingerprint[:12], carrier.method, str(carrier.meta_seed), str(carrier.episodes), commit]
        return [*known, *(NONE if digest is None else digest[:12] for digest in digests)]

    head = ["fingerprint", "method", "meta-seed", "episodes", "commit", "code", "config", "base", "statistics"]
    head += ["adapter", "training data", "validation data", "test data"]
    return Table(head, [row(carrier) for carrier in standing.carriers], folded="Inputs by fingerprint")


def named(method: str, settings: Settings) -> str:
    """The name that a report shows."""
    return settings.labels.get(method, method)


def percent(rate: float) -> str:
    """`64 %`."""
    return f"{100 * rate:.0f} %"


def between(interval: Interval) -> str:
    """`53 to 73 %`."""
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"


def p_text(p: float) -> str:
    """`p = 0.012`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
