"""Made-up sets as the doctor gets them: in memory, or written in the formats that people have."""

import json
from collections.abc import Sequence
from pathlib import Path

from metalora_jax.data import lerobot_v3, libero_hdf5
from metalora_jax.evaluation.doctor import plain, recordings
from metalora_jax.evaluation.doctor.findings import Finding, Outcome
from metalora_jax.evaluation.doctor.run import Request, Result, examine
from metalora_jax.evaluation.doctor.sets import Layout
from metalora_jax.types import Demo
from tests.evaluation.faulty_sets import CAMERAS, Kind, names

NAME = "set"


def digested(demos: Sequence[Demo]) -> list[recordings.Recording]:
    """As if read from a data set of that name."""
    start = recordings.Start()
    return [recordings.digested(NAME, f"episode {i}", i, "", d.instruction, d, start) for i, d in enumerate(demos)]


def layout(kind: Kind) -> Layout:
    """Of a set in memory."""
    return Layout(NAME, {c: c for c in CAMERAS}, (), names(kind), names(kind), kind.fps)


def outcomes(demos: Sequence[Demo], kind: Kind) -> dict[str, Outcome]:
    """Check -> what it finds, without files."""
    return {o.check: o for o in plain.examine([layout(kind)], digested(demos)).outcomes}


def examined(path: Path, **fields) -> list[Result]:
    """All results on a data set in files."""
    return list(examine(Request("auto", (str(path),), **fields)))


def above_info(found: Sequence[Outcome]) -> list[Finding]:
    """What a sound set must not have."""
    return [finding for outcome in found for finding in outcome.findings if finding.severity != "info"]


def named(findings: Sequence[Finding], episode: int) -> list[Finding]:
    """Those about an episode; a duplicate names both."""
    return [f for f in findings if episode in f.episodes or f.figures.get("other") == episode]


def write_lerobot(root: Path, demos: Sequence[Demo], kind: Kind, pictures: str = "h264") -> Path:
    """A LeRobot data set, version 3.0, with the names of its joints."""
    keys = {camera: f"observation.images.{camera}" for camera in CAMERAS}
    lerobot_v3.write(root, demos, CAMERAS, kind.fps, "so101_follower", pictures, keys)
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    for key in ("observation.state", "action"):
        info["features"][key]["names"] = list(names(kind))
    path.write_text(json.dumps(info))
    return root


def write_hdf5(path: Path, demos: Sequence[Demo]) -> Path:
    """A file in LIBERO's layout."""
    libero_hdf5.write(path, demos, CAMERAS, path.stem, {})
    return path
