"""One episode against the others: do its commands explain its motion in the same way?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from metalora_jax.data import convention, signals
from metalora_jax.evaluation.doctor import robust
from metalora_jax.evaluation.doctor.findings import Finding, Outcome
from metalora_jax.evaluation.doctor.group import Group
from metalora_jax.evaluation.doctor.odd_motion import CLEAR

LATE = (1.5, 2.5)  # frames from the others' lag, for places and for differences; recorders keep within half a frame
AHEAD = 0.8  # frames, where the motion comes before its command, which the others' does not
AGREES = 0.6  # correlation of command and motion from which lags and signs mean something
AGAINST = -0.4  # correlation of a dimension with its command, times the usual sign
LESS = 0.6  # of the usual agreement, below which commands no longer explain the motion
OTHER_UNIT = 1.6  # factor between state and command, over the usual one: arms that follow are within a few percent
OTHER_GRIP = 3.0  # the same for grippers, which what they hold keeps open
BOTH = 5.0  # factor of both state and actions over the usual range
STILL, MOVES = 0.05, 0.3  # of the usual span: a dimension does not move, or clearly does
EXACT = 0.2  # of the usual difference between a command and what came of it
_WINDOW = 3  # frames
_ENDS = 5  # frames: a shorter end may be an answer that has not come yet
_KNOWN = {57.2958: "degrees for radians", 1 / 57.2958: "radians for degrees", 1000.0: "1000 times", 0.001: "1/1000",
          100.0: "100 times", 0.01: "1/100"}  # fmt: skip

_OF_TIME = "shift the actions of this episode by as much, or drop it"
_OF_UNIT = "bring this episode into the units of the others, or drop it"
_OF_SIGN = "reverse the sign in this episode, or drop it"


class Answers(NamedTuple):
    """How episodes answer their commands; n episodes, p pairs."""

    lag: np.ndarray  # (n,) frames
    agreement: np.ndarray  # (n,) in [0, 1]
    own: np.ndarray  # (n, p) correlation at that lag, times the usual sign
    gain: np.ndarray  # (n, p) range of the motion over that of the command
    state: np.ndarray  # (n, p) range of the state in usual spans
    action: np.ndarray  # (n, p) the same of the action
    ignored: np.ndarray  # (n, p) range of the action over the end of the episode in which the state stands still
    since: np.ndarray  # (n, p) the frame in which that end begins
    residual: np.ndarray  # (n,) difference between a command and the next state, in usual spans


def answers(group: Group) -> Answers:
    """Of every episode of a group that has pairs."""
    pairs, arm = group.convention.pairs, group.convention.arm
    lags, agreement, own, gains, residual, ends = [], [], [], [], [], []
    spans = [np.array([getattr(group, kind).span[getattr(p, kind)] for p in pairs]) for kind in ("state", "action")]
    for r in group.recordings:
        lag, score = signals.best_lag(*convention.velocities(arm, r.state, r.actions, _WINDOW), group.convention.reach)
        at = 0 if np.isnan(lag) else round(lag)
        c, m = signals.shifted(*convention.velocities(pairs, r.state, r.actions, group.convention.window), at)
        a, s = signals.shifted(r.actions[:, [p.action for p in pairs]], r.state[:, [p.state for p in pairs]], at)
        rows = []
        for k, pair in enumerate(pairs):
            x, y = (c[:, k], m[:, k]) if pair.relative else (a[:, k], s[:, k])
            value = signals.correlation(x[:, None], y[:, None])[0, 0] if len(x) > 4 else np.nan
            rows.append((pair.sign * value, _ratio(y, x, pair.relative)))
        own.append([row[0] for row in rows])
        gains.append([row[1] for row in rows])
        lags.append(lag)
        agreement.append(score)
        residual.append(_residual(group, r.state, r.actions))
        scaled = [
            (r.state[:, p.state] / spans[0][k], r.actions[:, p.action] / spans[1][k]) for k, p in enumerate(pairs)
        ]
        ends.append([_still_end(*each) for each in scaled])
    state, action = group.spread("state") / spans[0], group.spread("action") / spans[1]
    whole = [np.array(values) for values in (lags, agreement, own, gains)]
    ignored, since = np.moveaxis(np.array(ends, float), 2, 0)
    return Answers(whole[0], whole[1], whole[2], whole[3], state, action, ignored, since, np.array(residual))


def _still_end(state: np.ndarray, action: np.ndarray) -> tuple[float, int]:
    """Range of an action (T,) over the end of an episode, in which its state (T,) stands still, and where it begins."""
    back = state[::-1]
    start = int(np.sum(np.maximum.accumulate(back) - np.minimum.accumulate(back) > STILL))
    return float(np.ptp(action[start:])) if start < len(action) - _ENDS else 0.0, start


def _ratio(motion: np.ndarray, command: np.ndarray, relative: bool) -> float:
    """Of their sizes: NaN if either does not move."""
    size = [
        np.sqrt((v**2).mean()) if relative else np.quantile(v, 0.95) - np.quantile(v, 0.05) for v in (motion, command)
    ]
    return float(size[0] / size[1]) if min(size) > 1e-9 else float("nan")


def _residual(group: Group, state: np.ndarray, action: np.ndarray) -> float:
    """Median difference between commands and the next states, in usual spans, over the arm's pairs."""
    parts = []
    for p in group.convention.arm:
        came = np.diff(state[:, p.state]) if p.relative else state[1:, p.state]
        parts.append(np.abs(came - action[:-1, p.action]) / group.state.span[p.state])
    return float(np.median(np.concatenate(parts))) if parts and len(state) > 1 else float("nan")


def commands(group: Group) -> Outcome:
    """Lag, sign, units and agreement of commands and motion, against the other episodes'."""
    if not group.convention.pairs:
        return Outcome("commands", skipped="no action explains any state")
    a = answers(group)
    found: list[Finding] = []
    for i in range(len(group)):
        said = list(_still(group, a, i)) or list(_time(group, a, i)) or list(_sense(group, a, i))
        found += said or list(_exact(group, a, i))
        found += _units(group, a, i)
    lag, agreement = robust.median(a.lag), np.median(a.agreement)
    when = "at no clear lag from" if np.isnan(lag) else f"{lag:.1f} frames after"
    note = f"motion {when} its commands, agreement {agreement:.2f}"
    return Outcome("commands", tuple(found), note)


def _still(group: Group, a: Answers, i: int) -> Iterator[Finding]:
    """Dimensions that do not move although their command does, or the other way round."""
    usual_state, usual_action = robust.usual(a.state)[i], robust.usual(a.action)[i]
    stuck = (a.state[i] < STILL) & (a.action[i] > MOVES) & (usual_state > MOVES)
    silent = (a.action[i] < STILL) & (a.state[i] > MOVES) & (usual_action > MOVES)
    neither = (a.state[i] < STILL) & (a.action[i] < STILL) & (robust.apart(a.state, 0.05)[i] < -CLEAR)
    cut_off = (a.ignored[i] > MOVES) & (robust.usual(a.ignored)[i] < STILL) & (usual_state > MOVES)
    pairs = group.convention.pairs
    if silent.sum() > 1 and 2 * silent.sum() > (usual_action > MOVES).sum():
        what = "its actions are constant, although the robot moves"
        yield group.finding(i, what, "error", figures={"dimensions": silent.sum()})
        return
    for k, pair in enumerate(pairs):
        name, figures = group.pair_name(pair), {"state": a.state[i, k], "action": a.action[i, k]}
        if stuck[k] and not _scaled(a, i, k):
            yield group.finding(i, f"{name} is stuck: its state does not follow its command", "error", figures=figures)
        elif silent[k] and not _scaled(a, i, k):
            yield group.finding(i, f"{name} moves, but its command is constant", "error", figures=figures)
        elif cut_off[k] and not pair.gripper and not pair.relative:
            what = f"{name} is stuck from frame {a.since[i, k]:.0f} on: its state does not follow its command"
            yield group.finding(i, what, "error", figures=figures | {"ignored": a.ignored[i, k]})
        elif neither[k] and pair.gripper and usual_state[k] > MOVES:
            yield group.finding(i, f"{name} never moves, in the others it does", "warning", figures=figures)


def _scaled(a: Answers, i: int, k: int) -> bool:
    """Whether what seems to stand still follows its command exactly: in other units."""
    return bool(a.own[i, k] > 0.9)


def _time(group: Group, a: Answers, i: int) -> Iterator[Finding]:
    usual, agrees = robust.usual(a.lag)[i], robust.usual(a.agreement)[i]
    if agrees < AGREES:
        return
    figures = {"lag": a.lag[i], "usual_lag": usual, "agreement": a.agreement[i], "usual_agreement": agrees}
    if a.agreement[i] < LESS * agrees:
        what = f"its commands do not explain its motion (agreement {a.agreement[i]:.2f}, usually {agrees:.2f})"
        yield group.finding(i, what, "error", figures=figures)
        return
    off = a.lag[i] - usual
    if np.isnan(off) or abs(robust.apart(a.lag, 0.15)[i]) < CLEAR:
        return
    if a.lag[i] < -0.3 and usual > 0.3 and abs(off) > AHEAD:
        what = f"the motion comes {-a.lag[i]:.1f} frames before its commands, in the others {usual:.1f} after them"
        remedy = "state and action are exchanged, or time runs backwards: exchange them back, or drop it"
        if abs(a.lag[i] + usual) > 0.5:
            remedy = _OF_TIME
        yield group.finding(i, what, "error", remedy, figures)
    elif abs(off) > LATE[group.convention.relative]:
        what = f"the motion comes {a.lag[i]:.1f} frames after its commands, in the others {usual:.1f}"
        yield group.finding(i, what, "error", _OF_TIME, figures)


def _sense(group: Group, a: Answers, i: int) -> Iterator[Finding]:
    """Signs of single dimensions."""
    moves = (a.state[i] > STILL) & (a.action[i] > STILL)
    against = (a.own[i] < AGAINST) & (robust.usual(a.own)[i] > AGREES) & moves
    for k in np.flatnonzero(against):
        name = group.pair_name(group.convention.pairs[k])
        what = f"{name} moves against its command, in the others along with it: a flipped sign"
        figures = {"correlation": a.own[i, k], "usual": robust.usual(a.own)[i, k]}
        yield group.finding(i, what, "error", _OF_SIGN, figures)


def _units(group: Group, a: Answers, i: int) -> Iterator[Finding]:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs, state, action = np.log(a.gain), np.log(a.state), np.log(a.action)
    off, away = (logs - robust.usual(logs))[i], robust.apart(logs, 0.08)[i]
    pairs = group.convention.pairs
    least = np.log([OTHER_GRIP if p.gripper else OTHER_UNIT for p in pairs])
    moves = np.maximum(a.state[i], a.action[i]) > MOVES / 2
    odd = np.flatnonzero((np.abs(off) > least) & (np.abs(away) > CLEAR + 2) & moves & (a.own[i] > AGREES))
    arm = [k for k in odd if not pairs[k].gripper]
    if len(arm) > 1 and 2 * len(arm) > len(group.convention.arm):
        factor = float(np.exp(np.median(off[arm])))
        yield group.finding(i, f"its {_side(state, action, i, arm, factor)}", "error", _OF_UNIT, {"factor": factor})
        odd = np.setdiff1d(odd, arm)
    for k in odd:
        factor, name = float(np.exp(off[k])), group.pair_name(pairs[k])
        what = f"{name}: its {_side(state, action, i, [k], factor)}"
        yield group.finding(i, what, "error", _OF_UNIT, {"factor": factor, "spreads": away[k]})
    both = np.minimum(np.abs(state - robust.usual(state)), np.abs(action - robust.usual(action)))[i]
    same = np.sign(state - robust.usual(state))[i] == np.sign(action - robust.usual(action))[i]
    if not len(odd) and np.median(np.where(same, both, 0)) > np.log(BOTH):
        factor = float(np.exp(np.median((state - robust.usual(state))[i])))
        what = f"state and actions range {factor:.2g} times as far as in the others{_known(factor)}"
        yield group.finding(i, what, "error", _OF_UNIT, {"factor": factor})


def _side(state: np.ndarray, action: np.ndarray, i: int, which: list, factor: float) -> str:
    """Which of the two left its usual range."""
    moved = [np.abs(np.median((v - robust.usual(v))[i, which])) for v in (state, action)]
    if moved[0] >= moved[1]:
        return f"state ranges {factor:.2g} times as far as its commands say{_known(factor)}"
    return f"actions range {1 / factor:.2g} times as far as the motion says{_known(1 / factor)}"


def _known(factor: float) -> str:
    named = [words for value, words in _KNOWN.items() if abs(np.log(factor / value)) < 0.1]
    return f": {named[0]}" if named else ": other units"


def _exact(group: Group, a: Answers, i: int) -> Iterator[Finding]:
    """Actions that were made from the states."""
    logs = np.log(np.maximum(a.residual, 1e-6))
    usual = robust.usual(logs)[i]
    if logs[i] - usual < np.log(EXACT) and robust.apart(logs, 0.15)[i] < -CLEAR:
        what = "its actions are the next states, in the others they are commands that the robot follows"
        figures = {"difference": a.residual[i], "usual": np.exp(usual)}
        yield group.finding(i, what, "warning", "take its true commands, or drop it", figures)
