"""Figures of a report: from summary numbers to matplotlib figures, which the caller saves."""

import dataclasses
import math
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from metalora_jax.evaluation.reports.contrasts import grouped
from metalora_jax.evaluation.reports.frontier import Frontier, Gate, Tradeoff
from metalora_jax.evaluation.reports.points import Point
from metalora_jax.evaluation.reports.sections import Section
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.statistics import Interval
from metalora_jax.words import plural

# Okabe and Ito's colours, which all common kinds of colour vision tell apart, without their yellow (too pale on white).
# The reference method, which a report is about, is strong and blue; markers repeat the distinction in print.
COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("s", "D", "^", "v", "P")
INK, FAINT, REFERENCE = "#222222", "#E8E8E8", "#0072B2"
STYLE: Any = {  # Any: matplotlib types its parameters by name
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#AAAAAA",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "savefig.dpi": 170,
}


class Mark(NamedTuple):
    """One estimate of a curve: its place on the x axis, and its value and interval [%]."""

    x: float
    y: float
    interval: Interval
    level: bool = False  # of a method that takes no steps


Curve = tuple[str, list[Mark]]  # method, marks by x


def section_figures(section: Section, settings: Settings) -> dict[str, Figure]:
    """All figures of one section by file name; those without data are left out.

    Where the settings name groups of methods, each has figures of its own.
    """
    figures: dict[str, Figure] = {}
    for group, methods in (settings.groups or {"": section.methods}).items():
        shown = dataclasses.replace(section, points=tuple(p for p in section.points if p.method in methods))
        stem = "_".join(filter(None, (section.distribution, section.split, re.sub(r"\W+", "-", group))))
        if not shown.points:
            continue
        figures[f"success_vs_steps_{stem}.png"] = success_vs_steps(shown, settings)
        if section.shots_steps is not None:
            figures[f"success_vs_shots_{stem}.png"] = success_vs_shots(shown, settings)
    return figures


def success_vs_steps(section: Section, settings: Settings) -> Figure:
    """Success rate [%] over gradient steps with 95 % Wilson intervals, one panel for each number of demonstrations."""
    panels = [
        [
            (method, [_mark(math.log1p(p.steps), p) for p in curve])
            for method in section.methods
            if (curve := section.curve(method, shots))
        ]
        for shots in section.shots
    ]
    last_panel = {method: i for i, panel in enumerate(panels) for method, _ in panel}
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(0.6 + 3.0 * len(panels) + _label_width(section.methods, settings), 3.8), layout="constrained"
        )
        row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        span = math.log1p(max(point.steps for point in section.points)) or 1.0
        panels = [_dodge(curves, 0.012 * span) for curves in panels]
        for axes, curves, shots in zip(row, panels, section.shots, strict=True):
            _draw(axes, curves, section.methods, settings)
            _steps_ticks(axes, sorted({point.steps for point in section.points}), span)
            axes.set_title(plural(shots, "demonstration"))
            axes.set_xlabel("gradient steps")
            _percent_axis(axes)
        row[0].set_ylabel("success rate")
        for i, (axes, curves) in enumerate(zip(row, panels, strict=True)):
            _label_ends(axes, [c for c in curves if last_panel[c[0]] == i], section.methods, settings)
        counts = _counts(section.points)
        dashed = " Dashed: no gradient steps, one result." if any(p.level for p in section.points) else ""
        _caption(figure, f"Bars: 95 % Wilson intervals; {counts} per point. Horizontal axis: log(1 + steps).{dashed}")
        return figure


def success_vs_shots(section: Section, settings: Settings) -> Figure:
    """Success rate [%] over demonstrations, after the same number of gradient steps for all methods."""
    by_method = {method: section.shots_curve(method) for method in section.methods}
    shots = sorted({point.shots for curve in by_method.values() for point in curve})
    place = {k: float(i) for i, k in enumerate(shots)}  # evenly spaced: a handful of choices, not a measure
    curves = [
        (method, [_mark(place[p.shots], p)._replace(level=False) for p in curve])
        for method, curve in by_method.items()
        if curve
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 + _label_width(section.methods, settings), 3.8), layout="constrained")
        axes = figure.subplots()
        curves = _dodge(curves, 0.015 * max(1, len(shots) - 1))
        _draw(axes, curves, section.methods, settings)
        axes.set_xticks(list(place.values()), [str(k) for k in shots])
        axes.set_xlabel("demonstrations")
        axes.set_ylabel("success rate")
        _percent_axis(axes)
        _label_ends(axes, curves, section.methods, settings)
        steps = plural(section.shots_steps or 0, "gradient step")
        counts = _counts(point for curve in by_method.values() for point in curve)
        _caption(figure, f"After {steps} (none at 0 demonstrations). Bars: 95 % Wilson intervals; {counts} per point.")
        return figure


def frontier_figures(found: Frontier, settings: Settings) -> dict[str, Figure]:
    """Success on new tasks over that on earlier ones, by file name: one for each distribution, shots and steps."""
    adapted = grouped((r for r in found.rows if r.scale), lambda r: (r.distribution, r.shots, r.steps))
    figures = {}
    for (distribution, shots, steps), rows in adapted.items():
        base = next((r for r in found.rows if not r.scale and r.distribution == distribution), None)
        exact = {
            g.method: g
            for g in found.gates
            if g.exact and (g.distribution, g.shots, g.steps) == (distribution, shots, steps)
        }
        figures[f"frontier_{distribution}_{shots}_shot_{steps}_steps.png"] = _frontier(rows, base, exact, settings)
    return figures


def _frontier(rows: Sequence[Tradeoff], base: Tradeoff | None, exact: Mapping[str, Gate], settings: Settings) -> Figure:
    """A curve for each method: from the frozen base over its scaled change to the adapted policy."""
    methods = list(dict.fromkeys(row.method for row in rows))
    start = [] if base is None else [base]
    curves = {m: [*start, *sorted((r for r in rows if r.method == m), key=lambda r: r.scale)] for m in methods}
    marks = [(method, [_tradeoff_mark(row) for row in curve]) for method, curve in curves.items()]
    with mpl.rc_context(STYLE | {"axes.grid.axis": "both", "axes.spines.bottom": False}):
        figure = Figure(figsize=(5.0 + _label_width(methods, settings), 4.8), layout="constrained")
        axes = figure.subplots()
        _draw(axes, marks, methods, settings)
        for method, curve in curves.items():
            colour = _look(method, methods, settings)["color"]
            for row in curve[len(start) :]:
                x, y = 100 * row.earlier.success, 100 * row.new.success
                axes.plot([100 * end for end in row.earlier.interval], [y, y], color=colour, linewidth=1.1, alpha=0.4)
                note: Any = {"textcoords": "offset points", "fontsize": 7, "color": colour, "zorder": 50}
                axes.annotate(f"{row.scale:g}", (x, y), (4, 4), **note)
            if method in exact and curve[-1].base is not None and curve[-1].scale == 1:
                hollow: Any = {"markersize": 8, "markerfacecolor": "none", "markeredgecolor": colour, "zorder": 45}
                marker = _look(method, methods, settings)["marker"]
                axes.plot(100 * curve[-1].base, 100 * curve[-1].new.success, marker, **hollow)
        if base is not None:
            x, y = 100 * base.earlier.success, 100 * base.new.success
            axes.axvline(x, color=INK, linestyle="--", linewidth=0.9, zorder=1)
            axes.plot(x, y, "*", color=INK, markersize=11, zorder=60)
            if x:
                share: Any = (lambda at: 100 * at / x, lambda at: at * x / 100)  # of the base's success, and back
                kept = axes.secondary_xaxis("top", functions=share)
                kept.set_xlabel("share of the frozen base's success")
                kept.set_xticks(range(0, 101, 20))
                kept.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:.0f} %"))
        _percent_axis(axes)
        axes.set_xlim(-2, 102)
        axes.set_xticks(range(0, 101, 20))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:.0f} %"))
        axes.set_xlabel("success on earlier tasks")
        axes.set_ylabel("success on new tasks")
        _label_ends(axes, marks, methods, settings)
        _caption(figure, _frontier_caption(rows, base, exact))
        return figure


def _tradeoff_mark(row: Tradeoff) -> Mark:
    low, high = row.new.interval
    return Mark(100 * row.earlier.success, 100 * row.new.success, Interval(100 * low, 100 * high))


def _frontier_caption(rows: Sequence[Tradeoff], base: Tradeoff | None, exact: Mapping[str, Gate]) -> str:
    text = "Number beside a point: what adapting changed was multiplied by it; 1 is the adapted policy."
    if base is not None:
        text += " Star, dashed: the frozen base."
    if exact:
        n = sum(gate.n for gate in exact.values())
        text += f" Hollow: adapter for its own instruction alone; {n} of {plural(n, 'episode')} are exactly the base's."
    new, earlier = (_span({n(row) for row in rows}) for n in (lambda r: r.new.n, lambda r: r.earlier.n))
    return f"{text} Bars: 95 % Wilson intervals; {new} per point on new tasks, {earlier} on earlier ones."


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near `values`, in their order, at least `gap` apart, within [low, high] where there is room for all.

    Labels that would touch share the room around their common centre, so that none wanders further than it must.
    """
    groups: list[tuple[float, list[int]]] = []  # (centre, members); the members stand `gap` apart around the centre

    def settle(centre: float, size: int) -> float:
        half = gap * (size - 1) / 2
        return max(low + half, min(high - half, centre))

    for i in sorted(range(len(values)), key=lambda i: (values[i], -i)):  # of equals, the first stands on top
        groups.append((settle(values[i], 1), [i]))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (len(groups[-1][1]) + len(groups[-2][1])) / 2:
            members = groups[-2][1] + groups[-1][1]
            groups[-2:] = [(settle(sum(values[j] for j in members) / len(members), len(members)), members)]
    placed = [0.0] * len(values)
    for centre, members in groups:
        for rank, i in enumerate(members):
            placed[i] = centre + gap * (rank - (len(members) - 1) / 2)
    return placed


def _mark(x: float, point: Point) -> Mark:
    return Mark(x, 100 * point.success, Interval(100 * point.wilson.low, 100 * point.wilson.high), point.level)


def _dodge(curves: Sequence[Curve], step: float) -> list[Curve]:
    """The curves a little apart along x, so that their bars stand side by side."""
    shifts = [(rank - (len(curves) - 1) / 2) * step for rank in range(len(curves))]
    return [(m, [p._replace(x=p.x + dx) for p in marks]) for dx, (m, marks) in zip(shifts, curves, strict=True)]


def _draw(axes: Axes, curves: Sequence[Curve], methods: Sequence[str], settings: Settings) -> None:
    for rank, (method, marks) in enumerate(curves):
        look, z = _look(method, methods, settings), 10 - rank
        x, y = [p.x for p in marks], [p.y for p in marks]
        if len(marks) > 1 and all(p.level for p in marks):  # one result, which no step changes: one bar, at its end
            axes.plot(x, y, color=look["color"], linestyle="--", linewidth=look["linewidth"], zorder=z)
            axes.plot([x[-1], x[-1]], marks[-1].interval, color=look["color"], linewidth=1.1, alpha=0.4, zorder=z)
            continue
        for p in marks:
            axes.plot([p.x, p.x], p.interval, color=look["color"], linewidth=1.1, alpha=0.4, zorder=z)
        axes.plot(x, y, color=look["color"], linestyle=look["linestyle"], linewidth=look["linewidth"], zorder=z)
        edge: Any = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.7}
        axes.plot(x, y, look["marker"], color=look["color"], zorder=z + 20, **edge)


def _label_ends(axes: Axes, curves: Sequence[Curve], methods: Sequence[str], settings: Settings) -> None:
    """Writes each method's name beside the end of its line, in its colour: no legend to look up."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    places = spread([marks[-1].y for _, marks in curves], 0.06 * (high - low), low, high)
    for (method, marks), place in zip(curves, places, strict=True):
        colour = _look(method, methods, settings)["color"]
        axes.annotate(
            settings.labels.get(method, method),
            xy=marks[-1][:2],
            xytext=(1.04, place),
            textcoords=("axes fraction", "data"),
            va="center",
            color=colour,
            fontweight="bold",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.5, "shrinkA": 1, "shrinkB": 4},
        )


def _label_width(methods: Sequence[str], settings: Settings) -> float:
    """Room beside the axes for the longest label [in]."""
    return 0.3 + 0.09 * max(len(settings.labels.get(method, method)) for method in methods)


def _look(method: str, methods: Sequence[str], settings: Settings) -> dict[str, Any]:
    if method == settings.reference:
        return {"color": REFERENCE, "marker": "o", "linestyle": "-", "linewidth": 2.8}
    rank = [m for m in methods if m != settings.reference].index(method)
    styles = ("-", ":", "-.")
    return {
        "color": COLOURS[rank % len(COLOURS)],
        "marker": MARKERS[rank % len(MARKERS)],
        "linestyle": styles[rank // len(COLOURS) % len(styles)],
        "linewidth": 1.4,
    }


def _steps_ticks(axes: Axes, steps: Sequence[int], span: float) -> None:
    labels, last = [], -math.inf
    for k in steps:  # a label that would touch the one before is left out; its tick stays
        room = math.log1p(k) - last >= 0.055 * span
        labels.append(str(k) if room else "")
        last = math.log1p(k) if room else last
    axes.set_xticks([math.log1p(k) for k in steps], labels)


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(-2, 102)
    axes.set_yticks(range(0, 101, 20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f} %"))


def _caption(figure: Figure, text: str) -> None:
    text = textwrap.fill(text, width=int(17 * figure.get_figwidth()))  # about 17 letters of this size to the inch
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color="#666666")


def _counts(points: Iterable[Point]) -> str:
    return _span({point.n for point in points})


def _span(n: Collection[int]) -> str:
    return plural(min(n), "episode") if len(n) == 1 else f"{min(n)} to {max(n)} episodes"
