"""What the actions of a data set mean: which state each commands, as a place or as a difference, and how late."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.data import signals

EXPLAINS = 0.5  # correlation below which an action and a state have nothing to do with each other
BETTER = 0.1  # of correlation by which another dimension must fit better than the one of the same number
CLEARLY = 0.8  # correlation from which a sign is sure
MOVES = 0.3  # of the usual range: a dimension clearly moves
_SECONDS = 0.25  # over which differences are averaged: noise of one frame hides slow motion
_UNKNOWN_RATE = 20.0  # [frames/s] assumed only to choose windows, where a file says none


class Pair(NamedTuple):
    """An action and the state that it commands."""

    action: int
    state: int
    relative: bool  # it commands a difference
    sign: int  # of their correlation over the data set
    strength: float  # its absolute value
    gripper: bool


class Convention(NamedTuple):
    """The pairs, and the windows in frames that fit the rate."""

    pairs: tuple[Pair, ...]
    window: int  # over which differences are averaged
    reach: int  # of lags

    @property
    def arm(self) -> tuple[Pair, ...]:
        """Without grippers, unless there is nothing else."""
        return tuple(pair for pair in self.pairs if not pair.gripper) or self.pairs

    @property
    def relative(self) -> bool:
        """Whether most of the arm's actions are differences."""
        return 2 * sum(pair.relative for pair in self.arm) > len(self.arm)


def find(
    states: Sequence[np.ndarray],
    actions: Sequence[np.ndarray],
    fps: float | None,
    grippers: Sequence[int],
) -> Convention:
    """From every episode's state (T, d) and actions (T, e): the median over episodes decides.

    Args:
      states: of all episodes.
      actions: of all episodes.
      fps: frames per second, None where it is not known.
      grippers: dimensions of the action.
    """
    window, reach = _frames(fps)
    tables = _tables(states, actions, window)
    if not tables:
        return Convention((), window, reach)
    by = {kind: _median([table[kind] for table in tables.values()]) for kind in (False, True)}
    arm = [a for a in range(actions[0].shape[1]) if a not in grippers]
    relative = _relative(by, arm)
    pairs = []
    for a in range(actions[0].shape[1]):
        own = relative if a in arm else bool(np.abs(by[True][a]).max() > np.abs(by[False][a]).max())
        s = _partner(by[own], a)
        if (strength := abs(float(by[own][a, s]))) > EXPLAINS:
            pairs.append(Pair(a, s, own, 1 if by[own][a, s] > 0 else -1, strength, a in grippers))
    return Convention(tuple(pairs), window, reach)


class Mirrored(NamedTuple):
    """A state that follows its command with either sign, and the episodes of each."""

    action: int
    state: int
    along: tuple[int, ...]
    against: tuple[int, ...]


def mirrored(
    states: Sequence[np.ndarray], actions: Sequence[np.ndarray], fps: float | None, grippers: Sequence[int]
) -> list[Mirrored]:
    """States that clearly move along with their command in some episodes, and clearly against it in others.

    Args as those of `find`; grippers are left out.
    """
    tables = _tables(states, actions, _frames(fps)[0])
    if len(tables) < 2:
        return []
    arm = [a for a in range(actions[0].shape[1]) if a not in grippers]
    relative = _relative({kind: _median([table[kind] for table in tables.values()]) for kind in (False, True)}, arm)
    strength = _median([np.abs(table[relative]) for table in tables.values()])
    reach = [np.stack([np.ptp(values, axis=0) for values in each]) for each in (states, actions)]
    moves = [extent > MOVES * np.median(extent, axis=0) for extent in reach]
    found = []
    for a in arm:
        s = _partner(strength, a)
        own = {e: float(table[relative][a, s]) for e, table in tables.items() if moves[0][e, s] and moves[1][e, a]}
        along, against = (tuple(e for e, value in own.items() if sign * value > CLEARLY) for sign in (1, -1))
        if along and against and not (s != a and _explained(tables, relative, moves, a, s, (*along, *against))):
            found.append(Mirrored(a, s, along, against))
    return found


def _explained(
    tables: Mapping[int, Mapping[bool, np.ndarray]],
    relative: bool,
    moves: Sequence[np.ndarray],
    action: int,
    state: int,
    episodes: Sequence[int],
) -> bool:
    """Whether either of a pair of different numbers follows, or commands, its own with one sign in all of the episodes.

    Two directions of one motion correlate with either sign, as the way goes to the left or to the right.
    """
    for same in (action, state):
        both = [
            e for e in episodes if same < min(tables[e][relative].shape) and moves[0][e, same] and moves[1][e, same]
        ]
        signs = {
            np.sign(tables[e][relative][same, same]) for e in both if abs(tables[e][relative][same, same]) > EXPLAINS
        }
        if len(both) > 1 and len(signs) == 1:
            return True
    return False


def _frames(fps: float | None) -> tuple[int, int]:
    """Over how many frames differences are averaged, and how far lags reach."""
    rate = fps or _UNKNOWN_RATE
    return max(3, round(_SECONDS * rate)), max(6, round(0.5 * rate))


def _tables(
    states: Sequence[np.ndarray], actions: Sequence[np.ndarray], window: int
) -> dict[int, Mapping[bool, np.ndarray]]:
    """Episode -> whether differences -> correlations of actions and states (e, d); short episodes are left out."""
    found: dict[int, Mapping[bool, np.ndarray]] = {}
    for number, (state, action) in enumerate(zip(states, actions, strict=True)):
        if len(action) < window + 5:
            continue
        both = [signals.correlation(*signals.shifted(action, state, lag)) for lag in (0, 1, max(2, window // 2))]
        strongest = np.abs(np.nan_to_num(np.stack(both))).argmax(axis=0)
        moved = signals.smoothed(np.diff(state, axis=0), window)
        change = signals.correlation(signals.smoothed(action, window)[: len(moved)], moved)
        found[number] = {False: np.take_along_axis(np.stack(both), strongest[None], 0)[0], True: change}
    return found


def _relative(by: Mapping[bool, np.ndarray], arm: Sequence[int]) -> bool:
    """Whether the arm's actions are differences; its dimensions decide together, by correlations with their signs.

    A controller that commands a share of the way that is left makes differences fall as places rise: a strong
    correlation with the place, but a negative one.
    """
    if not arm:
        return False
    scores = {kind: np.array([table[a, _partner(table, a)] for a in arm]) for kind, table in by.items()}
    middle = {kind: float(np.median(values)) for kind, values in scores.items()}
    if max(middle.values()) < EXPLAINS:
        middle = {kind: float(np.median(np.abs(values))) for kind, values in scores.items()}
    return middle[True] > middle[False]


def _partner(table: np.ndarray, action: int) -> int:
    """The state that an action explains best; that of the same number if none is clearly better."""
    row = np.abs(table[action])
    best = int(row.argmax())
    same = table.shape[0] == table.shape[1] and row[action] > max(EXPLAINS, row[best] - BETTER)
    return action if same else best


def velocities(
    pairs: Sequence[Pair], state: np.ndarray, action: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Command and motion of each pair as changes a frame, (n, pairs) each, smoothed."""
    commands = np.stack(
        [action[:-1, p.action] if p.relative else np.diff(action[:, p.action]) for p in pairs], axis=1
    ).astype(np.float64)
    motion = np.diff(state[:, [p.state for p in pairs]].astype(np.float64), axis=0)
    return signals.smoothed(commands, window), signals.smoothed(motion, window)


def _median(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Over episodes; 0 where fewer than half say anything."""
    stacked = np.stack(tables)
    known = np.isfinite(stacked)
    filled = np.where(known, stacked, 0.0)
    return np.median(filled, axis=0) if len(stacked) else filled
