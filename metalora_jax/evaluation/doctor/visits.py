"""The checks that need the simulator: rendering, the orientation of pictures, and the replay gate."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.evaluation.doctor import pictures, simulated
from metalora_jax.evaluation.doctor.findings import Finding, Outcome, in_spans, together
from metalora_jax.evaluation.doctor.motion import counts
from metalora_jax.evaluation.doctor.recordings import AGAIN, Recording
from metalora_jax.evaluation.doctor.simulated import Played, Take, Visit
from metalora_jax.words import plural

_DIM = 2.0  # [1/255] standard deviation of a picture that shows nothing
_PLACE = 0.03  # [m] by which the hand may be off at a start; official files are one step ahead
_ANGLE = 0.5  # [degrees] by which a joint may be


class Seen(NamedTuple):
    """The simulator's results for demonstrations of one task."""

    task: str
    visit: Visit
    played: dict[tuple[str, str], Played]  # (file, demonstration) -> what came of it


def visit(world: str, task: str, cameras: Sequence[str], image_size: int, recordings: Sequence[Recording]) -> Seen:
    """Plays `recordings`, all of one task; see `simulated.visit` for what it raises."""
    takes = [Take(r.start, r.state, r.actions) for r in recordings]
    seen = simulated.visit(world, task, cameras, image_size, takes)
    return Seen(task, seen, {(r.file, r.name): p for r, p in zip(recordings, seen.played, strict=True)})


def chosen(recordings: Sequence[Recording], most: int) -> list[Recording]:
    """The demonstrations to replay: the first `most` of each file that allow it."""
    picked = []
    for file in counts(recordings):
        able = [r for r in recordings if r.file == file and r.task and r.start.known and not r.start.noise]
        picked += able[:most]
    return picked


def rendering(seen: Sequence[Seen], cameras: Sequence[str]) -> Outcome:
    """Do the simulator's own pictures show something?"""
    found = []
    for one in seen:
        for camera, picture in zip(cameras, one.visit.scene, strict=True):
            if picture.std() < _DIM:
                remedy = "try MUJOCO_GL=osmesa, or MUJOCO_GL=egl; update the graphics driver or Mesa"
                found.append(Finding(camera, f"the simulator renders one even colour ({one.task})", remedy))
    return Outcome("rendering", tuple(found), f"{plural(len(cameras), 'camera')}, {plural(len(seen), 'task')}")


def orientation(recordings: Sequence[Recording], cameras: Sequence[str], seen: Sequence[Seen]) -> Outcome:
    """See `pictures.against_simulator`; if no start is known, any start of the task is used."""
    shown: dict[tuple[str, str], np.ndarray] = {}
    elsewhere: dict[tuple[str, str], np.ndarray] = {}
    for one in seen:
        for file in counts([r for r in recordings if r.task == one.task]):
            own = [r for r in recordings if r.file == file and r.task == one.task]
            played = [key for r in own if (key := (r.file, r.name)) in one.played and one.played[key].first.size]
            shown |= {key: one.played[key].first for key in played}
            if not played:
                elsewhere |= {(r.file, r.name): one.visit.scene for r in own[:_ANY]}
    return pictures.against_simulator(recordings, cameras, shown | elsewhere, elsewhere)


_ANY = 3  # demonstrations of a file that are compared with some start of their task


def starts(recordings: Sequence[Recording], seen: Sequence[Seen], joints: bool = False) -> Outcome:
    """Does the recorded state match the simulator's hand, or its `joints`, at the same start?"""
    found: list[tuple[str, str, str, str, float | None]] = []
    compared = 0
    for r, played in _played(recordings, seen):
        if played.trouble:
            continue
        compared += 1
        if len(r.state[0]) != len(played.state):
            what = f"the state has {len(r.state[0])} dimensions, the simulator's has {len(played.state)}"
            found.append((r.file, r.name, what, "record the state as envs.world describes it", None))
        elif joints:
            if (off := float(np.abs(r.state[0] - played.state).max())) > _ANGLE:
                what = "a joint starts {} from where the simulator puts it"
                found.append((r.file, r.name, what, "record joints as the simulator reads them, in its order", off))
        elif np.abs(r.state[0, :3] - played.state[:3]).max() > _PLACE:
            what = "the hand does not start where the simulator puts it"
            found.append((r.file, r.name, what, "record positions in metres and in the simulator's own frame", None))
    skipped = "" if compared else "no start is recorded that the simulator can be set to"
    return Outcome("state", together(in_spans(found), counts(recordings)), f"{compared} starts", skipped)


def replay(recordings: Sequence[Recording], seen: Sequence[Seen], most: int) -> Outcome:
    """The gate: recorded actions, replayed open-loop, must succeed."""
    if most == 0:
        return Outcome("replay", skipped="--replays=0")
    found, successes, played_all = [], 0, list(_played(recordings, seen))
    for r, played in played_all:
        successes += played.success
        if played.trouble:
            found.append((r.file, r.name, f"cannot be replayed: {played.trouble}", AGAIN))
        elif not played.success:
            remedy = _remedy(played, r)
            found.append((r.file, r.name, "its actions, replayed, do not solve the task", remedy))
    if not played_all:
        return Outcome("replay", skipped=_why_not(recordings))
    off = [float(played.off.max()) for _, played in played_all if played.off.size]
    note = f"{successes} of {len(played_all)} succeed"
    note += f", the hand at most {100 * max(off):.1f} cm off" if off else ""
    return Outcome("replay", together(found, counts(recordings)), note)


def _remedy(played: Played, r: Recording) -> str:
    if played.remedy:
        return f"they solve it with {played.remedy}: fix that"
    if not played.off.size:
        return "cut short, of another task, other actions than were executed, or itself a failure; drop it"
    away = np.flatnonzero(played.off > simulated.OFF)
    if not away.size:
        return "the hand follows its recorded path: cut short, of another task, or itself a failure; drop it"
    step = int(away[0]) * simulated.EVERY
    cause = "the start or the scene differs" if step == 0 else "the actions are not those that were executed"
    return f"the hand leaves its recorded path by step {step}: {cause}; fix the findings above, or drop it"


def _why_not(recordings: Sequence[Recording]) -> str:
    if not any(r.task for r in recordings):
        return "the task is unknown"
    if any(r.start.noise for r in recordings):
        return "recorded with pushes: the actions are the expert's, not those that were executed"
    return "no start is recorded (RLDS and LeRobot keep none); check the HDF5 file that the data came from"


def _played(recordings: Sequence[Recording], seen: Sequence[Seen]) -> Iterator[tuple[Recording, Played]]:
    for one in seen:
        for r in recordings:
            if (r.file, r.name) in one.played:
                yield r, one.played[r.file, r.name]
