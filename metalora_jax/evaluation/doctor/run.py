"""All checks in order. None stops the others: a failure becomes a finding, or a reason to skip the check."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.conventions import doubts
from metalora_jax.data import relative
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.data.sources.names import part_of
from metalora_jax.envs.world import world as world_named
from metalora_jax.evaluation.doctor import (
    choice,
    kinds_of_motion,
    motion,
    pictures,
    plain,
    proprioception,
    recordings,
    scales,
    sets,
    setup,
    visits,
    words,
)
from metalora_jax.evaluation.doctor.findings import Finding, Outcome, to_drop
from metalora_jax.evaluation.doctor.group import Group
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.evaluation.doctor.visits import Seen
from metalora_jax.machine.progress import progress
from metalora_jax.types import Demo
from metalora_jax.words import listed, plural

SHOTS = 4  # demonstrations that a base is tested on
_SIZE = 256  # [px] of pictures, if there are no demonstrations to take it from


class Request(NamedTuple):
    """What to check."""

    world: str  # one of envs.world.WORLDS, choice.NONE, or choice.AUTO: as the data say
    demos: tuple[str, ...] = ()  # files, directories, patterns
    cameras: tuple[str, ...] = ()  # empty: the world's; without a world, the data set's
    keys: Mapping[str, str] = {}
    task: str = ""  # of all demonstrations; empty: as files and instructions say
    base: str | None = None  # a directory; "" is the nano base, None no base
    statistics: str = ""  # a JSON file
    replays: int = 5  # of each file


class Result(NamedTuple):
    """One finished check, and its pictures."""

    outcome: Outcome
    frames: Mapping[str, tuple] = {}
    groups: tuple[Group, ...] = ()  # of episodes, to be drawn


def examine(request: Request) -> Iterator[Result]:
    """Runs every check, yielding each result as it is done."""
    chosen = choice.Choice(request.world, "--world")
    if request.world == choice.AUTO:
        chosen = choice.choose(recordings.files(request.demos)[0], request.keys)
    yield Result(Outcome("world", note=f"{chosen.world} ({chosen.why})"))
    request = request._replace(world=chosen.world)
    yield from _without_world(request) if chosen.world == choice.NONE else _in_world(request)


def _without_world(request: Request) -> Iterator[Result]:
    """Nothing is known but the data, and the base."""
    yield Result(setup.versions(request.world))
    paths, findings = recordings.files(request.demos)
    called = recordings.called(paths)
    layouts: list[sets.Layout] = []
    found: list[Recording] = []
    for path in paths:
        try:
            layouts.append(sets.layout(path, request.cameras, request.keys, called[path]))
        except (DemoError, ImportError) as error:
            findings.append(recordings.finding(called[path], error)._replace(file=called[path]))
            continue
        keys = sets.reader_keys(layouts[-1], request.keys)
        for one in recordings.read(path, tuple(layouts[-1].cameras), keys, lambda name, told: "", called[path]):
            if isinstance(one, Finding):
                findings.append(one)
            else:
                found.append(one)
    examined = plain.examine(layouts, found)
    if request.demos:
        yield Result(_read(paths, findings, found, examined.outcomes), groups=examined.groups)
    yield from map(Result, examined.outcomes)
    cameras = tuple(layouts[0].cameras) if layouts else ()
    known = request._replace(keys=sets.reader_keys(layouts[0], request.keys)) if layouts else request
    base, loaded = _base(known, found, cameras, paths, layouts)
    if loaded:
        yield Result(loaded)
    yield from map(Result, _statistics(request, found, base))
    yield from map(Result, _own_statistics(paths, found))


def _own_statistics(paths: Sequence[Path], found: Sequence[Recording]) -> Iterator[Outcome]:
    """Those that a LeRobot data set brings. Nothing here is computed from them, but lerobot trains under them."""
    for path, name in recordings.called(paths).items():
        if not (file := path / "meta" / "stats.json").is_file():
            continue
        try:
            given = scales.read(file)
        except ValueError:
            continue  # older versions have none of the whole
        wrong = scales.relative(f"{name}/meta/stats.json", given.action, [r for r in found if r.file == name])
        yield Outcome("own statistics", (wrong,) if wrong else (), "of the actions as they are recorded")


def _read(
    paths: Sequence[Path], findings: Sequence[Finding], found: Sequence[Recording], outcomes: Sequence[Outcome]
) -> Outcome:
    """What was read, and how many episodes nothing is wrong with."""
    dropped = {(file, number) for file, numbers in to_drop(outcomes).items() for number in numbers}
    usable = sum(r.key not in dropped for r in found)
    note = f"{_counted(paths, found)}, {usable} of them with nothing against them"
    return Outcome("files", tuple(findings), note)


def _counted(paths: Sequence[Path], found: Sequence[Recording]) -> str:
    return f"{plural(len(paths), 'file')}, {plural(len(found), 'demonstration')} read"


def _in_world(request: Request) -> Iterator[Result]:
    yield Result(setup.versions(request.world))
    graphics = setup.graphics(request.world)
    yield Result(graphics)
    known, why = _known(request)
    cameras = request.cameras or tuple(world_named(request.world).cameras)
    paths, read, found = _files(request, known, cameras)
    if request.demos:
        yield Result(read)
    if found:
        moved = pictures.TURNED if world_named(request.world).joints else pictures.MOVED
        yield Result(pictures.contents(found, cameras, moved))
        yield Result(pictures.one_orientation(found, cameras))
        yield Result(words.instructions(found, known, request.world) if known else Outcome("instructions", skipped=why))
        yield Result(kinds_of_motion.check(found))
        yield from (Result(outcome) for outcome in _of_motion(found, request.world))
        yield from (Result(outcome) for outcome in plain.against_others(_layouts(paths, cameras, request.keys), found))
    base, loaded = _base(request, found, cameras, paths)
    if loaded:
        yield Result(loaded)
    yield from (Result(outcome) for outcome in _statistics(request, found, base))
    if not known or (why := "; ".join(str(finding) for finding in graphics.findings)):
        yield Result(Outcome("simulator", skipped=why))
        return
    yield from _simulator(request, found, known, cameras)


def _layouts(paths: Sequence[Path], cameras: Sequence[str], keys: Mapping[str, str]) -> list[sets.Layout]:
    """Of those that can be read; why the others cannot has been said."""
    found = []
    for path, name in recordings.called(paths).items():
        with contextlib.suppress(DemoError, ImportError):
            found.append(sets.layout(path, cameras, keys, name))
    return found


def _known(request: Request) -> tuple[dict[str, str], str]:
    """Task -> instruction of the world; or none, and why."""
    world = world_named(request.world)
    try:
        return {task: world.instruction(task) for task in world.tasks()}, ""
    except ImportError as error:
        return {}, str(error)


def _files(
    request: Request, known: Mapping[str, str], cameras: Sequence[str]
) -> tuple[list[Path], Outcome, list[Recording]]:
    paths, findings = recordings.files(request.demos)
    if request.task and known and request.task not in known:
        findings.append(Finding("--task", _no_task(request), "name one of the world's tasks, or leave it out"))

    def name(file: str, instruction: str) -> str:
        return request.task if request.task in known else words.name_task(known, file, instruction)

    found: list[Recording] = []
    for path, called in recordings.called(paths).items():
        for one in recordings.read(path, cameras, request.keys, name, called):
            if isinstance(one, Finding):
                findings.append(one)
            else:
                found.append(one)
    note = _counted(paths, found)
    return paths, Outcome("files", tuple(findings), note), found


def _no_task(request: Request) -> str:
    """The world's own error about --task, which names the closest tasks."""
    try:
        return world_named(request.world).instruction(request.task)
    except ValueError as error:
        return str(error)


def _of_motion(found: Sequence[Recording], world: str) -> Iterator[Outcome]:
    """Actions and state, if they have the world's widths."""
    outcome, right = motion.widths(found, known := world_named(world))
    yield outcome
    if right and known.joints:
        yield motion.joint_targets(right, known)
    elif right:
        yield motion.ranges(right)
        outcome, sound = proprioception.states(right, world)
        yield outcome
        if sound:  # else errors in the state would be attributed to the actions
            yield motion.gripper(sound, world)
            yield motion.frame(sound, world)


def _base(
    request: Request,
    found: Sequence[Recording],
    cameras: Sequence[str],
    paths: Sequence[Path],
    layouts: Sequence[sets.Layout] = (),
) -> tuple[Base | None, Outcome | None]:
    if request.base is None:
        return None, None
    where = request.base or "the nano base"
    try:
        base = bases.load(request.base or None)
    except (ValueError, OSError) as error:
        return None, Outcome("base", (recordings.finding(where, error),))
    sizes, findings = base.sizes, []
    own = [part_of(name) for name in base.embodiment.cameras or ()]
    if own and not request.cameras and {*own} <= {*cameras}:
        cameras = own
    if sizes.cameras < len(request.cameras):
        what = f"it uses {plural(sizes.cameras, 'camera')}, but --cameras names {len(request.cameras)}"
        findings.append(Finding(where, what, "name the cameras that it was trained with, in its order"))
    elif not own and sizes.cameras < len(cameras) and request.world == choice.NONE:
        what = f"it uses {sizes.cameras} of the {len(cameras)} cameras: {', '.join(cameras[: sizes.cameras])}"
        remedy = "name those that it was trained with, in its order, with --cameras"
        findings.append(Finding(where, what, remedy, "info"))
    if sizes.cameras > len(cameras) and not own:
        what = f"it uses {plural(sizes.cameras, 'camera')}, but there are {len(cameras)}"
        findings.append(Finding(where, what, "missing cameras are filled with -1; check that it was trained that way"))
    widths = len(base.statistics.state_mean), len(base.statistics.action_mean)
    fit = [r for r in found if (r.state.shape[1], r.actions.shape[1]) == widths]
    if found and not fit:
        there = found[0].state.shape[1], found[0].actions.shape[1]
        what = (
            f"it has {widths[0]} state and {widths[1]} action dimensions, the demonstrations {there[0]} and {there[1]}"
        )
        findings.append(Finding(where, what, "use a base for this robot"))
    if fit:
        findings += _robots(where, base, layouts, found, cameras[: sizes.cameras])
    findings += words.lengths(found, base)
    known = base.statistics
    for name in dict.fromkeys(r.file for r in fit):
        states, actions = [r.state for r in fit if r.file == name], [r.actions for r in fit if r.file == name]
        if wrong := relative.mismatch(states, actions, known.relative, known.of_differences):
            findings.append(Finding(name, wrong.what, wrong.remedy))
    if fit and all(finding.severity != "error" for finding in findings):
        shown = cameras[: sizes.cameras]
        for path, name in recordings.called(paths).items():
            demos = recordings.demos(path, shown, request.keys, SHOTS)
            said = doubts(base, demos) if demos else []
            findings += [Finding(name, doubt, "convert the demonstrations to the base's conventions") for doubt in said]
    note = f"{where}, {plural(sizes.cameras, 'camera')}, {widths[0]} + {widths[1]} wide"
    if known.relative is not None:
        note += f", predicts {relative.said(known.relative, known.of_differences, base.embodiment.action or ())}"
    return base, Outcome("base", tuple(findings), note)


def _robots(
    where: str, base: Base, layouts: Sequence[sets.Layout], found: Sequence[Recording], cameras: Sequence[str]
) -> Iterator[Finding]:
    """Names, rate and units of each data set, held against those that the base records."""
    for layout in layouts:
        here = sets.embodiment(layout, cameras)
        own = [r for r in found if r.file == layout.name]
        try:
            said = embodiments.check(here, base.embodiment)
        except ValueError as error:
            yield recordings.finding(layout.name, error)._replace(file=layout.name)
            continue
        if own:
            values = [Demo(r.told, np.empty((len(r.actions), 0, 0, 0, 3), np.uint8), r.state, r.actions) for r in own]
            said += embodiments.check_units(here.measured(values), base.embodiment)
        for what in said:
            yield Finding(layout.name, what, f"make them agree, or use a base of this robot ({where})", "warning")


def _statistics(request: Request, found: Sequence[Recording], base: Base | None) -> Iterator[Outcome]:
    known = scales.of(base.statistics) if base else None
    bounded = request.world != choice.NONE and not world_named(request.world).joints
    if request.statistics:
        try:
            given = scales.read(Path(request.statistics))
        except ValueError as error:
            yield Outcome("statistics", (recordings.finding(request.statistics, error),))
        else:
            outcome = scales.statistics(given, request.statistics, found, bounded)
            more = scales.against(given, request.statistics, known) if known else []
            yield outcome._replace(findings=(*outcome.findings, *more))
    elif known:
        yield scales.statistics(known, f"statistics of {request.base or 'the nano base'}", found, bounded)
    else:
        yield Outcome("statistics", skipped="set --base or --statistics")


def _simulator(
    request: Request, found: Sequence[Recording], known: Mapping[str, str], cameras: Sequence[str]
) -> Iterator[Result]:
    sizes = [max(r.first.shape[1:3]) for r in found]
    size = max(set(sizes), key=sizes.count) if sizes else _SIZE
    tasks = list(dict.fromkeys(r.task for r in found if r.task)) or [request.task or next(iter(known))]
    played = visits.chosen(found, request.replays)
    seen: list[Seen] = []
    broken: dict[str, list[str]] = {}
    for task in progress(tasks, description="simulator, tasks"):
        try:
            seen.append(visits.visit(request.world, task, cameras, size, [r for r in played if r.task == task]))
        except Exception as error:  # whatever makes a simulator fail
            broken.setdefault(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}", []).append(task)
    remedy = "fix the findings above; if that does not help, run the task in this world by hand"
    findings = tuple(Finding(listed(names, 4), what, remedy) for what, names in broken.items())
    yield Result(Outcome("simulator", findings, f"{len(seen)} of {plural(len(tasks), 'task')} opened"))
    if not seen:
        return
    frames = {f"{s.task}: what the simulator shows": tuple(s.visit.scene) for s in seen[:1]}
    yield Result(visits.rendering(seen, cameras), frames)
    if found:
        pairs = {f"{task}: recorded, and in the simulator": both for task, both in _pairs(found, seen).items()}
        yield Result(visits.orientation(found, cameras, seen), pairs)
        yield Result(visits.starts(found, seen, bool(world_named(request.world).joints)))
        yield Result(visits.replay(found, seen, request.replays))


def _pairs(found: Sequence[Recording], seen: Sequence[Seen]) -> dict[str, tuple]:
    pairs = {}
    for one in seen:
        r = next(r for r in found if r.task == one.task)
        played = one.played.get((r.file, r.name))
        scene = played.first if played and played.first.size else one.visit.scene
        pairs[one.task] = tuple(picture for both in zip(r.first, scene, strict=True) for picture in both)
    return pairs
