"""The doctor's findings: for the terminal, as JSON, and as a page with pictures."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax.evaluation.doctor import strips
from metalora_jax.evaluation.doctor.findings import SEVERITIES, Finding, Outcome, dropping, to_drop
from metalora_jax.evaluation.doctor.run import Result
from metalora_jax.evaluation.reports import document
from metalora_jax.machine import files

_GAP = 4  # [px] between pictures
_TITLE = "Set-up and demonstrations"
_HEADS = {"error": "PROBLEM", "warning": "WARNING", "info": "info", "": "ok"}
_LEGEND = (
    "Each episode: its cameras at the start, in the middle and at the end, then every dimension over time. Blue is the "
    "state, orange the action, grey where eight tenths of the episodes are. Flagged episodes come first, framed in red."
)


def line(outcome: Outcome) -> str:
    """One check: ok, skipped, or each thing that is wrong."""
    head = "skipped" if outcome.skipped and not outcome.findings else _HEADS[outcome.worst]
    said = [f"{head:8}{outcome.check:17} {outcome.skipped or outcome.note}"]
    return "\n".join([*said, *(f"{'':8}- {finding}" for finding in outcome.findings)])


def summary(outcomes: Sequence[Outcome]) -> str:
    """The short list: what is wrong, and how to fix it; then what else is worth knowing."""
    found = [finding for severity in SEVERITIES for finding in _of(outcomes, severity)]
    wrong = [finding for finding in found if finding.severity != "info"]
    lines = ["nothing is wrong"]
    if wrong:
        lines = [f"{len(wrong)} {'thing is' if len(wrong) == 1 else 'things are'} wrong:"]
    for number, finding in enumerate(wrong, 1):
        lines += [f"{number:3}. {finding.severity}: {finding}", f"     fix: {finding.remedy}"]
    lines += [f"worth knowing: {finding}" for finding in found if finding.severity == "info"]
    for file, numbers in to_drop(outcomes).items():
        lines.append(f"to drop or mend in {file}: {dropping(file, numbers)}")
    return "\n".join(lines)


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Everything for programs. One entry for each finding, and for each episode that it is about."""
    outcomes = [result.outcome for result in results]
    found = [_entry(o.check, f, episode) for o in outcomes for f in o.findings for episode in (f.episodes or (None,))]
    checks = [
        {"check": o.check, "result": "skipped" if o.skipped else o.worst or "ok", "seen": o.skipped or o.note}
        for o in outcomes
    ]
    return {"version": 1, "findings": found, "drop": to_drop(outcomes), "checks": checks}


def write(directory: Path, results: Sequence[Result]) -> list[Path]:
    """Writes index.html, report.md and the pictures; returns the page and every picture."""
    directory.mkdir(parents=True, exist_ok=True)
    captions = {caption: frames for result in results for caption, frames in result.frames.items()}
    pictures = {f"frame_{i}.png": (caption, _png(frames)) for i, (caption, frames) in enumerate(captions.items())}
    outcomes = [result.outcome for result in results]
    groups = [group for result in results for group in result.groups]
    drawn = strips.draw(groups, outcomes)
    # By their place on the page, flagged ones first: not by episode, whose numbers several data sets share.
    pictures |= {f"strip_{i}.png": (strip.title, strip.picture) for i, strip in enumerate(drawn)}
    for name, (_, data) in pictures.items():
        files.write_bytes(directory / name, data)
    blocks = _blocks(outcomes, drawn, {name: caption for name, (caption, _) in pictures.items()})
    html = document.to_html(_TITLE, blocks, {name: data for name, (_, data) in pictures.items()})
    files.write_text(directory / "report.md", document.to_markdown(blocks))
    files.write_text(directory / "index.html", html)
    return [directory / "index.html", *(directory / name for name in pictures)]


def _of(outcomes: Sequence[Outcome], severity: str) -> list[Finding]:
    return [finding for outcome in outcomes for finding in outcome.findings if finding.severity == severity]


def _entry(check: str, finding: Finding, episode: int | None) -> dict[str, Any]:
    return {
        "check": check,
        "severity": finding.severity,
        "file": finding.file or finding.where,
        "episode": episode,
        "task": finding.task,
        "what": finding.what,
        "remedy": finding.remedy,
        "figures": {name: float(value) for name, value in finding.figures.items()},
    }


def _blocks(
    outcomes: Sequence[Outcome], drawn: Sequence[strips.Strip], pictures: Mapping[str, str]
) -> list[document.Block]:
    blocks: list[document.Block] = [document.Heading(_TITLE, 1)]
    general = [f for o in outcomes for f in o.findings if not (drawn and f.episodes)]
    if not any(o.worst in SEVERITIES[:2] for o in outcomes):
        blocks.append(document.Text("Nothing is wrong."))
    if general:
        said = [f"{f.severity}: {f}. Fix: {f.remedy}" for f in general]
        blocks += [document.Heading("What is wrong"), document.Bullets(said, True)]
    if drops := to_drop(outcomes):
        said = [f"{file}: {', '.join(map(str, numbers))}" for file, numbers in drops.items()]
        blocks += [document.Heading("Episodes to drop or mend"), document.Bullets(said)]
    if drawn:
        blocks += [document.Heading("Episodes"), document.Text(_LEGEND)]
    for i, strip in enumerate(drawn):
        blocks.append(document.Heading(strip.title, 3))
        if strip.findings:
            said = [f"{f.severity}, {check}: {f.what}. Fix: {f.remedy}" for check, f in strip.findings]
            blocks.append(document.Bullets(said, True))
        blocks.append(document.Picture(f"strip_{i}.png", strip.title))
    rows = [(o.check, "skipped" if o.skipped else o.worst or "ok", o.skipped or o.note) for o in outcomes]
    blocks += [document.Heading("Checks"), document.Table(("check", "result", "seen"), rows)]
    for name, caption in pictures.items():
        if name.startswith("frame_"):
            blocks += [document.Heading(caption, 3), document.Picture(name, caption)]
    return blocks


def _png(frames: Sequence[np.ndarray]) -> bytes:
    from PIL import Image

    height = max(frame.shape[0] for frame in frames)
    padded = [np.pad(f, ((0, height - len(f)), (0, _GAP), (0, 0)), constant_values=255) for f in frames]
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(padded, axis=1)).save(stream, "PNG")
    return stream.getvalue()
