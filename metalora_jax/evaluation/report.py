"""The report of an evaluation, from its raw episodes alone: `python -m metalora_jax.evaluation.report RUN_DIR`.

Reads `episodes*.jsonl` (see `records`) and, when there, `config.json`, whose `report` entry holds `summary.Settings`.
Writes into RUN_DIR/report:

    index.html    everything in one page, pictures included
    report.md     the same in Markdown, with the pictures beside it
    *.png         success and return over gradient steps, success over demonstrations
    summary.json  every number, with the digests of the logs it comes from
"""

import argparse
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metalora_jax.evaluation import figures
from metalora_jax.evaluation.document import (
    Block,
    Bullets,
    Code,
    Heading,
    Links,
    Picture,
    Table,
    Text,
    to_html,
    to_markdown,
)
from metalora_jax.evaluation.records import read_run
from metalora_jax.evaluation.statistics import Interval
from metalora_jax.evaluation.summary import Cell, Retention, Section, Settings, Summary, summarise

VIDEOS = {".mp4", ".webm", ".gif"}
NONE = "–"


def write_report(run_dir: str | os.PathLike, *, reference: str | None = None) -> Path:
    """Writes the report of a run and returns the path of its index.html.

    Args:
        run_dir: directory with `episodes*.jsonl`, and perhaps `config.json` and `videos/`.
        reference: method that the others are tested against; overrides the one in config.json.

    Raises:
        RecordError: when a record is invalid. ValueError: for settings that do not fit the records.
    """
    run_dir = Path(run_dir)
    config = _read_config(run_dir / "config.json")
    settings = Settings.from_json(config.get("report", {}))
    if reference is not None:
        settings = dataclasses.replace(settings, reference=reference)
    summary = summarise(read_run(run_dir), settings)
    digests = {
        log.name: hashlib.sha256(log.read_bytes()).hexdigest() for log in sorted(run_dir.glob("episodes*.jsonl"))
    }
    videos = sorted(p.relative_to(run_dir).as_posix() for p in run_dir.glob("videos/**/*") if p.suffix in VIDEOS)

    out = run_dir / "report"
    out.mkdir(exist_ok=True)
    drawn = [figures.section_figures(section, settings) for section in summary.sections]
    pictures = {name: _png(figure) for section in drawn for name, figure in section.items()}
    for name, data in pictures.items():
        (out / name).write_bytes(data)
    blocks = list(document(summary, [list(section) for section in drawn], videos, config, digests))
    (out / "report.md").write_text(to_markdown(blocks))
    numbers = {"logs": digests, **dataclasses.asdict(summary)}
    (out / "summary.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    index = out / "index.html"
    index.write_text(to_html(settings.title, blocks, pictures))
    return index


def document(
    summary: Summary,
    pictures: Sequence[Sequence[str]],
    videos: Sequence[str],
    config: dict[str, Any],
    digests: dict[str, str],
) -> Iterable[Block]:
    """The report's blocks, from its numbers; `pictures` names the figures of each section."""
    settings = summary.settings
    yield Heading(settings.title, 1)
    broken = f", of which {summary.errors} ended in an error and count as failures" if summary.errors else ""
    yield Text(f"{summary.episodes} episodes{broken}. Every number and figure here comes from their raw records.")
    for section, names in zip(summary.sections, pictures, strict=True):
        yield from _section(section, names, settings)
    if summary.retention:
        yield Heading("Retention: the tasks of pretraining, adapter on and off")
        yield _retention_table(summary.retention, settings)
    if summary.cautions:
        yield Heading("Cautions")
        yield Bullets(summary.cautions, caution=True)
    if videos:
        yield Heading("Videos")
        yield Links([(path.removeprefix("videos/"), f"../{path}") for path in videos])
    yield Heading("Provenance")
    yield Table(["log", "sha256"], list(digests.items()))
    yield Table(
        ["method", "fingerprints of code, config, adapter and statistics"],
        [[_name(method, settings), str(count)] for method, count in summary.fingerprints.items()],
    )
    if config:
        yield Code(json.dumps(config, indent=2, sort_keys=True), "config.json")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); restore it, or remove it to report without one") from None
    if not isinstance(config, dict) or not isinstance(config.get("report", {}), dict):
        raise ValueError(f"{path}: the file and its 'report' entry must be JSON objects; restore it or remove it")
    return config


def _section(section: Section, pictures: Sequence[str], settings: Settings) -> Iterable[Block]:
    yield Heading(f"{section.distribution.capitalize()}, {section.split} split")
    shape = [(section.tasks, "task"), (section.conditions, "condition"), (section.meta_seeds, "meta-seed")]
    yield Text(", ".join(figures.plural(n, noun) for n, noun in shape) + ".")
    if lines := list(_headlines(section, settings)):
        yield Bullets(lines)
    for name in pictures:
        yield Picture(name, name.removesuffix(".png").replace("_", " "))
    for shots in section.shots:
        yield Heading(f"Success after gradient steps on {figures.plural(shots, 'demonstration')}", 3)
        yield _success_table(section, shots, settings)
    if settings.reference is not None:
        yield Text(
            f"+a -b: episodes that only the method, or only {_name(settings.reference, settings)}, solved. p: exact "
            "McNemar test over pairs of equal task, condition, demonstrations, start and meta-seed, Holm-adjusted over "
            "the methods of a column. It holds for a column that was chosen before the results were seen."
        )
    yield Heading("Gradient steps to reach a success rate", 3)
    yield _threshold_table(section, settings)
    if section.wall_clock:
        yield Heading("Seconds for one adaptation", 3)
        yield _clock_table(section, settings)
    yield _cell_table(section, settings, f"All {len(section.cells)} cells, with intervals over meta-seeds and tasks")


def _headlines(section: Section, settings: Settings) -> Iterable[str]:
    shots, steps = section.shots[-1], section.shots_steps
    here = [c for c in section.cells if (c.shots, c.steps) == (shots, steps)]
    for cell in sorted(here, key=lambda c: -c.success):
        line = (
            f"{_name(cell.method, settings)} solves {_rate(cell.success)} ({_range(cell.wilson)}) after "
            f"{figures.plural(cell.steps, 'gradient step')} on {figures.plural(shots, 'demonstration')}"
        )
        if cell.versus is not None and cell.p_holm is not None:
            points = 100 * (cell.versus.wins - cell.versus.losses) / cell.versus.pairs
            line += f"; {points:+.0f} points against {_name(settings.reference or '', settings)}, {_p(cell.p_holm)}"
        yield line + "."


def _success_table(section: Section, shots: int, settings: Settings) -> Table:
    curves = {m: {c.steps: c for c in section.curve(m, shots)} for m in section.methods}
    steps = sorted({k for curve in curves.values() for k in curve})
    shown = {m: [curve.get(k) for k in steps] for m, curve in curves.items() if curve}
    return Table(
        ["", *(figures.plural(k, "step") for k in steps)],
        [[_name(m, settings), *(_success_text(cell) for cell in row)] for m, row in shown.items()],
        [[None, *(None if cell is None else cell.success for cell in row)] for row in shown.values()],
    )


def _success_text(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    text = f"{_rate(cell.success)}\n{_range(cell.wilson)}, n {cell.n}"
    if cell.versus is not None and cell.p_holm is not None:
        text += f"\n+{cell.versus.wins} -{cell.versus.losses}, {_p(cell.p_holm)}"
    return text + ("\nnot paired" if cell.unpaired else "")


def _threshold_table(section: Section, settings: Settings) -> Table:
    def text(steps: int | None, sure: int | None) -> str:
        return "not reached" if steps is None else f"{steps}\nsurely {NONE if sure is None else sure}"

    columns = [(k, t) for t in settings.thresholds for k in section.shots]
    found = {(row.method, row.shots, row.threshold): text(row.steps, row.steps_sure) for row in section.thresholds}
    return Table(
        ["", *(f"{_rate(t)}, {k} demos" for k, t in columns)],
        [[_name(m, settings), *(found.get((m, k, t), NONE) for k, t in columns)] for m in section.methods],
    )


def _clock_table(section: Section, settings: Settings) -> Table:
    steps = sorted({row.steps for row in section.wall_clock})
    found = {(row.method, row.shots, row.steps): row for row in section.wall_clock}
    text = {key: f"{row.median:.3g}\n{row.low:.3g} to {row.high:.3g}, n {row.n}" for key, row in found.items()}
    lines = dict.fromkeys((row.method, row.shots) for row in section.wall_clock)
    return Table(
        ["median and range", "demos", *(figures.plural(k, "step") for k in steps)],
        [[_name(m, settings), str(shots), *(text.get((m, shots, k), NONE) for k in steps)] for m, shots in lines],
    )


def _cell_table(section: Section, settings: Settings, title: str) -> Table:
    def row(c: Cell) -> list[str]:
        clustered = NONE if c.clustered is None else _range(c.clustered)
        returns = NONE if c.mean_return is None else f"{c.mean_return:.4g}"
        spread = NONE if c.return_interval is None else f"{c.return_interval.low:.4g} to {c.return_interval.high:.4g}"
        versus = [NONE] * 3 if c.versus is None else [str(c.versus.wins), str(c.versus.losses), f"{c.versus.p:.2g}"]
        adjusted = NONE if c.p_holm is None else f"{c.p_holm:.2g}"
        numbers = [str(v) for v in (c.shots, c.steps, c.n, c.errors, c.successes)]
        rates = [_rate(c.success), _range(c.wilson), clustered, returns, spread]
        return [_name(c.method, settings), *numbers, *rates, *versus, adjusted]

    head = ["method", "demos", "steps", "n", "errors", "solved", "rate", "Wilson", "clustered", "return", "clustered"]
    return Table([*head, "+", "-", "p", "p Holm"], [row(cell) for cell in section.cells], folded=title)


def _retention_table(rows: Sequence[Retention], settings: Settings) -> Table:
    def line(r: Retention) -> list[str]:
        on = f"{_rate(r.on)}\n{_range(r.on_interval)}, n {r.n}"
        if r.off is None or r.off_interval is None or r.versus is None:
            return [_name(r.method, settings), r.distribution, str(r.shots), str(r.steps), on, NONE, NONE, "not paired"]
        off = f"{_rate(r.off)}\n{_range(r.off_interval)}"
        change = f"{100 * (r.on - r.off):+.0f} points\n+{r.versus.wins} -{r.versus.losses}"
        return [_name(r.method, settings), r.distribution, str(r.shots), str(r.steps), on, off, change, _p(r.versus.p)]

    head = ["method", "adapted on", "demos", "steps", "adapter on", "adapter off", "change", "exact McNemar"]
    return Table(head, [line(row) for row in rows])


def _name(method: str, settings: Settings) -> str:
    return settings.labels.get(method, method)


def _rate(rate: float) -> str:
    return f"{100 * rate:.0f} %"


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170)
    return buffer.getvalue()


def main() -> None:
    """Command line: a run directory, and perhaps a reference method."""
    parser = argparse.ArgumentParser(description="Figures and tables of an evaluation, from its episodes.jsonl alone.")
    parser.add_argument("run_dir", type=Path, help="directory with episodes*.jsonl and perhaps config.json")
    parser.add_argument("--reference", help="method that the others are tested against")
    arguments = parser.parse_args()
    try:
        print(write_report(arguments.run_dir, reference=arguments.reference))
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
