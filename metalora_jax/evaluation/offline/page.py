"""What an offline evaluation ends with: raw records, numbers for programs, and a page to look at."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.evaluation.offline import figures
from metalora_jax.evaluation.offline.measure import NO_SUCCESS_RATE, Offline, verdict
from metalora_jax.evaluation.offline.rivals import HOLD, NAMES
from metalora_jax.evaluation.reports import document, provenance
from metalora_jax.evaluation.reports.provenance import Inputs
from metalora_jax.evaluation.reports.records import canonical
from metalora_jax.evaluation.reports.statistics import Difference, holm, paired_difference
from metalora_jax.evaluation.reports.tables import p_text
from metalora_jax.machine import files
from metalora_jax.words import listed

RECORDS, SUMMARY, CONFIG = "records.jsonl", "summary.json", "config.json"
_TITLE = "Offline evaluation"
_EPISODES = 6  # drawn over time, at most
_WORST = 6  # moments
_MEASURES = ("error", "of_mean", "quiet", "spread")


class Request(NamedTuple):
    """What was measured, for the records and the page."""

    labels: Mapping[str, str]  # policy -> name shown; the first is what the page is about
    episodes: Sequence[str]  # E names, such as "episode 7"
    inputs: Mapping[str, Inputs]  # policy -> what it came from; the rivals' are those of "base"
    config: Mapping[str, Any]  # what decides the numbers
    cautions: Sequence[str] = ()  # sentences


def write(directory: Path, result: Offline, request: Request) -> Path:
    """Writes records, provenance, summary, figures, report.md and index.html; returns the page."""
    directory.mkdir(parents=True, exist_ok=True)
    for page in ("report.md", "index.html"):  # of an earlier run: whoever finds one may trust what lies beside it
        (directory / page).unlink(missing_ok=True)
    labels = {**request.labels, **NAMES}
    files.write_json(directory / CONFIG, dict(request.config))
    provenance.keep(directory, request.inputs.values())
    files.write_text(directory / RECORDS, "".join(canonical(row) + "\n" for row in records(result, request)))
    files.write_json(directory / SUMMARY, summary(result, labels), allow_nan=False)
    pictures = {"error_by_step_ahead.png": figures.png(figures.ahead(result, labels))}
    first = next(iter(request.labels))
    order = np.argsort(-result.scaled(first), kind="stable")[:_EPISODES].tolist()
    shown = [first, *[name for name in request.labels if name == "base" and name != first]]
    for episode in order:
        pictures[f"episode_{episode}.png"] = figures.png(figures.over_time(result, episode, shown, labels))
    moments = worst_moments(result, first)
    for rank, row in enumerate(moments):
        pictures[f"worst_{rank}.png"] = figures.png(figures.worst(result, row, first, labels))
    for name, data in pictures.items():
        files.write_bytes(directory / name, data)
    blocks = list(_blocks(result, request, labels, order, moments))
    files.write_text(directory / "report.md", document.to_markdown(blocks))
    files.write_text(directory / "index.html", document.to_html(_TITLE, blocks, pictures))
    return directory / "index.html"


def records(result: Offline, request: Request) -> Iterable[dict[str, Any]]:
    """A row for each policy and episode; errors by joint in the robot's own units, see `data.action_errors.Errors`."""
    for name, found in result.errors.items():
        made, loss = request.inputs.get(name, request.inputs["base"]), result.loss(name)
        scaled = result.scaled(name)
        for episode, demo in enumerate(result.held_out):
            yield {
                "policy": name,
                "episode": request.episodes[episode],
                "instruction": demo.instruction,
                "frames": int((result.demo == episode).sum()),
                "joints": list(result.joints),
                **{measure: _numbers(getattr(found, measure)[episode]) for measure in _MEASURES},
                "root_mean_square": _numbers(np.sqrt(found.squared[episode])),
                "scaled_error": float(scaled[episode]),
                "loss": None if loss is None else float(loss[episode]),
                "fingerprint": made.fingerprint,
            }


def summary(result: Offline, labels: Mapping[str, str]) -> dict[str, Any]:
    """Every number of the page, for programs."""
    policies = {}
    for name, found in result.errors.items():
        loss = result.loss(name)
        policies[name] = {
            "label": labels[name],
            "scaled_error": float(result.scaled(name).mean()),
            "error_in_units": result.in_units(name),
            "loss": None if loss is None else float(loss.mean()),
            "joints": {
                joint: {measure: float(getattr(found, measure)[:, i].mean()) for measure in _MEASURES}
                | {"root_mean_square": float(np.sqrt(found.squared[:, i].mean()))}
                for i, joint in enumerate(result.joints)
            },
            "ahead": [[None if np.isnan(x) else float(x) for x in step] for step in found.ahead],
        }
    versus = {name: dataclasses.asdict(each) for name, each in _paired(result).items()}
    return {
        "episodes": len(result.held_out),
        "frames": len(result.demo),
        "actions": result.meaning.said,
        "policies": policies,
        "against_hold": versus,
    }


def worst_moments(result: Offline, name: str) -> list[int]:
    """Rows of the frames with the largest errors of a policy, none within half a chunk of another."""
    off, apart = result.by_frame(name), max(1, result.actions.shape[1] // 2)
    chosen: list[int] = []
    for row in np.argsort(-off, kind="stable").tolist():
        near = [r for r in chosen if result.demo[r] == result.demo[row]]
        if all(abs(int(result.moment[r]) - int(result.moment[row])) >= apart for r in near):
            chosen.append(row)
        if len(chosen) == _WORST:
            break
    return chosen


def _paired(result: Offline) -> dict[str, Difference]:
    """Every policy against standing still, over the same episodes."""
    clusters = [list(range(len(result.held_out)))]
    still = result.scaled(HOLD)
    return {n: paired_difference(result.scaled(n), still, clusters) for n in result.errors if n != HOLD}


def _blocks(
    result: Offline, request: Request, labels: Mapping[str, str], order: Sequence[int], moments: Sequence[int]
) -> Iterable[document.Block]:
    first = next(iter(request.labels))
    yield document.Heading(_TITLE, 1)
    loose = dict.fromkeys(x for made in request.inputs.values() for x in provenance.doubts(made.source))
    if said := [*[f"DRAFT, not to be cited: {x}." for x in loose], *request.cautions]:
        yield document.Bullets(said, caution=True)
    yield document.Text(verdict(result, first, labels[first]))
    yield document.Bullets([NO_SUCCESS_RATE], caution=True)
    count = len(result.held_out)
    yield document.Text(
        f"{count} held-out episode{'s' * (count != 1)} ({listed(request.episodes, 12)}), {len(result.demo)} frames, "
        f"{next(iter(result.predictions.values())).samples.shape[0]} draws of noise. {result.meaning.said[:1].upper()}"
        f"{result.meaning.said[1:]}. Every number is computed from {RECORDS}'s rows and the predictions behind them."
    )
    yield document.Heading("Action error")
    yield _table(result, labels)
    yield document.Text(
        "Mean absolute error of one predicted chunk, over episodes (each counts the same), frames and steps ahead, in "
        "the robot's own units for each joint. Scaled: mean over joints, each in standard deviations of the base's "
        "data. Mean of draws: the same of the mean over draws of noise. No noise: of the chunk from zero noise. "
        "Spread: standard deviation over draws. Hold pose repeats the last command, or is zero where actions are "
        "differences; mean action and nearest frame use the demonstrations that were learned from."
    )
    yield document.Heading("Against standing still, episode by episode", 3)
    yield _versus(result, labels)
    yield document.Heading("Over the steps ahead")
    yield document.Picture("error_by_step_ahead.png", "Error over the steps ahead of a chunk")
    yield document.Heading("Worst moments")
    for rank, row in enumerate(moments):
        where = f"{request.episodes[result.demo[row]]}, frame {result.moment[row]}"
        title = f"{where}: {result.by_frame(first)[row]:.2f} standard deviations"
        yield document.Heading(title, 3)
        yield document.Picture(f"worst_{rank}.png", title)
    yield document.Heading("Demonstrated and predicted, over time")
    yield document.Text("Those with the largest error first. Bands: a standard deviation over draws of noise.")
    for episode in order:
        title = f"{request.episodes[episode]}: {result.held_out[episode].instruction}"
        yield document.Heading(title, 3)
        yield document.Picture(f"episode_{episode}.png", title)
    yield document.Heading("Provenance")
    rows = [[labels[name], made.fingerprint, made.adapter or "none"] for name, made in request.inputs.items()]
    yield document.Table(["policy", "fingerprint", "adapter"], rows)
    yield document.Code(json.dumps(dict(request.config), indent=2, sort_keys=True), CONFIG)


def _table(result: Offline, labels: Mapping[str, str]) -> document.Table:
    rows = []
    for name, found in result.errors.items():
        loss = result.loss(name)
        totals = [float((getattr(found, m) / result.scale).mean()) for m in _MEASURES[1:]]
        several = found.spread.any()
        rows.append(
            [
                labels[name],
                *(f"{x:.3g}" for x in found.error.mean(axis=0)),
                f"{result.scaled(name).mean():.3f}",
                *(f"{x:.3f}" if several else "" for x in totals),
                "" if loss is None else f"{loss.mean():.3f}",
            ]
        )
    return document.Table(["", *result.joints, "scaled", "mean of draws", "no noise", "spread", "loss"], rows)


def _versus(result: Offline, labels: Mapping[str, str]) -> document.Table:
    paired = _paired(result)
    adjusted = dict(zip(paired, holm([each.p for each in paired.values()]), strict=True))
    rows = []
    for name, each in paired.items():
        between = "one episode" if each.interval is None else f"{each.interval.low:+.3f} to {each.interval.high:+.3f}"
        rows.append(
            [labels[name], f"{each.mean:+.3f}", between, str(each.better), str(each.worse), p_text(adjusted[name])]
        )
    header = ["", "scaled difference", "95 % over episodes", "better in", "worse in", "sign test (Holm)"]
    return document.Table(header, rows)


def _numbers(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]
