"""Pictures of offline errors: over the steps ahead, over the time of an episode, and at the worst moments."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from metalora_jax.evaluation.offline.measure import Offline
from metalora_jax.evaluation.offline.rivals import NAMES
from metalora_jax.evaluation.reports.figures import COLOURS, INK, MARKERS, REFERENCE, STYLE

_COLUMNS = 3  # panels in a row
_SHOWN = 4  # cameras beside the curves, at most


def look(name: str, policies: Sequence[str]) -> dict[str, Any]:
    """How a policy is drawn: the first is what a report is about, and rivals are thin and grey."""
    if name in NAMES:
        style = ("--", ":", "-.")[list(NAMES).index(name)]
        return {"color": "#888888", "linestyle": style, "linewidth": 1.3}
    rank = [each for each in policies if each not in NAMES].index(name)
    if rank == 0:
        return {"color": REFERENCE, "linewidth": 2.4}
    return {"color": COLOURS[(rank - 1) % len(COLOURS)], "linewidth": 1.6}


def ahead(result: Offline, labels: Mapping[str, str]) -> Figure:
    """Error at each step ahead, in standard deviations of the base's data, a line for each policy and rival."""
    policies = list(result.predictions)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.subplots()
        for name in policies:
            line = (result.errors[name].ahead / result.scale).mean(axis=1)
            axes.plot(np.arange(len(line)), line, label=labels[name], **look(name, policies))
        axes.set_xlabel("steps ahead")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("error [standard deviations]")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def over_time(result: Offline, episode: int, shown: Sequence[str], labels: Mapping[str, str]) -> Figure:
    """What was demonstrated in an episode and what some policies predict, a panel for each joint.

    From each frame that was looked at, the prediction is drawn until the next: what a robot would be told that
    observes as often. The band is a standard deviation over draws of noise.
    """
    rows = np.flatnonzero(result.demo == episode)
    truth = result.held_out[episode].actions
    moments = result.moment[rows]
    ends = np.append(moments[1:], len(truth))
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(result.joints), _COLUMNS)
        for joint, axes in enumerate(panels):
            axes.set_title(result.joints[joint], fontsize=9)
            axes.plot(truth[:, joint], color=INK, linewidth=1.2, label="demonstrated")
            for name in shown:
                style, samples = look(name, list(result.predictions)), result.predictions[name].samples
                parts = []
                for row, start, end in zip(rows, moments, ends, strict=True):
                    steps = min(end - start, samples.shape[2])
                    parts.append((start + np.arange(steps), samples[:, row, :steps, joint]))
                time = np.concatenate([np.append(at, np.nan) for at, _ in parts])  # a gap between two predictions
                gap = np.full((len(samples), 1), np.nan)
                values = np.concatenate([np.concatenate([part, gap], axis=1) for _, part in parts], axis=1)
                middle, spread = values.mean(axis=0), values.std(axis=0)
                axes.plot(time, middle, label=labels[name], **style)
                axes.fill_between(time, middle - spread, middle + spread, color=style["color"], alpha=0.18, linewidth=0)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=4, frameon=False)
        return figure


def worst(result: Offline, row: int, name: str, labels: Mapping[str, str]) -> Figure:
    """One frame: what the cameras show, and the chunks that were demonstrated and predicted from there, by joint."""
    episode, moment = int(result.demo[row]), int(result.moment[row])
    images = np.asarray(result.held_out[episode].images[moment])[:_SHOWN]
    real = ~result.is_pad[row]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 2.0 + 1.5 * -(-len(result.joints) // _COLUMNS)), layout="constrained")
        right: Any = figure
        if len(images):
            halves: Any = figure.subfigures(1, 2, width_ratios=(1, 2.4))
            left, right = halves
            for axes, image in zip(np.atleast_1d(left.subplots(len(images), 1)), images, strict=True):
                axes.imshow(image)
                axes.set_axis_off()
        grid = right.subplots(-(-len(result.joints) // _COLUMNS), _COLUMNS, squeeze=False)
        for joint, axes in enumerate(grid.flat):
            if joint >= len(result.joints):
                axes.set_axis_off()
                continue
            axes.set_title(result.joints[joint], fontsize=9)
            style = look(name, list(result.predictions)) | {"linewidth": 1.0, "alpha": 0.6}
            for number, sample in enumerate(result.predictions[name].samples[:, row, real, joint]):
                axes.plot(sample, label=labels[name] if number == 0 else None, **style)
            axes.plot(result.actions[row, real, joint], color=INK, linewidth=1.6, label="demonstrated")
        figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
        return figure


def curves(
    lines: Mapping[str, Sequence[tuple[int, float, tuple[float, float] | None]]],
    levels: Mapping[str, float],
    ylabel: str,
    labels: Mapping[str, str],
) -> Figure:
    """A measure over gradient steps: name -> (steps, mean, interval), and levels that no step changes."""
    names = list(lines)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.subplots()
        for rank, (name, marks) in enumerate(lines.items()):
            style = look(name, names) | {"marker": ("o", *MARKERS)[rank % (len(MARKERS) + 1)], "markersize": 4}
            x = np.log1p([steps for steps, _, _ in marks]) + 0.012 * rank
            axes.plot(x, [mean for _, mean, _ in marks], label=labels.get(name, name), **style)
            for at, (_, _, interval) in zip(x, marks, strict=True):
                if interval is not None:
                    axes.plot([at, at], interval, color=style["color"], linewidth=1.1, alpha=0.4)
        for name, level in levels.items():
            axes.axhline(level, label=labels.get(name, NAMES.get(name, name)), **look(name, [*names, name]))
        steps = sorted({step for marks in lines.values() for step, _, _ in marks})
        axes.set_xticks(np.log1p(steps), [str(step) for step in steps])
        axes.set_xlabel("gradient steps")
        axes.set_ylabel(ylabel)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file's content."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _panels(count: int, columns: int) -> tuple[Figure, list[Any]]:
    rows = -(-count // columns)
    figure = Figure(figsize=(11, 0.6 + 1.6 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid[:count]
