"""The report of an evaluation, from its raw episodes alone: `python -m metalora_jax.evaluation.reports RUN_DIR`.

Reads `episodes*.jsonl` (see `records`) and, when there, `config.json`, whose `report` entry holds `settings.Settings`,
and what the search for inner rates tried (see `rates`).
Writes into RUN_DIR/report:

    index.html    everything in one page, pictures included
    report.md     the same in Markdown, with the pictures beside it
    *.png         success over gradient steps and over demonstrations
    summary.json  every number, with the digests of the logs it comes from

A run whose inputs are not pinned (see `provenance`) is refused; `--draft` makes a report that says so on top.
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

from metalora_jax.evaluation.reports import figures, rates, tables
from metalora_jax.evaluation.reports.document import (
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
from metalora_jax.evaluation.reports.frontier import Frontier
from metalora_jax.evaluation.reports.provenance import Standing, Unpinned, examine
from metalora_jax.evaluation.reports.records import read_run
from metalora_jax.evaluation.reports.sections import Section
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.summary import Summary, summarise
from metalora_jax.evaluation.reports.tables import between, named, p_text, percent
from metalora_jax.machine import files
from metalora_jax.words import plural

VIDEOS = {".mp4", ".webm", ".gif"}


def write_report(run_dir: str | os.PathLike, *, reference: str | None = None, draft: bool = False) -> Path:
    """Writes the report of a run and returns the path of its index.html.

    Args:
        run_dir: directory with `episodes*.jsonl`, and perhaps `config.json` and `videos/`.
        reference: method that the others are tested against; overrides the one in config.json.
        draft: write a report even if inputs are not pinned, and say in it which are not.

    Raises:
        RecordError: when a record or its provenance is invalid. Unpinned: see `provenance.examine`. ValueError: for
            settings that do not fit the records.
    """
    run_dir = Path(run_dir)
    config = _read_config(run_dir / "config.json")
    settings = Settings.from_json(config.get("report", {}))
    if reference is not None:
        settings = dataclasses.replace(settings, reference=reference)
    episodes = read_run(run_dir)
    standing = examine(run_dir, episodes, config)
    if standing.problems and not draft:
        raise Unpinned(f"{run_dir}: its inputs are not pinned ({'; '.join(standing.problems)}); --draft writes a draft")
    summary = summarise(episodes, settings)
    digests = {
        log.name: hashlib.sha256(log.read_bytes()).hexdigest() for log in sorted(run_dir.glob("episodes*.jsonl"))
    }
    videos = sorted(p.relative_to(run_dir).as_posix() for p in run_dir.glob("videos/**/*") if p.suffix in VIDEOS)

    out = run_dir / "report"
    out.mkdir(exist_ok=True)
    drawn = [figures.section_figures(section, settings) for section in summary.sections]
    compared = figures.frontier_figures(summary.frontier, settings)
    pictures = {name: _png(figure) for some in (*drawn, compared) for name, figure in some.items()}
    for name, data in pictures.items():
        files.write_bytes(out / name, data)
    chosen = rates.read(run_dir)
    if chosen:
        widenings = config.get("protocol", {}).get("search_widenings", 0)
        standing = standing._replace(cautions=[*standing.cautions, *rates.cautions(chosen, widenings)])
    names, told = [list(section) for section in drawn], list(rates.blocks(chosen, settings, rates.starts(run_dir)))
    blocks = list(document(summary, names, videos, config, digests, standing, told, list(compared)))
    files.write_text(out / "report.md", to_markdown(blocks))
    numbers = {"logs": digests, "unpinned": list(standing.problems), **dataclasses.asdict(summary)}
    files.write_json(out / "summary.json", numbers, allow_nan=False)
    index = out / "index.html"
    files.write_text(index, to_html(settings.title, blocks, pictures))
    return index


def document(
    summary: Summary,
    pictures: Sequence[Sequence[str]],
    videos: Sequence[str],
    config: dict[str, Any],
    digests: dict[str, str],
    standing: Standing,
    choices: Sequence[Block] = (),
    compared: Sequence[str] = (),
) -> Iterable[Block]:
    """The report's blocks, from its numbers.

    `pictures` names each section's figures, `compared` those of the frontier; `choices` is `rates.blocks`.
    """
    settings = summary.settings
    yield Heading(settings.title, 1)
    if standing.problems:
        yield Bullets([f"DRAFT, not to be cited: {problem}." for problem in standing.problems], caution=True)
    broken = f", of which {summary.errors} ended in an error and count as failures" if summary.errors else ""
    count = plural(summary.episodes, "episode")
    yield Text(f"{count}{broken}. Every number and figure in this report is computed from the raw records.")
    for section, names in zip(summary.sections, pictures, strict=True):
        yield from _section(section, names, settings)
    if summary.retention:
        yield Heading("Retention: tasks of pretraining with the adapter on and off")
        yield Text(
            "Success of the adapted policy on tasks of pretraining, and of the frozen base (adapter off) in the same "
            "episodes. Kept: the first as a share of the second. +a -b: a episodes were solved only with the adapter "
            "on, b only with it off. p: exact McNemar test, not adjusted for the number of rows."
        )
        yield tables.retention_table(summary.retention, settings)
    if summary.frontier.rows or summary.frontier.gates:
        yield from _frontier(summary.frontier, compared, settings)
    if summary.wrong_instruction:
        yield Heading("Wrong instruction: adapted policies given another task's instruction")
        yield Text(
            "Success on the task that the policy was adapted to, in the same episodes with another task's instruction "
            "and with its own. A policy that ignores its instruction solves as much with either. +a -b: a episodes "
            "were solved only with the other instruction, b only with its own. p: exact McNemar test, not adjusted for "
            "the number of rows."
        )
        yield tables.instruction_table(summary.wrong_instruction, settings)
    if summary.alterations:
        yield Heading("What the policy uses: one of its inputs replaced")
        yield Text(
            "Success in the same episodes with one input replaced and with all inputs as they are. A policy that "
            "succeeds without its pictures has learned its motions by heart, and a moved camera means nothing to it. "
            "+a -b: a episodes were solved only with the input replaced, b only as it is. p: exact McNemar test, not "
            "adjusted for the number of rows."
        )
        yield tables.alterations_table(summary.alterations, settings)
    yield from choices
    if cautions := [*summary.cautions, *standing.cautions]:
        yield Heading("Cautions")
        yield Bullets(cautions, caution=True)
    if videos:
        yield Heading("Videos")
        yield Links([(path.removeprefix("videos/"), f"../{path}") for path in videos])
    yield Heading("Provenance")
    yield Table(["log", "sha256"], list(digests.items()))
    yield Table(
        ["method", "distinct fingerprints"],
        [[named(method, settings), str(count)] for method, count in summary.fingerprints.items()],
    )
    if standing.lines:
        yield tables.inputs_table(standing)
    for was, now in sorted({(line.inputs.config, line.renamed) for line in standing.lines.values() if line.renamed}):
        yield Text(
            f"Fields of config.json were renamed after the run, and nothing else: its digest was {was[:12]}, and is "
            f"{now[:12]} now."
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
    yield Text(", ".join(plural(n, noun) for n, noun in shape) + ".")
    if lines := list(_headlines(section, settings)):
        yield Bullets(lines)
        yield Text("In parentheses: 95 % Wilson intervals.")
    for name in pictures:
        yield Picture(name, name.removesuffix(".png").replace("_", " "))
    for shots in section.shots:
        yield Heading(f"Success after gradient steps on {plural(shots, 'demonstration')}", 3)
        yield tables.success_table(section, shots, settings)
    yield Text("Each entry: success rate, its 95 % Wilson interval, and the number of episodes n.")
    if any(point.copies for point in section.points):
        yield Text(
            "Equal meta-seeds: a method without randomness gives the same episodes for each, and they count once, in "
            "its rate as in its pairs with another method."
        )
    if levels := list(dict.fromkeys(named(point.method, settings) for point in section.points if point.level)):
        one = len(levels) == 1
        yield Text(
            f"No gradient steps: {' and '.join(levels)} {'fits' if one else 'fit'} a map of the frozen base's "
            "commands, or a calibration of its joints, to the demonstrations, without learning. "
            f"{'It has' if one else 'Each has'} one result and "
            "no random start; its row repeats that result, in the same episodes of one meta-seed, beside every number "
            "of steps that the others took."
        )
    if settings.reference is not None:
        name = named(settings.reference, settings)
        yield Text(
            f"+a -b: a episodes were solved by the method and not by {name}, b by {name} and not by the method. p: "
            "exact McNemar test over pairs of episodes with the same task, condition, demonstrations, initial state "
            "and meta-seed, Holm-adjusted over the methods in a column. The adjustment does not cover several columns: "
            "choose the column before looking at the results."
        )
    curves = [section.curve(method, shots) for method in section.methods for shots in section.shots]
    if any(point.unpaired for curve in curves for point in curve):
        yield Text("Not paired: the two methods were not run on the same episodes, see Cautions.")
    yield Heading("Gradient steps to reach a success rate", 3)
    yield tables.threshold_table(section, settings)
    yield Text(_reading("number of gradient steps", "after which"))
    if section.sample_efficiency:
        yield Heading("Demonstrations to reach a success rate", 3)
        yield tables.efficiency_table(section, settings)
        steps = plural(section.shots_steps or 0, "gradient step")
        yield Text(
            f"{_reading('number of demonstrations', 'with which')} Every method takes {steps}, and none at 0 "
            "demonstrations."
        )
    if section.power:
        yield Heading("Power of the paired test", 3)
        yield tables.power_table(section, settings)
        yield Text(
            "Discordant: the share of pairs in which exactly one of the two methods succeeds. Level: 0.05 divided by "
            "the number of methods compared at the same demonstrations and steps, the strictest step of Holm's method. "
            f"Detectable: the smallest difference from {named(settings.reference or '', settings)} that McNemar's test "
            "detects at this level with 80 % power, given the discordant share, or the difference itself where that is "
            "larger. Pairs needed: how many it takes to detect the observed difference with 80 % power. Both by "
            "Miettinen's formula."
        )
    if section.wall_clock:
        yield Heading("Seconds per adaptation", 3)
        yield tables.clock_table(section, settings)
        yield Text("Median and range over n adaptations; compilation is not included.")
    title = f"All {len(section.points)} combinations of method, demonstrations and steps, with clustered intervals"
    yield tables.point_table(section, settings, title)
    yield Text("Clustered: 95 % bootstrap interval over meta-seeds and over pairs of task and condition.")


def _frontier(found: Frontier, pictures: Sequence[str], settings: Settings) -> Iterable[Block]:
    yield Heading("New tasks against earlier ones: the adapter scaled and gated")
    yield from (Picture(name, name.removesuffix(".png").replace("_", " ")) for name in pictures)
    yield Text(
        "Scale: what adapting changed in the weights was multiplied by this; 1 is the adapted policy, 0 the frozen "
        "base. Each entry: success rate, its 95 % Wilson interval, and the number of episodes n. Base on these: the "
        "frozen base's success in the same episodes on earlier tasks. Kept: success there as a share of that."
    )
    for gate in found.gates:
        who = f"{named(gate.method, settings)} after {plural(gate.steps, 'step')}"
        alike = f"{gate.equal} of {plural(gate.n, 'episode')} on earlier tasks"
        so = "retention is exact" if gate.exact else "retention is not exact, see Cautions"
        yield Text(
            f"Gated: {who}, with its adapter for the instruction of its own task alone. In {alike} its commands, and "
            f"all that came of them, are the frozen base's from the same start, to the last bit: {so}."
        )
    yield tables.frontier_table(found, settings)


def _reading(number: str, relation: str) -> str:
    """How to read a table of what it takes to reach a success rate."""
    return (
        f"First line: the smallest measured {number} {relation} the estimated success rate is at least the rate of the "
        "column. Lower bound: the smallest one for which the lower end of the 95 % Wilson interval is at least that "
        "rate. Not reached: true of none that was measured."
    )


def _headlines(section: Section, settings: Settings) -> Iterable[str]:
    shots, steps = section.shots[0], section.shots_steps  # the fewest: few-shot is what is asked
    here = [p for p in section.points if (p.shots, p.steps) == (shots, steps)]
    for point in sorted(here, key=lambda p: -p.success):
        when = "without any gradient step" if point.level else f"after {plural(steps or 0, 'gradient step')}"
        line = (
            f"{named(point.method, settings)} solves {percent(point.success)} ({between(point.wilson)}) {when} "
            f"on {plural(shots, 'demonstration')}"
        )
        if point.versus is not None and point.p_holm is not None:
            gain = 100 * (point.versus.wins - point.versus.losses) / point.versus.pairs
            name = named(settings.reference or "", settings)
            line += f"; {gain:+.0f} points compared with {name}, {p_text(point.p_holm)}"
        yield line + "."


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170)
    return buffer.getvalue()


def main() -> None:
    """Command line: a run directory, and perhaps a reference method."""
    parser = argparse.ArgumentParser(
        prog="python -m metalora_jax.evaluation.reports",
        description="Figures and tables of an evaluation, computed from its raw episodes.",
    )
    parser.add_argument("run_dir", type=Path, help="directory with episodes*.jsonl and perhaps config.json")
    parser.add_argument("--reference", help="method that the others are tested against")
    parser.add_argument(
        "--draft", action="store_true", help="write a report even if inputs are not pinned, and mark it as a draft"
    )
    arguments = parser.parse_args()
    try:
        print(write_report(arguments.run_dir, reference=arguments.reference, draft=arguments.draft))
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(1, "interrupted; the same command starts over\n")
