"""The doctor's findings, for the terminal and as a page with pictures."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metalora_jax.evaluation.doctor.findings import Outcome
from metalora_jax.evaluation.doctor.run import Result
from metalora_jax.evaluation.reports import document

_GAP = 4  # [px] between pictures
_TITLE = "Set-up and demonstrations"


def line(outcome: Outcome) -> str:
    """One check: ok, skipped, or each thing that is wrong."""
    head = "skipped" if outcome.skipped and not outcome.findings else "PROBLEM" if outcome.findings else "ok"
    said = [f"{head:8}{outcome.check:18}{outcome.skipped or outcome.note}"]
    return "\n".join([*said, *(f"{'':8}- {finding}" for finding in outcome.findings)])


def summary(outcomes: Sequence[Outcome]) -> str:
    """The short list: what is wrong, and how to fix it."""
    wrong = [finding for outcome in outcomes for finding in outcome.findings]
    if not wrong:
        return "nothing is wrong"
    lines = [f"{len(wrong)} {'thing is' if len(wrong) == 1 else 'things are'} wrong:"]
    for number, finding in enumerate(wrong, 1):
        lines += [f"{number:3}. {finding}", f"     fix: {finding.remedy}"]
    return "\n".join(lines)


def write(directory: Path, results: Sequence[Result]) -> list[Path]:
    """Writes index.html, report.md and the pictures; returns the page and every picture."""
    directory.mkdir(parents=True, exist_ok=True)
    captions = {caption: frames for result in results for caption, frames in result.frames.items()}
    pictures = {f"frame_{i}.png": (caption, _png(frames)) for i, (caption, frames) in enumerate(captions.items())}
    for name, (_, data) in pictures.items():
        (directory / name).write_bytes(data)
    blocks = _blocks([result.outcome for result in results], {name: caption for name, (caption, _) in pictures.items()})
    html = document.to_html(_TITLE, blocks, {name: data for name, (_, data) in pictures.items()})
    (directory / "index.html").write_text(html)
    (directory / "report.md").write_text(document.to_markdown(blocks))
    return [directory / "index.html", *(directory / name for name in pictures)]


def _blocks(outcomes: Sequence[Outcome], pictures: Mapping[str, str]) -> list[document.Block]:
    wrong = [f for outcome in outcomes for f in outcome.findings]
    rows = [
        (o.check, "wrong" if o.findings else "skipped" if o.skipped else "ok", o.skipped or o.note) for o in outcomes
    ]
    blocks: list[document.Block] = [document.Heading(_TITLE, 1)]
    if wrong:
        blocks += [document.Heading("What is wrong"), document.Bullets([f"{f}. Fix: {f.remedy}" for f in wrong], True)]
    else:
        blocks.append(document.Text("Nothing is wrong."))
    blocks += [document.Heading("Checks"), document.Table(("check", "result", "seen"), rows)]
    for name, caption in pictures.items():
        blocks += [document.Heading(caption, 3), document.Picture(name, caption)]
    return blocks


def _png(frames: Sequence[np.ndarray]) -> bytes:
    from PIL import Image

    height = max(frame.shape[0] for frame in frames)
    padded = [np.pad(f, ((0, height - len(f)), (0, _GAP), (0, 0)), constant_values=255) for f in frames]
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(padded, axis=1)).save(stream, "PNG")
    return stream.getvalue()
