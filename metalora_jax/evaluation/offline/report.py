"""The report of a comparison without a simulator, from its raw rows; `__main__` makes it again."""

import dataclasses
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.evaluation.offline import figures
from metalora_jax.evaluation.offline.measure import NO_SUCCESS_RATE
from metalora_jax.evaluation.offline.records import RECORDS, Row, read
from metalora_jax.evaluation.offline.rivals import NAMES
from metalora_jax.evaluation.protocol.plan import BASE
from metalora_jax.evaluation.reports import document, provenance, rates
from metalora_jax.evaluation.reports.records import RecordError
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.statistics import (
    Difference,
    Interval,
    cluster_bootstrap,
    holm,
    pair,
    paired_difference,
)
from metalora_jax.evaluation.reports.tables import inputs_table, p_text
from metalora_jax.machine import files
from metalora_jax.words import plural


class Point(NamedTuple):
    """One method after `steps` gradient steps on `shots` demonstrations."""

    method: str
    shots: int
    steps: int
    n: int  # rows
    scaled_error: float
    interval: Interval | None  # 95 % over meta-seeds and tasks; None with one of each
    loss: float | None
    versus: Difference | None  # against the reference, over the same demonstrations
    p_holm: float | None  # adjusted over the methods compared at these shots and steps


class Misled(NamedTuple):
    """A method told another task's instruction, against itself told its own."""

    method: str
    told_own: float  # scaled errors
    told_other: float
    versus: Difference  # other minus own: near zero, the instruction is ignored


def write_report(run_dir: Path) -> Path:
    """Writes RUN/report: index.html, report.md, figures and summary.json; returns the page.

    Raises:
      RecordError: there are no rows, or one is invalid.
    """
    rows = read(run_dir / RECORDS)
    if not rows:
        raise RecordError(f"{run_dir}: no {RECORDS}; give the directory of a comparison without a simulator")
    config = files.read_json(run_dir / "config.json")
    settings = Settings.from_json(config.get("report", {}))
    stamped = [row._replace(method=BASE) if row.method in NAMES else row for row in rows]  # rivals share its inputs
    standing, chosen = provenance.examine(run_dir, stamped, config), rates.read(run_dir)
    said = rates.cautions(chosen, config.get("protocol", {}).get("search_widenings", 0))
    standing = standing._replace(cautions=[*standing.cautions, *said])
    how = list(rates.blocks(chosen, settings, rates.starts(run_dir)))
    points, misled = summarise(rows, settings.reference), wrong_instruction(rows)
    out = run_dir / "report"
    out.mkdir(exist_ok=True)
    pictures = dict(_pictures(points, settings))
    for name, data in pictures.items():
        files.write_bytes(out / name, data)
    blocks = list(_blocks(points, misled, settings, config, standing, list(pictures), rows, how))
    files.write_text(out / "report.md", document.to_markdown(blocks))
    numbers = {
        "rows": len(rows),
        "unpinned": list(standing.problems),
        "points": [p._asdict() | {"versus": p.versus and dataclasses.asdict(p.versus)} for p in points],
        "wrong_instruction": [m._asdict() | {"versus": dataclasses.asdict(m.versus)} for m in misled],
    }
    files.write_json(out / "summary.json", numbers, allow_nan=False)
    files.write_text(out / "index.html", document.to_html(settings.title, blocks, pictures))
    return out / "index.html"


def summarise(rows: Sequence[Row], reference: str | None) -> list[Point]:
    """Means over all rows of a point, and differences from the reference on the same demonstrations."""
    groups: dict[tuple[str, int, int], list[Row]] = {}
    for row in _beside_every_step(rows):
        if row.told is None:
            groups.setdefault((row.method, row.shots, row.steps), []).append(row)
    points = []
    for (method, shots, steps), own in groups.items():
        errors, losses = [row.scaled_error for row in own], [row.loss for row in own if row.loss is not None]
        factors: list[list[Hashable]] = [[row.meta_seed for row in own], [row.task for row in own]]
        several = any(len(set(labels)) > 1 for labels in factors)
        interval = cluster_bootstrap(np.array(errors), factors) if several else None
        other = groups.get((reference or "", shots, steps), [])
        if own[0].identified:  # it has no meta-seeds: further ones of the reference are no further pairs
            other = [row for row in other if row.meta_seed == own[0].meta_seed]
        versus = _versus(own, other) if method not in (reference, BASE, *NAMES) and other else None
        loss = float(np.mean(losses)) if losses else None
        points.append(Point(method, shots, steps, len(own), float(np.mean(errors)), interval, loss, versus, None))
    return _adjusted(points)


def _beside_every_step(rows: Sequence[Row]) -> Iterable[Row]:
    """Rows with those of methods that take no steps beside every number of steps that others took."""
    steps: dict[int, set[int]] = {}
    for row in rows:
        if row.identified is None and row.method not in (BASE, *NAMES):
            steps.setdefault(row.shots, set()).add(row.steps)
    for row in rows:
        if row.identified is None:
            yield row
        else:
            yield from (row._replace(steps=step) for step in sorted(steps.get(row.shots, {0})))


def wrong_instruction(rows: Sequence[Row]) -> list[Misled]:
    """Every method under another task's instruction, against the same policies under their own."""
    found = []
    for method in dict.fromkeys(row.method for row in rows if row.told is not None):
        other = [row for row in rows if row.method == method and row.told is not None]
        policies = {row.policy for row in other}
        own = [row for row in rows if row.told is None and row.policy in policies]
        told_own, told_other = (float(np.mean([row.scaled_error for row in some])) for some in (own, other))
        found.append(Misled(method, told_own, told_other, _versus(other, own)))
    return found


def _versus(own: Sequence[Row], other: Sequence[Row]) -> Difference:
    """Of the same demonstrations after the same seed, draw and steps."""

    def keyed(rows: Sequence[Row]) -> dict[Hashable, float]:
        return {(r.meta_seed, r.task, r.shots, r.draw, r.steps, r.episode): r.scaled_error for r in rows}

    mine = keyed(own)
    clusters: list[list[Hashable]] = [[row.meta_seed for row in own], [row.task for row in own]]
    return paired_difference(*pair(mine, keyed(other)), clusters)


def _adjusted(points: Sequence[Point]) -> list[Point]:
    """With Holm's p over the methods that are compared at the same shots and steps."""
    made = list(points)
    for place in dict.fromkeys((p.shots, p.steps) for p in points):
        at = [i for i, p in enumerate(points) if (p.shots, p.steps) == place and p.versus is not None]
        for i, p in zip(at, holm([points[i].versus.p for i in at]), strict=True):  # type: ignore[union-attr]
            made[i] = points[i]._replace(p_holm=p)
    return made


def _order(points: Sequence[Point], settings: Settings) -> list[str]:
    """The reference first, then as labelled, then the rest."""
    there = dict.fromkeys(p.method for p in points if p.method not in NAMES)
    wanted = [settings.reference or "", *settings.labels, *there]
    return [name for name in dict.fromkeys(wanted) if name in there]


def _pictures(points: Sequence[Point], settings: Settings) -> Iterable[tuple[str, bytes]]:
    for shots in dict.fromkeys(p.shots for p in points):
        here = [p for p in points if p.shots == shots]
        order = _order(here, settings)
        levels = {p.method: p.scaled_error for p in here if p.method in (BASE, *NAMES)}
        for measure, ylabel in (("error", "error [standard deviations]"), ("loss", "flow-matching loss")):
            lines: dict[str, list[tuple[int, float, Interval | None]]] = {}
            for name in order:
                marks = sorted((p for p in here if p.method == name != BASE), key=lambda p: p.steps)
                if measure == "error":
                    values = [(p.steps, p.scaled_error, p.interval) for p in marks]
                else:
                    values = [(p.steps, p.loss, None) for p in marks if p.loss is not None]
                if values:
                    lines[name] = values
            shown = levels if measure == "error" else {}
            figure = figures.curves(lines, shown, ylabel, dict(settings.labels))
            yield f"{measure}_vs_steps_{shots}_shots.png", figures.png(figure)


def _blocks(
    points: Sequence[Point],
    misled: Sequence[Misled],
    settings: Settings,
    config: Mapping[str, Any],
    standing: provenance.Standing,
    pictures: Sequence[str],
    rows: Sequence[Row],
    choices: Sequence[document.Block],
) -> Iterable[document.Block]:
    def named(method: str) -> str:
        return settings.labels.get(method, NAMES.get(method, method))

    yield document.Heading(settings.title, 1)
    if standing.problems:
        yield document.Bullets([f"DRAFT, not to be cited: {problem}." for problem in standing.problems], caution=True)
    yield document.Bullets([NO_SUCCESS_RATE], caution=True)
    tasks, seeds = {row.task for row in rows}, {row.meta_seed for row in rows}
    yield document.Text(
        f"{len(rows)} rows: policies on demonstrations of {plural(len(tasks), 'held-out task')} that they were not "
        f"adapted to, {plural(len(seeds), 'meta-seed')}. Errors are means over joints, in standard deviations of the "
        "base's data; the raw rows have each joint in the robot's own units."
    )
    for shots in dict.fromkeys(p.shots for p in points):
        here = [p for p in points if p.shots == shots]
        yield document.Heading(f"{shots} demonstration{'s' * (shots > 1)}")
        for name in (name for name in pictures if name.endswith(f"_{shots}_shots.png")):
            yield document.Picture(name, name.removesuffix(".png").replace("_", " "))
        yield _table(here, settings)
        levels = ", ".join(f"{named(p.method)} {p.scaled_error:.3f}" for p in here if p.method in (BASE, *NAMES))
        yield document.Text(f"Without adapting: {levels}. In brackets: 95 % bootstrap over meta-seeds and tasks.")
        if settings.reference is not None:
            yield document.Text(
                f"Second line: difference from {named(settings.reference)} on the same demonstrations, seeds and "
                "draws; in how many the error was less and more; p of an exact sign test, Holm-adjusted over the "
                "methods in a column. Demonstrations of a task are not independent, which that test ignores."
            )
    if fitted := list(dict.fromkeys(named(row.method) for row in rows if row.identified)):
        yield document.Text(
            f"{', '.join(fitted)}: no gradient steps, but a map of the frozen base's commands, or a calibration of its "
            "joints, fitted to the demonstrations. "
            "The one result, of one meta-seed, stands beside every number of steps."
        )
    if misled:
        yield document.Heading("Wrong instruction: adapted policies given another task's instruction")
        yield document.Text(
            "A policy that ignores its instruction has the same error with either. Difference: other minus own."
        )
        header = ["", "own instruction", "other instruction", "difference", "less error in", "more in", "sign test"]
        cells = [
            [
                *(named(m.method), f"{m.told_own:.3f}", f"{m.told_other:.3f}", _signed(m.versus)),
                *(str(m.versus.better), str(m.versus.worse), p_text(m.versus.p)),
            ]
            for m in misled
        ]
        yield document.Table(header, cells)
    yield from choices
    if standing.cautions:
        yield document.Bullets(list(standing.cautions), caution=True)
    yield document.Heading("Provenance")
    if standing.lines:
        yield inputs_table(standing)
    yield document.Code(json.dumps(dict(config), indent=2, sort_keys=True), "config.json")


def _table(points: Sequence[Point], settings: Settings) -> document.Table:
    steps = sorted({p.steps for p in points if p.method not in (BASE, *NAMES)})
    rows = []
    for method in (name for name in _order(points, settings) if name != BASE):
        by_steps = {p.steps: p for p in points if p.method == method}
        rows.append([settings.labels.get(method, method), *(_cell(by_steps.get(step)) for step in steps)])
    return document.Table(["", *(f"{step} steps" for step in steps)], rows)


def _cell(point: Point | None) -> str:
    if point is None:
        return ""
    text = f"{point.scaled_error:.3f}"
    if point.interval is not None:
        text += f" [{point.interval.low:.3f}, {point.interval.high:.3f}]"
    if point.versus is not None and point.p_holm is not None:
        text += (
            f"\n{_signed(point.versus)}, {point.versus.better} less {point.versus.worse} more, {p_text(point.p_holm)}"
        )
    return text


def _signed(versus: Difference) -> str:
    between = "" if versus.interval is None else f" [{versus.interval.low:+.3f}, {versus.interval.high:+.3f}]"
    return f"{versus.mean:+.3f}{between}"
