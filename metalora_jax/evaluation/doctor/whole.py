"""A data set as a whole, without a simulator: rate, units, what the actions mean, gripper, counts, texts."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from metalora_jax.data import convention, grippers, units
from metalora_jax.data.odd_joints import mirrored_homes
from metalora_jax.data.units import gripper_dimensions
from metalora_jax.evaluation.doctor import odd_commands, odd_motion, robust
from metalora_jax.evaluation.doctor.findings import Finding, Outcome
from metalora_jax.evaluation.doctor.group import FEWEST, Group
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.evaluation.doctor.sets import Layout
from metalora_jax.words import listed, plural

GAP = 0.5  # of a frame's duration: a time stamp that is further off belongs to another frame
RATE = 0.1  # share by which the rate of the time stamps may differ from the declared one
EARLY = (-0.5, -1.5)  # frames by which motion may come before places, and before differences, which trail the goal
SURE = (0.9, 0.7)  # correlation with places, and with differences, from which a sign or a scale is an error
SLOW = 0.6  # [s] after a command, beyond what servos and networks need
SCALE = 3.0  # factor between the ranges of state and command of one joint
UNEVEN = 4.0  # times as many episodes of one task as of another
IDLE = 0.4  # median share of an episode that is idle at its ends
_ID = re.compile(r"^[\w.-]*[\d_./][\w./-]*$")  # one word with digits, underscores or slashes


def names(layout: Layout, recordings: Sequence[Recording]) -> Outcome:
    """Are state, actions and cameras there, of one width, and named?"""
    found = []
    widths = Counter((r.state.shape[1], r.actions.shape[1]) for r in recordings)
    usual = max(widths, key=lambda pair: widths[pair])
    for r in recordings:
        if (own := (r.state.shape[1], r.actions.shape[1])) != usual:
            what = f"state and actions are {own[0]} and {own[1]} wide, in the others {usual[0]} and {usual[1]}"
            found.append(Finding(f"{r.file} {r.name}", what, "drop it", "error", r.file, (r.number,), r.told))
    for kind, given, width in (("state", layout.state, usual[0]), ("action", layout.action, usual[1])):
        if twice := [name for name, count in Counter(given).items() if count > 1]:
            what = f"{kind} has two dimensions named {twice[0]!r}"
            found.append(Finding(layout.name, what, "give each its own name", "warning", layout.name))
        if given and len(given) != width:
            what = f"{kind} has {plural(len(given), 'name')} for {plural(width, 'dimension')}"
            found.append(Finding(layout.name, what, "correct the names in info.json", "warning", layout.name))
    shown = listed(layout.state, 8) or "no names"
    where = f"{listed(tuple(layout.cameras), 4) or 'no camera'}; robot {layout.robot or 'not named'}"
    return Outcome("names", tuple(found), f"state {usual[0]}, action {usual[1]} ({shown}); {where}")


def rate(layout: Layout, recordings: Sequence[Recording]) -> Outcome:
    """Are frames evenly spaced, at the declared rate? Counted in frames, so that clocks may tremble."""
    if layout.fps is None or not layout.times:
        return Outcome(
            "rate", note=f"{layout.fps or 'unknown'} frames per second, no time stamps", skipped="no time stamps"
        )
    found, worst, known = [], 0.0, {r.number: r for r in recordings}
    steps = [np.diff(times) * layout.fps for times in layout.times.values() if len(times) > 1]
    median = float(np.median(np.concatenate(steps))) if steps else 1.0
    if abs(median - 1) > RATE:
        what = f"frames are {median:.2f} of 1/{layout.fps:g} s apart: another rate than declared"
        found.append(Finding(layout.name, what, "correct fps in info.json", "error", layout.name))
    for number, times in layout.times.items():
        off = np.abs(np.diff(times) * layout.fps - median)
        worst = max(worst, float(off.max(initial=0.0)))
        if off.max(initial=0.0) > GAP and number in known:
            frame, r = int(off.argmax()), known[number]
            what = f"{float(np.diff(times)[frame]) * layout.fps:.1f} frames pass after frame {frame}"
            found.append(
                Finding(f"{r.file} {r.name}", what, "frames are missing: drop it", "warning", r.file, (number,), r.told)
            )
    note = f"{layout.fps:g} frames per second, time stamps even within {worst:.2f} of a frame"
    return Outcome("rate", tuple(found), note)


def ranges(group: Group) -> Outcome:
    """The usual range of each dimension, and the unit that it seems to have; constants are named."""
    said, found = [], []
    for kind, given, values in (
        ("state", group.layout.state, [r.state for r in group.recordings]),
        ("action", group.layout.action, [r.actions for r in group.recordings]),
    ):
        low, high = (np.median([np.quantile(v, q, axis=0) for v in values], axis=0) for q in (0.005, 0.995))
        width = len(low)
        named = given if len(given) == width else ()
        hands = gripper_dimensions(named, width)
        guesses = units.guess(named, low, high, hands)
        if kind == "action" and group.convention.relative:
            guesses = [units.Guess("differences", 0.8) if i not in hands else g for i, g in enumerate(guesses)]
        parts = [
            f"{named[i] if named else i} {low[i]:.3g}..{high[i]:.3g} {g.unit} ({g.sure:.0%})"
            for i, g in enumerate(guesses)
        ]
        said.append(f"{kind}: {', '.join(parts)}")
        extent = np.max([np.ptp(v, axis=0) for v in values], axis=0)
        for i in np.flatnonzero(extent == 0):
            what = f"{kind} dimension {named[i] if named else i} is constant in all episodes"
            remedy = "harmless if the robot has no such joint in use; a policy cannot learn it"
            found.append(Finding(group.layout.name, what, remedy, "info", group.layout.name))
    return Outcome("ranges", tuple(found), "; ".join(said))


def meaning(group: Group) -> Outcome:
    """Absolute or relative, which state each action commands, with which sign, scale and lag."""
    pairs, where = group.convention.pairs, group.layout.name
    found = [*_mirrored(group)]
    moving = np.flatnonzero(group.action.active)
    if not pairs:
        what = (
            "no action explains any state: they belong to other moments, or command something that is not in the state"
        )
        remedy = "store with every frame the command that was sent after it"
        level = "warning" if len(moving) and group.state.active.any() else "info"
        found.append(Finding(where, what, remedy, level, where))
        return Outcome("actions", tuple(found), "no action explains any state")
    a = odd_commands.answers(group)
    lag, agreement = float(robust.median(a.lag)), float(np.median(a.agreement))
    same = group.state.span.shape == group.action.span.shape
    clear = 0  # pairs of the arm that leave no doubt about what they mean
    for k, pair in enumerate(pairs):
        if pair.gripper:
            continue
        name, gain = group.pair_name(pair), float(robust.median(a.gain[:, k]))
        scaled = not pair.relative and not 1 / SCALE < gain < SCALE
        clear += pair.sign > 0 and not scaled
        if not same or pair.state != pair.action or pair.strength < SURE[pair.relative]:
            continue
        if pair.sign < 0 and not scaled:  # else a controller that commands a share of the way that is left
            what = f"{name} moves against its command in all episodes: the sign of one of them is reversed"
            found.append(Finding(where, what, "reverse it when converting", "error", where))
        elif pair.sign > 0 and scaled:
            what = f"the state of {name} ranges {gain:.2g} times as far as its command: other units"
            found.append(Finding(where, what, "bring both into one unit", "error", where, figures={"gain": gain}))
    limit = SLOW * group.layout.fps if group.layout.fps else 2.0 * group.convention.reach
    sure = agreement > odd_commands.AGREES and 2 * clear > len(group.convention.arm)
    if sure and lag < EARLY[group.convention.relative]:
        what = f"the robot moves {-lag:.1f} frames before its commands: shifted, or state and action exchanged"
        found.append(Finding(where, what, "store with every frame the command that was sent after it", "error", where))
    elif sure and lag > limit:
        what = f"the robot moves {lag:.1f} frames after its commands"
        found.append(Finding(where, what, "shift the actions, if they were recorded late", "warning", where))
    if np.median(a.residual) < 1e-6:
        what = "the actions are the next states: no commands were recorded"
        remedy = "fine for a policy that commands places; what the robot was told is not known"
        found.append(Finding(where, what, remedy, "info", where))
    unexplained = [i for i in moving if i not in {p.action for p in pairs}]
    when = "at no clear lag from" if np.isnan(lag) else f"{lag:.1f} frames after"
    kind = "differences" if group.convention.relative else "absolute"
    note = (
        f"{kind}; motion comes {when} commands, agreement {agreement:.2f}; "
        f"{len(pairs)} of {len(moving)} dimensions explained"
    )
    if unexplained:
        which = listed([group.layout.action[i] if group.layout.action else str(i) for i in unexplained], 4)
        found.append(Finding(where, f"no state follows the actions {which}", "compare them by eye", "info", where))
    return Outcome("actions", tuple(found), note)


def _mirrored(group: Group) -> Iterator[Finding]:
    """Joints of either sign, where the episodes of neither are few: those are named one by one, as odd ones."""
    states, actions = [r.state for r in group.recordings], [r.actions for r in group.recordings]
    where, remedy = group.layout.name, "bring them to one sign: the two halves contradict each other"
    hands = gripper_dimensions(group.layout.action, actions[0].shape[1])
    for turned in convention.mirrored(states, actions, group.layout.fps, hands):
        along, against = ([group.recordings[i].number for i in part] for part in (turned.along, turned.against))
        if 3 * min(len(along), len(against)) > len(group) or len(group) < FEWEST:
            what = (
                f"{group.state_name(turned.state)} moves along with its command in episodes {_numbers(along)}, and "
                f"against it in {_numbers(against)}: mirrored in some of them"
            )
            yield Finding(where, what, remedy, "error", where)
    for joint, above, below, home in mirrored_homes(states):
        sides = ([group.recordings[i].number for i in part] for part in (above, below))
        what = (
            f"{group.state_name(joint)} starts near {home:.3g} in episodes {_numbers(next(sides))}, and near "
            f"{-home:.3g} in {_numbers(next(sides))}: mirrored in some of them, or two ways to start"
        )
        yield Finding(where, what, "look at the strips; bring them to one sign, or split the set", "warning", where)


def _numbers(episodes: Sequence[int]) -> str:
    return listed([str(number) for number in episodes], 6)


def gripper(group: Group) -> Outcome:
    """Which dimension it is, whether it has two values or many, and whether it is used."""
    width = group.recordings[0].actions.shape[1]
    which = [i for i in gripper_dimensions(group.layout.action, width) if i < width]
    if not which:
        return Outcome("gripper", skipped="no dimension is named gripper, finger, jaw or claw")
    found, notes = [], []
    for i in which:
        values = [r.actions[:, i] for r in group.recordings]
        moves = sum(bool(np.ptp(v) > 0) for v in values)
        kinds = len(np.unique(np.concatenate([np.unique(v)[:9] for v in values])))
        name = group.layout.action[i] if group.layout.action else f"action dimension {i}"
        low, high = min(v.min() for v in values), max(v.max() for v in values)
        kind = "two values" if kinds == 2 else "continuous"
        notes.append(f"{name} {low:.3g}..{high:.3g}, {kind}, used in {moves} of {len(values)}")
        if moves == 0:
            what = f"{name} never moves in any episode"
            found.append(Finding(group.layout.name, what, "fine if nothing is grasped", "info", group.layout.name))
        for said in grippers.beyond(np.concatenate(values)[:, None]).values():
            odd = [r.number for r, v in zip(group.recordings, values, strict=True) if grippers.beyond(v[:, None])]
            what = f"{name} {said}" + (f", in episodes {_numbers(odd)}" if odd else "")
            remedy = "a value outside the gripper's range: map it to its end, or drop those episodes"
            found.append(Finding(group.layout.name, what, remedy, "warning", group.layout.name))
    return Outcome("gripper", tuple(found), "; ".join(notes))


def idle(group: Group) -> Outcome:
    """Do most episodes stand still for long at their ends?"""
    share = np.median((np.array(group.idle)[:, [0, 2]]).sum(axis=1) / group.steps)
    if share <= IDLE:
        return Outcome("idle", note=f"{share:.0%} of an episode at its ends, in the median")
    what = f"nothing moves in {share:.0%} of most episodes, at their ends"
    found = Finding(group.layout.name, what, "trim them: a policy learns to stand still", "warning", group.layout.name)
    return Outcome("idle", (found,), f"{share:.0%}")


def counts(recordings: Sequence[Recording]) -> Outcome:
    """Are there about as many episodes of each task?"""
    tasks = Counter(r.told for r in recordings)
    note = f"{plural(len(recordings), 'episode')} of {plural(len(tasks), 'task')}"
    low, high = min(tasks.values()), max(tasks.values())
    if high < UNEVEN * low:
        return Outcome("counts", note=note)
    rare, often = (next(t for t, n in tasks.items() if n == count) for count in (low, high))
    what = f"{plural(high, 'episode')} of {often!r}, {low} of {rare!r}"
    found = Finding(recordings[0].file, what, "sample tasks evenly, or record more", "info", recordings[0].file)
    return Outcome("counts", (found,), note)


def texts(recordings: Sequence[Recording]) -> Outcome:
    """Are instructions words, and is each task told in one way?"""
    told, where = sorted({r.written for r in recordings}), recordings[0].file
    found = []
    for text in told:
        if _ID.match(text.strip()) or not re.search(r"[^\W\d_]", text):
            what = f"the instruction {text!r} is a name or a number, not a sentence"
            found.append(Finding(where, what, "write what the robot is told into it", "warning", where, task=text))
    found += [
        Finding(
            where, f"{a!r} and {b!r} say the same: one task is counted as two", "write them alike", "warning", where
        )
        for a, b in itertools.combinations(told, 2)
        if _bare(a) == _bare(b)
    ]
    return Outcome("texts", tuple(found), f"{plural(len(told), 'instruction')}: {listed([repr(t) for t in told], 3)}")


def _bare(text: str) -> str:
    words = re.sub(r"[^\w\s]", " ", text.lower().replace("_", " ")).split()
    return " ".join(word for word in words if word not in ("the", "a", "an"))


def explained(group: Group, outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """Leaves out what follows from a finding about units: other paths, jumps and noise of that episode.

    Whether such an episode is idle at its ends is told by its own range.
    """
    units_off = {f.episodes for o in outcomes if o.check == "commands" for f in o.findings if "factor" in f.figures}
    for outcome in outcomes:
        if outcome.check in ("paths", "smoothness", "idle ends"):
            kept = tuple(f for f in outcome.findings if f.episodes not in units_off)
            if units_off and outcome.check == "idle ends":
                numbers = {number for each in units_off for number in each}
                again = odd_motion.idle_ends(group, group.idle_at_own_range(numbers))
                kept += tuple(f for f in again.findings if f.episodes in units_off)
            outcome = outcome._replace(findings=kept)
        yield outcome
