"""Do the recorded commands explain the recorded motion? Their range, units, gripper and frame, without a simulator."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.envs.conditions import execute
from metalora_jax.envs.world import World
from metalora_jax.evaluation.doctor.findings import Outcome, together
from metalora_jax.evaluation.doctor.recordings import Recording

WINDOW = 5  # steps over which commands and motion are summed: the arm follows with a lag
METRES = 0.06  # LIBERO's command of 1 is 5 cm; if nothing is larger, commands are still in metres
AGREEMENT = 0.85  # of commands and motion; demonstrations of either world lie above 0.92
REVERSED = -0.4  # correlation of an axis' commands with its motion
FAINT = 0.01  # share of the motion along an axis below which it says nothing
TURNED = np.radians(15)  # about the vertical
SCALE = 1.9  # factor by which the hand may move more or less than usual; scripted ones lie between 0.8 and 1.2
LAGS = range(-4, 9)  # steps by which motion may come after its command
LATE = 3  # steps from a world's usual lag
FOLLOWS = 0.5  # correlation under the best frame and lag; demonstrations of either world lie above 0.8
ABSOLUTE = 0.03  # [m] between a command and the place of the hand, where commands are places
ENOUGH = 0.3  # correlation under the best frame, below which motion says nothing about commands
SURE = 0.6  # how well the fingers answer their command, at least
IDLE = 0.5  # share of steps that do nothing
_AXES = "xyz"
_RADIANS = np.pi


class Hand(NamedTuple):
    """How a world's hand answers commands."""

    gain: float  # [m] that it moves in a step under a command of 1, in free motion
    lag: int  # steps until it does
    opening: Callable[[np.ndarray], np.ndarray]  # state (T, d) -> (T,): 0 fingers closed, 1 wide open


HANDS = {
    "metaworld": Hand(0.009, 3, lambda state: state[:, 3]),
    "libero": Hand(0.012, 1, lambda state: (state[:, 6] - state[:, 7]) / 0.08),
}

_OF_FRAME = "record in the simulator's own frame (x, y, z first), or bring the actions into it when converting"
_OF_SCALE = "divide displacements by the controller's largest step (LIBERO: 0.05 m, 0.5 rad) when converting"
_OF_TIME = "store with every action the state and the pictures that came before it, and displacements, not places"
_OF_ORDER = "put x, y, z first, then the rotation, then the gripper"
_OF_SIGN = "the simulators open at -1 and close at 1: multiply the last action by -1"
_OF_ZERO_ONE = "the simulators open at -1 and close at 1: map [0, 1] to it (where 1 opens: 1 - 2 a)"


def widths(recordings: Sequence[Recording], world: World) -> tuple[Outcome, list[Recording]]:
    """Do state and action have the world's dimensions? Also returns the recordings that do."""
    state, action = world.state_dim, world.action_dim
    right = [r for r in recordings if (r.state.shape[1], r.actions.shape[1]) == (state, action)]
    found = [
        (
            r.file,
            r.name,
            f"state and actions are {r.state.shape[1]} and {r.actions.shape[1]} wide, the world's {state} and {action}",
            "choose the --world in which they were recorded, or convert them to its state and actions",
        )
        for r in recordings
        if (r.state.shape[1], r.actions.shape[1]) != (state, action)
    ]
    return Outcome("widths", together(found, counts(recordings)), f"state {state}, actions {action}"), right


def ranges(recordings: Sequence[Recording]) -> Outcome:
    """Are the actions in [-1, 1], neither metres nor mostly idle?"""
    found = []
    for r in recordings:
        largest = np.abs(r.actions).max(axis=0)
        if _places(r):
            what = "actions are the hand's absolute places, not displacements"
            found.append((r.file, r.name, what, "take the differences of successive places, " + _OF_SCALE))
        elif _beyond(r):
            over = int(largest.argmax())
            what = f"action dimension {over} leaves [-1, 1], and the simulator clips it"
            found.append((r.file, r.name, what, _OF_SCALE))
        elif largest[:3].max() == 0:
            found.append(
                (r.file, r.name, "the arm is never commanded to move", "record the commands that were executed")
            )
        elif largest[:3].max() <= METRES:
            found.append(
                (r.file, r.name, f"no displacement above {METRES}: metres, not fractions of a step?", _OF_SCALE)
            )
        if _idle(r.actions) > IDLE:
            what = f"more than {IDLE:.0%} of the steps do nothing"
            found.append((r.file, r.name, what, "drop steps that move neither the hand nor the gripper"))
    actions = np.concatenate([r.actions for r in recordings])
    note = (
        f"{len(actions)} steps, |displacement| up to {np.abs(actions[:, :3]).max():.2f}, "
        f"{(np.abs(actions[:, :3]) > 0.999).any(-1).mean():.0%} saturated, {_idle(actions):.0%} idle"
    )
    return Outcome("action range", together(found, counts(recordings)), note)


def joint_targets(recordings: Sequence[Recording], world: World) -> Outcome:
    """Where commands are joint targets: do they and the state lie within the joints' ranges, in the world's units?"""
    found, (low, high) = [], world.bounds.T
    slack = 0.1 * (high - low)  # a hidden calibration reads beyond the range
    for r in recordings:
        for what, values in (("actions", r.actions), ("state", r.state)):
            if (beyond := (values < low - slack) | (values > high + slack)).any():
                joint = int(beyond.any(axis=0).argmax())
                said = f"{what} of {world.joints[joint]} leave {low[joint]:g} to {high[joint]:g}"
                found.append((r.file, r.name, said, "write joints in the order and units of the world"))
        if np.abs(r.actions).max() < _RADIANS:
            said = f"no joint target is above {_RADIANS:.2f}: radians?"
            found.append((r.file, r.name, said, "multiply by 180 / pi, and bring the gripper to 0 to 100"))
    note = f"{sum(len(r.actions) for r in recordings)} steps of {', '.join(world.joints)}"
    return Outcome("joint range", together(found, counts(recordings)), note)


def gripper(recordings: Sequence[Recording], world: str) -> Outcome:
    """Is the gripper the last dimension, and do the fingers close when it says so?"""
    found, seen = [], []
    for r in recordings:
        opening = HANDS[world].opening(r.state)
        told = -r.actions if r.start.condition.gripper_flipped else r.actions
        if world == "libero" and 0.0 <= r.actions[:, -1].min() < 0.5:
            found.append((r.file, r.name, "gripper commands lie in [0, 1], none below 0", _OF_ZERO_ONE))
        elif said := _gripper_trouble(told, opening):
            found.append((r.file, r.name, *said))
        if np.isfinite(score := answer(told[:, -1], opening)):
            seen.append(score)
    note = f"fingers respond in {len(seen)} of {len(recordings)} demonstrations"
    return Outcome("gripper", together(found, counts(recordings)), note)


def answer(command: np.ndarray, opening: np.ndarray) -> float:
    """How the fingers respond, in [-1, 1]: 1 if they close on a positive command; NaN if they never move."""
    if len(opening) <= WINDOW:
        return float("nan")
    change = opening[WINDOW:] - opening[:-WINDOW]
    held = np.convolve(command[: len(opening) - 1], np.ones(WINDOW) / WINDOW, "valid")
    moved = (np.abs(change) > 0.1) & (np.abs(held) > 0.1)
    if moved.sum() < 2:
        return float("nan")
    return float(-(held * change)[moved].sum() / np.abs(held * change)[moved].sum())


def _gripper_trouble(actions: np.ndarray, opening: np.ndarray) -> tuple[str, str] | None:
    command = actions[:, -1]
    score = answer(command, opening)
    if not score > SURE:
        for k in range(actions.shape[1] - 1):
            if set(np.unique(actions[:, k])) == {-1.0, 1.0} and answer(actions[:, k], opening) > SURE:
                return f"the fingers respond to action dimension {k}, not to the last", _OF_ORDER
    if score < -ENOUGH:
        return "the fingers open when the gripper command says close", _OF_SIGN
    late = slice(3 * WINDOW, None)  # by then fingers that do not move at all have had time to
    if np.isnan(score) and len(command) > 4 * WINDOW:
        if command[late].min() > 0.5 and opening[late].min() > 0.9:
            return "the fingers stay open under a command to close", _OF_SIGN
        if command[late].max() < -0.5 and opening[late].max() < 0.6:
            return "the fingers stay closed under a command to open", _OF_SIGN
    return None


def frame(recordings: Sequence[Recording], world: str) -> Outcome:
    """Does the hand go where the commands say, axis by axis, and as far as they say?"""
    found, notes = [], []
    for file in counts(recordings):
        own = [r for r in recordings if r.file == file and not _beyond(r) and not _places(r)]
        fit = Fit.of([_executed(r) for r in own])
        notes.append(f"{fit.agreement:.2f}")
        if trouble := fit.trouble(HANDS[world]):
            found += [(file, r.name, *trouble) for r in own]
    return Outcome("action frame", together(found, counts(recordings)), f"agreement {', '.join(notes[:8])}")


class Fit(NamedTuple):
    """Commands compared with motion, both summed over WINDOW steps."""

    cross: np.ndarray  # (3, 3): motion of axis i times command of axis j
    motion: np.ndarray  # (3,) squares of the motion [m^2]
    command: np.ndarray  # (3,) squares of the commands
    gain: float  # [m] of motion for a command of 1, where the hand moves freely
    lag: int = 0  # steps from command to motion

    @classmethod
    def of(cls, demonstrations: Sequence[tuple[np.ndarray, np.ndarray]]) -> "Fit":
        """Of pairs (actions (T, d), state (T, d')), at the lag at which commands explain most of the motion."""
        return max((cls._at(demonstrations, lag) for lag in LAGS), key=lambda fit: (round(fit.strength, 6), -fit.lag))

    @classmethod
    def _at(cls, demonstrations: Sequence[tuple[np.ndarray, np.ndarray]], lag: int) -> "Fit":
        moves, sums = [np.zeros((0, 3))], [np.zeros((0, 3))]
        for commands, places in demonstrations:
            actions, state = commands[max(-lag, 0) :], places[max(lag, 0) :]
            if (steps := min(len(actions), len(state))) <= WINDOW:
                continue
            actions, state = actions[:steps], state[:steps]
            moves.append(state[WINDOW:, :3].astype(np.float64) - state[:-WINDOW, :3])
            total = np.cumsum(np.pad(actions[:, :3].astype(np.float64), ((1, 0), (0, 0))), axis=0)
            sums.append((total[WINDOW:] - total[:-WINDOW])[: len(moves[-1])])
        move, asked = np.concatenate(moves), np.concatenate(sums)
        far, wanted = np.linalg.norm(move, axis=1), np.linalg.norm(asked, axis=1)
        asks = wanted > np.quantile(wanted, 0.5) if len(wanted) else np.zeros(0, bool)
        # A hand that is blocked moves less than commanded, for any length of time; none moves more.
        gain = float(np.quantile(far[asks] / wanted[asks], 0.75)) if asks.any() else float("nan")
        return cls(move.T @ asked, (move**2).sum(0), (asked**2).sum(0), gain, lag)

    @property
    def strength(self) -> float:
        """Correlation of motion and commands in the best of all frames, in [0, 1]."""
        whole = float(np.sqrt(self.motion.sum() * self.command.sum()))
        return float(np.linalg.svd(self.cross, compute_uv=False).sum()) / whole if whole else 0.0

    @property
    def agreement(self) -> float:
        """The share of that correlation that remains in the given frame, in [-1, 1]."""
        best = float(np.linalg.svd(self.cross, compute_uv=False).sum())
        return float(np.trace(self.cross)) / best if best else 1.0

    def trouble(self, hand: Hand) -> tuple[str, str] | None:
        """What is wrong with frame, timing or scale, and how to fix it; None if nothing is, or nothing moves."""
        if not self.motion.sum() or not self.command.sum():
            return None
        if self.strength < FOLLOWS:
            what = "the hand does not follow its commands: they belong to another time step, or are not displacements"
            return what, _OF_TIME
        own = np.diag(self.cross) / np.sqrt(self.motion * self.command + 1e-12)
        against = [_AXES[k] for k in range(3) if own[k] < REVERSED and self.motion[k] > FAINT * self.motion.sum()]
        horizontal = self.cross[:2, :2]
        yaw = np.arctan2(horizontal[1, 0] - horizontal[0, 1], np.trace(horizontal))
        if self.agreement < AGREEMENT or against or abs(yaw) > TURNED:
            return self._explanation(yaw, against), _OF_FRAME
        if not 1 / SCALE < (times := self.gain / hand.gain) < SCALE:
            return f"the hand moves {times:.2g} times as far as commanded: another scale", _OF_SCALE
        if abs(self.lag - hand.lag) > LATE:
            what = f"the hand moves {self.lag} steps after its commands, usually {hand.lag}"
            return f"{what}: actions and state are shifted", _OF_TIME
        return None

    def _explanation(self, yaw: float, against: Sequence[str]) -> str:
        """The best explanation of the motion: axes swapped or reversed, or a rotation about the vertical axis."""
        axes = [
            (sum(s * self.cross[i, k] for i, (s, k) in enumerate(zip(signs, order, strict=True))), signs, order)
            for order in itertools.permutations(range(3))
            for signs in itertools.product((1, -1), repeat=3)
        ]
        score, signs, order = max(axes)
        turned = np.cos(yaw) * np.trace(self.cross[:2, :2]) + self.cross[2, 2]
        turned += np.sin(yaw) * (self.cross[1, 0] - self.cross[0, 1])
        if order != (0, 1, 2) and score > 0.95 * turned:
            follows = ", ".join("-" * (sign < 0) + _AXES[k] for sign, k in zip(signs, order, strict=True))
            return f"the hand's x, y, z follow the commands' {follows}: axes are swapped"
        if reversed_ := against or [_AXES[k] for k in range(3) if score > turned and signs[k] < 0]:
            return f"the hand moves against its command in {' and '.join(reversed_)}: the sign is reversed"
        return f"the hand moves {np.degrees(yaw):+.0f} degrees about the vertical axis from its command: another frame"


def _beyond(r: Recording) -> bool:
    """Whether actions leave [-1, 1], which is valid only for commands to a shifted robot."""
    shifted = r.start.condition.of_the_scene != dataclasses.replace(r.start.condition, latency=0)
    return not shifted and bool(np.abs(r.actions).max() > 1.001)


def _places(r: Recording) -> bool:
    """Whether the displacements are the places that the hand reaches."""
    away = np.abs(r.actions[:-1, :3] - r.state[1:, :3])
    return len(away) > WINDOW and bool((np.median(away, axis=0) < ABSOLUTE).all())


def _executed(r: Recording) -> tuple[np.ndarray, np.ndarray]:
    """The executed actions (T', d), and the state (T', d') at that time."""
    latency = r.start.condition.latency
    return execute(r.actions, r.start.condition)[: len(r.actions) - latency], r.state[latency:]


def counts(recordings: Sequence[Recording]) -> dict[str, int]:
    """File -> its demonstrations."""
    return dict(Counter(r.file for r in recordings))


def _idle(actions: np.ndarray) -> float:
    """The share of steps that OpenVLA drops: no motion, and the gripper as before."""
    still = np.linalg.norm(actions[1:, :-1], axis=1) < 1e-4
    return float((still & (actions[1:, -1] == actions[:-1, -1])).mean()) if len(actions) > 1 else 0.0
