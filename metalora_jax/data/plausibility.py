"""Quick checks of demonstrations, against a base's statistics and against each other: nothing is rendered or run.

Every program that reads demonstrations runs them. They are written for any robot: no unit, frame or joint is assumed.
Scales are the base's standard deviations, or those of the demonstrations where there is no base.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.data import grippers, odd_joints
from metalora_jax.data.instructions import later
from metalora_jax.data.motions import unlike
from metalora_jax.data.normalize import Statistics, compute
from metalora_jax.types import Demo
from metalora_jax.words import listed

FAR_STATE = 5.0  # scales between the demonstrations' mean and the base's: a task has a place of its own, but not there
FAR_ACTION = 10.0  # scales between any action and the base's mean: rare pushes reach 5
WIDE = 6.0  # times the base's scale; scripted tasks vary up to 3 times as much as their mean over tasks
NARROW = 0.07  # times the base's scale, in all dimensions but one; scripted tasks stay above 0.12, radians are at 0.017
LEAST = 2e-4  # times the base's scale; what varies less does not move at all
UNITS = (  # (smaller numbers, larger numbers, factor): what one unit in place of the other looks like
    ("radians", "degrees", np.pi / 180),
    ("metres", "millimetres", 1e-3),
    ("metres", "centimetres", 1e-2),
)
NEAR = 3.0  # factor by which a task's own spread may hide the factor of a unit

STILL_NOISE = 0.1  # scales within which numbers without a trend are noise of a sensor
STILL = 1e-3  # scales within which nothing moves, whatever the trend
WIDEST = 6.0  # scales; what moves farther is in other units, and must not make all else look still
LEAVES = 0.05  # share of a demonstration's own range that it must leave its first (or last) value by, to have begun
RESTS = 0.01  # share of that range within which a twentieth of a demonstration counts as rest
IDLE_ENDS = 0.3  # share of the frames before the first motion and after the last that is said; scripted: below 0.2
IDLE = 0.5  # share of frames at rest that is said


class Idleness(NamedTuple):
    """How much of one demonstration nothing moves in."""

    whole: bool
    before: int  # frames before the last one that is still as the first
    after: int  # frames after the first one that is already as the last
    share: float  # of all frames at rest, wherever they are


def doubts(demos: Sequence[Demo], statistics: Statistics | None = None) -> list[str]:
    """Descriptions of what looks wrong, one sentence each; empty if nothing does.

    Args:
      demos: of one task.
      statistics: of the base that they are for; None compares them with each other alone.
    """
    found = [] if statistics is None else scales(demos, statistics)
    known = statistics if statistics is not None else compute(demos)
    return [
        *found,
        *_idle(demos, known),
        *grippers.doubts(demos, statistics),
        *odd_joints.doubts(demos, statistics),
        *unlike(demos, known),
    ]


def scales(demos: Sequence[Demo], statistics: Statistics) -> list[str]:
    """Is the data as wide as the base's, and in its place?"""
    found = []
    for kind, verb in (("state", "state varies"), ("action", "actions vary")):
        values = np.concatenate([d.state if kind == "state" else d.actions for d in demos]).astype(np.float64)
        mean, scale = (getattr(statistics, f"{kind}_{part}").astype(np.float64) for part in ("mean", "std"))
        wide, away = values.std(axis=0) / scale, (values.mean(axis=0) - mean) / scale
        furthest = np.abs(values - mean).max(axis=0) / scale
        for i, factor in enumerate(wide):
            where = f"{kind} dimension {i}"
            if factor > WIDE:
                found.append(f"{where} varies {factor:.2g} times as much as the base's data{_unit(factor)}")
            elif kind == "state" and abs(away[i]) > FAR_STATE:
                found.append(f"{where} lies {away[i]:+.0f} standard deviations from the base's data; other units?")
            elif kind == "action" and furthest[i] > FAR_ACTION:
                found.append(f"{where} goes {furthest[i]:.0f} standard deviations from the base's data; other scale?")
        widest = float(np.sort(wide)[-2:].min())  # of all but one, such as a gripper in a unit of its own
        if LEAST < widest < NARROW:
            found.append(f"{verb} {widest:.2g} times as much as the base's data, at most{_unit(widest)}")
    return found


def _unit(factor: float) -> str:
    """Which unit in place of which other would look like this factor."""
    near = []
    for small, large, true in UNITS:
        if 1 / NEAR < min(factor, 1 / factor) / true < NEAR:
            name, size = (f"{small} for {large}", true) if factor < 1 else (f"{large} for {small}", 1 / true)
            near.append(f"{name} would be {size:.3g}")
    return f"; {', '.join(near)}" if near else "; other units?"


def idleness(demo: Demo, statistics: Statistics) -> Idleness:
    """How much of a demonstration nothing moves in, neither the state nor the commands."""
    moves = np.concatenate([demo.state / statistics.state_std, demo.actions / statistics.action_std], axis=1)
    moves = moves.astype(np.float64)
    steps, reach = len(moves), np.ptp(moves, axis=0)
    moving = (reach > STILL) & (~_noise(moves) | (reach > STILL_NOISE))
    if not moving.any() or steps < 2:
        return Idleness(steps >= 2, steps, 0, 1.0)
    moves = moves[:, moving] * np.minimum(1.0, WIDEST / reach[moving])
    extent = float(np.ptp(moves, axis=0).max())
    begun = np.abs(moves - moves[0]).max(axis=1) > LEAVES * extent
    ended = np.abs(moves - moves[-1]).max(axis=1) > LEAVES * extent
    window = max(3, steps // 20)
    if steps <= window:
        return Idleness(False, 0, 0, 0.0)
    ahead = np.lib.stride_tricks.sliding_window_view(moves, window, axis=0)
    resting = np.ptp(ahead, axis=-1).max(axis=1) < RESTS * extent
    at_rest = np.zeros(steps, bool)
    for start in np.flatnonzero(resting):
        at_rest[start : start + window] = True
    return Idleness(False, int(begun.argmax()) - 1, int(ended[::-1].argmax()) - 1, float(at_rest.mean()))


def refuse_idle(demos: Sequence[Demo], statistics: Statistics, remedy: str) -> None:
    """Refuses demonstrations in which nothing moves at all.

    Raises:
      ValueError: the message names them, and ends with the remedy.
    """
    if still := [str(i) for i, demo in enumerate(demos) if idleness(demo, statistics).whole]:
        raise ValueError(
            f"nothing moves in demonstration {listed(still)} of {len(demos)} ({demos[int(still[0])].instruction!r}): "
            f"state and actions stay as they are; {remedy}"
        )


def trimmed(demo: Demo, statistics: Statistics) -> Demo:
    """The demonstration without the idle frames at its ends."""
    idle = idleness(demo, statistics)
    if idle.whole:
        return demo
    kept = slice(idle.before, len(demo.actions) - idle.after)
    steps = later(demo.steps, idle.before)
    return demo._replace(images=demo.images[kept], state=demo.state[kept], actions=demo.actions[kept], steps=steps)


def left_out(demos: Sequence[Demo], kept: Sequence[Demo]) -> str:
    """What `trimmed` made of demonstrations, in words."""
    lengths = [(len(demo.actions), len(rest.actions)) for demo, rest in zip(demos, kept, strict=True)]
    cut = [f"{i} ({before - after} of {before})" for i, (before, after) in enumerate(lengths) if after < before]
    total = sum(before for before, _ in lengths)
    frames = total - sum(after for _, after in lengths)
    if not cut:
        return f"none of {total} frames is left out: no demonstration has an idle end"
    return f"{frames} of {total} frames are left out: of demonstration {listed(cut)}"


def _noise(moves: np.ndarray) -> np.ndarray:
    """(D,) whether numbers (T, D) have no trend: neighbours differ as much as any two (von Neumann 1941)."""
    if len(moves) < 3:
        return np.zeros(moves.shape[1], bool)
    return np.mean(np.square(np.diff(moves, axis=0)), axis=0) > moves.var(axis=0)


def _idle(demos: Sequence[Demo], statistics: Statistics) -> list[str]:
    found, each = [], [idleness(demo, statistics) for demo in demos]
    lengths = [len(demo.actions) for demo in demos]
    ends = [(idle.before + idle.after) / steps for idle, steps in zip(each, lengths, strict=True)]
    whole = [str(i) for i, idle in enumerate(each) if idle.whole]
    if whole:
        found.append(
            f"nothing moves in demonstration {listed(whole)} of {len(demos)}: state and actions stay as they are"
        )
    if late := [f"{i} ({ends[i]:.0%})" for i, idle in enumerate(each) if not idle.whole and ends[i] > IDLE_ENDS]:
        found.append(f"the ends are idle in demonstration {listed(late)} of {len(demos)}, with the share of its frames")
    rest = float(np.average([idle.share for idle in each], weights=lengths))
    if rest > IDLE and not whole:
        found.append(f"the robot rests in {rest:.0%} of all frames: a loss that falls on those is no sign of success")
    moves = np.array([[bool(np.ptp(values, axis=0).any()) for values in (d.state, d.actions)] for d in demos])
    for only, still, other in (
        ([False, True], "the state stays as it is", "the actions do not: was it recorded?"),
        ([True, False], "the actions stay as they are", "the state does not: were the commands recorded?"),
    ):
        if which := [str(i) for i in np.flatnonzero((moves == only).all(axis=1))]:
            found.append(f"{still} in demonstration {listed(which)} of {len(demos)}, {other}")
    return found
