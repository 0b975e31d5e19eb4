"""Does the state fit the world: fingers in metres, an axis-angle, a hand that moves? Needs no simulator."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.evaluation.doctor.findings import Outcome, in_spans, together
from metalora_jax.evaluation.doctor.motion import counts
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.words import plural

REACH = 3.0  # [m] from the world's origin, beyond any table here
OPEN, SLACK = 0.04, 0.01  # [m] that each finger of LIBERO's hand moves, and what is allowed beyond it
UPRIGHT = 1.0  # [rad] that LIBERO's hand is always turned by, at least: it points down, about pi
STANDS = 1e-4  # [m] within which a hand does not move

_REMEDY = {
    "metaworld": "write the hand's x, y, z [m] and the gripper's opening [0, 1]",
    "libero": "write the hand's x, y, z [m], its axis-angle [rad], then the two fingers [m], as envs.libero does",
}


class _Trouble(NamedTuple):
    """What is wrong with one demonstration."""

    what: str  # as `in_spans` takes it
    figure: float | None = None


def states(recordings: Sequence[Recording], world: str) -> tuple[Outcome, list[Recording]]:
    """Is each dimension what it should be? Also returns the recordings whose state is reliable."""
    said = [_trouble(r.state, r.actions, world) for r in recordings]
    found = [
        (r.file, r.name, trouble.what, _REMEDY[world], trouble.figure)
        for r, trouble in zip(recordings, said, strict=True)
        if trouble
    ]
    sound = [r for r, trouble in zip(recordings, said, strict=True) if not trouble]
    note = plural(len(sound), "demonstration")
    return Outcome("proprioception", together(in_spans(found), counts(recordings)), note), sound


def _trouble(state: np.ndarray, actions: np.ndarray, world: str) -> _Trouble | None:
    """Of one demonstration: state (T, d), actions (T, d')."""
    if (away := float(np.abs(state[:, :3]).max())) > REACH:
        return _Trouble("the hand is {} m away: millimetres, or not its position?", away)
    if len(state) > 1 and np.ptp(state[:, :3], axis=0).max() < STANDS and np.abs(actions[:, :3]).sum() > 1:
        return _Trouble("the hand never moves, whatever the commands")
    if world != "libero":
        return None
    turn, fingers = np.linalg.norm(state[:, 3:6], axis=1), state[:, 6:8] * [1.0, -1.0]
    if len(state) > 1 and np.ptp(np.linalg.norm(state[:, 3:7], axis=1)) < 1e-3 and abs(turn[0] - 1) < 0.5:
        return _Trouble("dimensions 3 to 6 are a quaternion, expected an axis-angle (3) and two fingers")
    if fingers.min() < -SLACK or fingers.max() > OPEN + SLACK:
        return _Trouble(f"the last two dimensions are not its fingers, 0 to {OPEN} m and 0 to -{OPEN} m")
    if turn.max() < UPRIGHT or turn.max() > 2 * np.pi + 0.1:
        what = "dimensions 3 to 5 turn it by at most {} rad; a hand that points down needs about 3.1"
        return _Trouble(what, float(turn.max()))
    return None
