"""The report of a study that holds offline error against success (`against_success`), from its raw records alone."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from metalora_jax.evaluation.offline import agreement, figures
from metalora_jax.evaluation.offline.against_success import CONFIG, EPISODES, MEASURES, OFFLINE, Made, Row, Study, read
from metalora_jax.evaluation.offline.agreement import Agreement, Estimate
from metalora_jax.evaluation.reports import document, provenance
from metalora_jax.evaluation.reports.figures import INK, MARKERS, STYLE
from metalora_jax.evaluation.reports.provenance import Standing
from metalora_jax.evaluation.reports.records import RecordError, read_episodes
from metalora_jax.evaluation.reports.tables import inputs_table
from metalora_jax.machine import files
from metalora_jax.words import listed

PLOT = "offline_against_success.png"
_TITLE = "Offline error against closed-loop success"
_STEPS = "gradient steps, the most of them"  # knows nothing of the policy but how long it was adapted


class Judged(NamedTuple):
    """A policy, measured and run."""

    row: Row
    wins: tuple[bool, ...]  # in the order of the starts

    @property
    def success(self) -> float:
        """Rate."""
        return float(np.mean(self.wins))


def write_report(workdir: Path) -> Path:
    """Writes WORKDIR/report: index.html, report.md, the plot and summary.json; returns the page.

    Cells with episodes that have not been run are left out, and the page says so.

    Raises:
      RecordError: no cell is whole, or records are damaged.
    """
    if not (workdir / EPISODES).exists():
        raise RecordError(f"{workdir}: no {EPISODES}; give the directory of a study")
    config = files.read_json(workdir / CONFIG)
    study, rows, episodes = Study.from_config(config), read(workdir / OFFLINE), read_episodes(workdir / EPISODES)
    broken = Counter(episode.error for episode in episodes if episode.error)
    won: dict[tuple[int, str, int], dict[int, bool]] = {}
    for episode in episodes:
        won.setdefault((episode.draw, episode.method, episode.steps), {})[episode.episode_seed] = episode.success
    judged = [
        Judged(row, tuple(own[start] for start in sorted(own)))
        for row in rows
        if len(own := won.get((row.cell, row.made.method, row.steps), {})) == study.episodes
    ]
    counts = Counter(each.row.cell for each in judged)
    judged = [each for each in judged if counts[each.row.cell] == len(study.policies)]
    if not judged:
        raise RecordError(f"{workdir}: no cell is whole yet; run the study on")
    standing = provenance.examine(workdir, episodes, config)
    cautions = [f"DRAFT, not to be cited: {problem}." for problem in standing.problems]
    if left := len(study.cells) - len({each.row.cell for each in judged}):
        cautions.append(f"{left} of {len(study.cells)} cells (a task under a condition) are not finished and left out.")
    cautions += [f"{count} episodes broke, and count as failures: {error}" for error, count in broken.items()]
    found = agreements(judged)
    out = workdir / "report"
    out.mkdir(exist_ok=True)
    picture = {PLOT: figures.png(plot(judged, study))}
    files.write_bytes(out / PLOT, picture[PLOT])
    blocks = list(_blocks(judged, study, found, cautions, standing, config))
    files.write_text(out / "report.md", document.to_markdown(blocks))
    files.write_json(out / "summary.json", _summary(judged, found, cautions), allow_nan=False)
    files.write_text(out / "index.html", document.to_html(_TITLE, blocks, picture))
    return out / "index.html"


def agreements(judged: Sequence[Judged]) -> dict[str, Agreement]:
    """Of every measure, the best first: by success of what is chosen by it, then by rank correlation within cells."""
    success = np.array([each.success for each in judged])
    cell, cluster = [each.row.cell for each in judged], [each.row.name for each in judged]
    values = {name: np.array([each.row.measures[name] for each in judged]) for name in MEASURES}
    values[_STEPS] = -np.array([float(each.row.steps) for each in judged])
    found = {name: agreement.agreement(value, success, cell, cluster) for name, value in values.items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1].chosen.value, -_value(item[1].within))))


def by_steps(judged: Sequence[Judged]) -> dict[Made, tuple[float, float, float]]:
    """Means over cells for each way that policies were made: scaled error, loss, success."""
    groups: dict[Made, list[Judged]] = {}
    for each in judged:
        groups.setdefault(each.row.made, []).append(each)
    return {
        made: (
            float(np.mean([each.row.measures["scaled"] for each in own])),
            float(np.mean([each.row.measures["loss"] for each in own])),
            float(np.mean([each.success for each in own])),
        )
        for made, own in groups.items()
    }


def plot(judged: Sequence[Judged], study: Study) -> Figure:
    """A point for each adapted policy: scaled action error on held-out episodes, and success; coloured by steps."""
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.92, len(study.steps)))
    markers = dict(zip((0.0, *study.learning_rates), ("o", *MARKERS), strict=False))
    rng = np.random.default_rng(0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        for steps, colour in zip(study.steps, colours, strict=True):
            for rate, marker in markers.items():
                own = [each for each in judged if each.row.made == (rate, steps)]
                if own:
                    nudge = rng.uniform(-0.3, 0.3, len(own)) / study.episodes  # so that equals do not hide each other
                    y = 100 * (np.array([each.success for each in own]) + nudge)
                    x = [each.row.measures["scaled"] for each in own]
                    label = f"{steps} steps, rate {rate:g}" if steps else "0 steps"
                    axes.scatter(x, y, color=colour, marker=marker, s=26, alpha=0.8, linewidth=0, label=label)
        order = np.argsort([each.row.measures["scaled"] for each in judged])
        fifths = [part for part in np.array_split(order, 5) if len(part)]
        middle = [np.median([judged[i].row.measures["scaled"] for i in part]) for part in fifths]
        mean = [100 * np.mean([judged[i].success for i in part]) for part in fifths]
        axes.plot(middle, mean, color=INK, linewidth=1.4, label="mean of each fifth")
        axes.set_xscale("log")
        axes.set_xlabel("action error on held-out episodes [standard deviations]")
        axes.set_ylabel(f"success in {study.episodes} episodes [%]")
        axes.set_ylim(-5, 105)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def _blocks(
    judged: Sequence[Judged],
    study: Study,
    found: Mapping[str, Agreement],
    cautions: Sequence[str],
    standing: Standing,
    config: Mapping[str, object],
) -> Iterable[document.Block]:
    yield document.Heading(_TITLE, 1)
    if cautions:
        yield document.Bullets(cautions, caution=True)
    cells = {each.row.cell for each in judged}
    names, tasks = (list(dict.fromkeys(getattr(each.row, key) for each in judged)) for key in ("name", "task"))
    yield document.Text(
        f"{len(judged)} policies in {len(cells)} cells: {listed(tasks)}, under the conditions {listed(names)}. In each "
        f"cell LoRA from scratch learned from {study.shots} demonstrations that were recorded under the condition, was "
        f"measured on {study.held_out} others, and run from {study.episodes} starts, the same for all of a cell."
    )
    yield document.Picture(PLOT, "Offline error against success, a point for each adapted policy")
    yield document.Text("Points are moved by up to a third of an episode upwards or downwards.")
    yield document.Heading("Which measure says most")
    yield document.Table(
        ["measure", "rank correlation, all", "within a cell", "success of what it chooses", "below the best", "best"],
        [_agreement_row(MEASURES.get(name, name), each) for name, each in found.items()],
    )
    best = float(np.mean([max(each.success for each in judged if each.row.cell == cell) for cell in cells]))
    lot = float(np.mean([np.mean([each.success for each in judged if each.row.cell == cell]) for cell in cells]))
    yield document.Text(
        "Spearman's rank correlation of less of the measure with more success: 1 is a perfect predictor, 0 none. "
        f"Within a cell: the mean over the {found['scaled'].cells} of {len(cells)} cells where success differs. "
        "Chosen: the policy of a cell with the least of the measure; best: in how many cells it is one of those that "
        f"succeed most. Choosing by lot gives {lot:.0%}, the best of each cell {best:.0%}, which flatters: it is so in "
        "these very episodes. Brackets: 95 % bootstrap intervals over conditions."
    )
    if study.episodes > 1:
        cell, cluster = [each.row.cell for each in judged], [each.row.name for each in judged]
        pair = agreement.halves(np.array([each.wins for each in judged]), cell, cluster)
        said = " and ".join(_text(half.within) for half in pair)
        yield document.Text(
            f"Success in every other episode, as a measure of success in the rest, has {said} within a cell: with so "
            "few episodes no measure can be expected to do better."
        )
    yield document.Heading("Over adaptation steps")
    yield document.Table(
        ["steps, rate", "action error, scaled", "flow-matching loss", "success"],
        [
            [f"{made.steps}, {made.learning_rate:g}" if made.steps else "0", f"{e:.3f}", f"{loss:.3f}", f"{s:.0%}"]
            for made, (e, loss, s) in by_steps(judged).items()
        ],
    )
    yield document.Heading("Each cell")
    yield document.Table(["condition, task", "at the start", "by least scaled error", "best"], list(_cells(judged)))
    yield document.Heading("Provenance")
    yield inputs_table(standing)
    yield document.Code(json.dumps(config, indent=2, sort_keys=True), CONFIG)


def _cells(judged: Sequence[Judged]) -> Iterable[list[str]]:
    for cell in dict.fromkeys(each.row.cell for each in judged):
        own = [each for each in judged if each.row.cell == cell]
        least = min(own, key=lambda each: each.row.measures["scaled"])
        start = next(each for each in own if not each.row.steps)
        rates = (start.success, least.success, max(each.success for each in own))
        yield [f"{own[0].row.name}, {own[0].row.task}", *(f"{rate:.0%}" for rate in rates)]


def _agreement_row(label: str, each: Agreement) -> list[str]:
    return [
        label,
        _text(each.pooled),
        _text(each.within),
        _text(each.chosen, percent=True),
        _text(each.lost, percent=True),
        f"{each.best:.0%}",
    ]


def _text(each: Estimate | None, percent: bool = False) -> str:
    if each is None:
        return "none"
    style = ".0%" if percent else "+.2f"
    between = "" if each.interval is None else f" [{each.interval.low:{style}}, {each.interval.high:{style}}]"
    return f"{each.value:{style}}{between}"


def _value(each: Estimate | None) -> float:
    return -1.0 if each is None else each.value


def _summary(judged: Sequence[Judged], found: Mapping[str, Agreement], cautions: Sequence[str]) -> dict[str, object]:
    def numbers(each: Estimate | None) -> dict[str, object] | None:
        return None if each is None else {"value": each.value, "interval": each.interval}

    return {
        "policies": len(judged),
        "cautions": list(cautions),
        "agreement": {
            name: {"cells": each.cells, "best": each.best}
            | {part: numbers(getattr(each, part)) for part in ("pooled", "within", "chosen", "lost")}
            for name, each in found.items()
        },
        "by_steps": [
            {**made._asdict(), "scaled_error": error, "loss": loss, "success": success}
            for made, (error, loss, success) in by_steps(judged).items()
        ],
    }
