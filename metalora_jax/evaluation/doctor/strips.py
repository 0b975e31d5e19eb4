"""One picture for each episode: what its cameras see, and state and action of every dimension beside the others'."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.data import signals
from metalora_jax.evaluation.doctor.findings import SEVERITIES, Finding, Outcome
from metalora_jax.evaluation.doctor.group import Group

MOST = 60  # episodes on a page: the flagged ones first
_KNOTS = 80  # points of the band of the others
_COLUMNS = 16  # panels in a row
_STATE, _ACTION, _FLAGGED = "#0072b2", "#d55e00", "#b00020"


class Strip(NamedTuple):
    """One episode."""

    title: str
    findings: tuple[tuple[str, Finding], ...]  # (check, finding)
    picture: bytes  # PNG


def draw(groups: Sequence[Group], outcomes: Sequence[Outcome]) -> list[Strip]:
    """Of the episodes, those with the worst findings first; at most MOST."""
    said: dict[tuple[str, int], list[tuple[str, Finding]]] = {}
    for outcome in outcomes:
        for finding in outcome.findings:
            for number in finding.episodes:
                said.setdefault((finding.file, number), []).append((outcome.check, finding))
    places = [(g, i) for g in groups for i in range(len(g))]
    places.sort(key=lambda place: _rank(said.get(place[0].recordings[place[1]].key, [])))
    bands = {group.layout.name: _bands(group) for group in groups}
    strips = []
    with _canvas() as figure:
        for group, i in places[:MOST]:
            r = group.recordings[i]
            found = tuple(said.get(r.key, ()))
            title = f"{r.file} {r.name}: {r.told}, {len(r.actions)} frames"
            strips.append(Strip(title, found, _picture(figure, group, i, bands[group.layout.name], bool(found))))
    return strips


def _rank(found: Sequence[tuple[str, Finding]]) -> tuple[int, int]:
    """The worst severity first, then the number of findings; order is kept otherwise."""
    return min((SEVERITIES.index(f.severity) for _, f in found), default=len(SEVERITIES)), -len(found)


class _canvas:
    """One matplotlib figure for all strips: making them anew takes most of the time."""

    def __enter__(self):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._figure = Figure(dpi=72)
        FigureCanvasAgg(self._figure)
        return self._figure

    def __exit__(self, *_) -> None:
        self._figure.clear()


def _bands(group: Group) -> Mapping[str, np.ndarray]:
    """Tenth and ninetieth percentile over episodes, (2, _KNOTS, d), of state and action."""
    found = {}
    for kind in ("state", "actions"):
        values = np.stack([signals.resampled(getattr(r, kind), _KNOTS) for r in group.recordings])
        found[kind] = np.quantile(values, [0.1, 0.9], axis=0)
    return found


def _picture(figure, group: Group, i: int, bands: Mapping[str, np.ndarray], flagged: bool) -> bytes:
    from matplotlib.collections import LineCollection, PolyCollection

    panels, names = _panels(group, i, bands)
    rows = -(-len(panels) // _COLUMNS)
    strip = _cameras(group.recordings[i].digest.strip)
    figure.clear()
    figure.set_size_inches(13, 1.3 * rows + (1.5 if strip.size else 0.2))
    top = 1.3 * rows / (1.3 * rows + (1.5 if strip.size else 0.2))
    if strip.size:
        seen = figure.add_axes((0.005, top, 0.99, 1 - top))
        seen.imshow(strip, interpolation="nearest", aspect="equal")
        seen.set_anchor("W")
        seen.set_axis_off()
    axes = figure.add_axes((0.005, 0.0, 0.99, top))
    axes.set_axis_off()
    lines: dict[str, list[np.ndarray]] = {_STATE: [], _ACTION: []}
    bodies, frames = [], []
    for k, (band, curves) in enumerate(panels):
        corner = np.array([1.08 * (k % _COLUMNS), -1.3 * (k // _COLUMNS)])
        frames.append(corner + np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]))
        if band is not None:
            bodies.append(corner + band)
        for colour, curve in curves:
            lines[colour].append(corner + curve)
        axes.text(corner[0], corner[1] + 1.05, names[k], fontsize=8, color="#222")
    axes.add_collection(PolyCollection(bodies, facecolors="#dddddd", edgecolors="none"))
    axes.add_collection(LineCollection(frames, colors=_FLAGGED if flagged else "#bbbbbb", linewidths=0.8))
    for colour, curves in lines.items():
        axes.add_collection(LineCollection(curves, colors=colour, linewidths=1.0))
    axes.set_xlim(-0.02, 1.08 * min(_COLUMNS, max(len(panels), 6)))
    axes.set_ylim(1.25 - 1.3 * rows, 1.25)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _panels(group: Group, i: int, bands: Mapping[str, np.ndarray]) -> tuple[list, list[str]]:
    """For each dimension of the state, with its command where that is a place; then the actions that are left."""
    r, panels, names = group.recordings[i], [], []
    together = {p.state: p.action for p in group.convention.pairs if not p.relative and p.state == p.action}
    for j in range(r.state.shape[1]):
        actions = r.actions[:, together[j]] if j in together else None
        panels.append(_panel(r.state[:, j], actions, bands["state"][..., j], _STATE))
        names.append(group.state_name(j))
    for k in range(r.actions.shape[1]):
        if k not in together.values():
            panels.append(_panel(r.actions[:, k], None, bands["actions"][..., k], _ACTION))
            names.append(f"{group.layout.action[k] if group.layout.action else k} (action)")
    return panels, names


def _panel(values: np.ndarray, command: np.ndarray | None, band: np.ndarray, colour: str):
    """Curves and the band of the others within the unit square, scaled to what they span together."""
    everything = [values, band.ravel(), *([] if command is None else [command])]
    low, high = min(v.min() for v in everything), max(v.max() for v in everything)
    size = max(float(high - low), 1e-9)

    def curve(line: np.ndarray) -> np.ndarray:
        return np.stack([np.linspace(0, 1, len(line)), (line - low) / size], axis=1)

    body = np.concatenate([curve(band[0]), curve(band[1])[::-1]])
    curves = [(colour, curve(values))]
    if command is not None:
        curves.append((_ACTION, curve(command)))
    return body, curves


def _cameras(strip: np.ndarray) -> np.ndarray:
    """(C, 3, h, w, 3) -> one picture: the cameras side by side, each at the start, in the middle and at the end."""
    if not strip.size:
        return np.zeros((0, 0, 3), np.uint8)
    gap = np.full((strip.shape[2], 3, 3), 255, np.uint8)
    parts = [part for camera in strip for picture in (*camera, gap) for part in (picture, gap[:, :1])]
    return np.concatenate(parts[:-3], axis=1)
