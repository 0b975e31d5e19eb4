"""Relative actions, as openpi has them: what a policy predicts is an action minus the state at its chunk's start.

A base says so of each dimension of an action (`normalize.Statistics.relative`): joints are predicted as differences and
a gripper as it is, for instance. Every action of a chunk is held against the same state, the one that the policy sees;
action i against state i. Statistics are those of the differences. Commands are absolute again: state + prediction.

openpi calls the two directions DeltaActions and AbsoluteActions (openpi/transforms.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.data import convention
from metalora_jax.data.chunks import chunk_actions
from metalora_jax.data.units import gripper_dimensions
from metalora_jax.fields import meant
from metalora_jax.words import listed, plural

ALL_BUT_GRIPPER = "all_but_gripper"


def subtracted(actions: np.ndarray, state: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Absolute actions of chunks (..., chunk, D) and the states at their starts (..., S) -> what is predicted.

    `mask` (D,) bool says which dimensions are differences; None: none is, and `actions` are returned as they are.
    """
    return actions if mask is None else actions - _starts(state, mask)


def added(predicted: np.ndarray, state: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The inverse of `subtracted`: predictions (..., chunk, D) in the robot's units -> absolute actions."""
    return predicted if mask is None else predicted + _starts(state, mask)


def _starts(state: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(..., S) -> (..., 1, D), zero where an action is absolute; a state may be narrower than an action, or wider."""
    start = np.zeros((*state.shape[:-1], len(mask)), np.float32)
    start[..., mask] = state[..., np.flatnonzero(mask)]
    return start[..., None, :]


def of_episodes(
    states: Sequence[np.ndarray], actions: Sequence[np.ndarray], mask: np.ndarray, chunk: int
) -> np.ndarray:
    """What a policy is to predict at every step of some episodes: (T * chunk, D), of which statistics are taken.

    Past the end of an episode the last action is repeated, and counts: openpi's `compute_norm_stats` does so.

    Raises:
      ValueError: `mask` does not fit the data, see `checked`.
    """
    found = []
    for state, action in zip(states, actions, strict=True):
        checked(mask, state.shape[1], action.shape[1])
        found.append(subtracted(chunk_actions(action, chunk)[0], state, mask).reshape(-1, action.shape[1]))
    return np.concatenate(found)


def checked(mask: np.ndarray, state_dim: int, action_dim: int) -> np.ndarray:
    """`mask` itself.

    Raises:
      ValueError: it is not of `action_dim` truth values, names no dimension, or one that the state does not have.
    """
    if mask.dtype != bool or mask.shape != (action_dim,):
        raise ValueError(f"relative is {mask.dtype} {mask.shape}; it must hold true or false for each of {action_dim}")
    if not mask.any():
        raise ValueError("relative names no dimension of the action; leave it out where all actions are absolute")
    if (last := int(np.flatnonzero(mask)[-1])) >= state_dim:
        raise ValueError(
            f"action dimension {last} cannot be relative: it is held against the state of the same number, and there "
            f"are {plural(state_dim, 'state dimension')}; leave it out, or bring the state into the order of the action"
        )
    return mask


def mask_of(named: Sequence[int | str], state_dim: int, action_dim: int, joints: Sequence[str] = ()) -> np.ndarray:
    """The mask (action_dim,) of some dimensions.

    Args:
      named: numbers of dimensions of the action, from 0, or their names; or `ALL_BUT_GRIPPER` alone.
      state_dim, action_dim: of the robot.
      joints: names of the action's dimensions, where they are known.

    Raises:
      ValueError: a dimension is unknown; no gripper is known where it is to be left out; or see `checked`.
    """
    joints = tuple(joints) if len(joints) == action_dim else ()
    mask = np.zeros(action_dim, bool)
    if list(named) == [ALL_BUT_GRIPPER]:
        mask[:] = True
        mask[list(gripper_dimensions(joints, action_dim))] = False
        if mask.all():
            raise ValueError(f"{ALL_BUT_GRIPPER}: none of {listed(joints, 12)} is a gripper; name the relative ones")
        return checked(mask, state_dim, action_dim)
    for name in map(str, named):
        if name in joints:
            mask[joints.index(name)] = True
        elif name.isdecimal() and int(name) < action_dim:
            mask[int(name)] = True
        else:
            known = f"0 to {action_dim - 1}" + (f", {', '.join(joints)}" if joints else "")
            raise ValueError(
                f"relative actions: no dimension {name!r} of the action, there are {known}{meant(name, joints)}"
            )
    return checked(mask, state_dim, action_dim)


def said(mask: np.ndarray | None, of_differences: bool = False, joints: Sequence[str] = ()) -> str:
    """The convention in words."""
    if mask is None:
        return "actions as they are recorded"
    names = list(joints) if len(joints) == len(mask) else [str(i) for i in range(len(mask))]
    parts = [[names[i] for i in np.flatnonzero(which)] for which in (mask, ~mask)]
    rest = f", and {', '.join(parts[1])} as recorded" if parts[1] else ""
    legacy = " (of data whose actions are differences already, as openpi's pi0_libero)" if of_differences else ""
    return f"action minus the state at the chunk's start in {', '.join(parts[0])}{rest}{legacy}"


def check_exported(mask: np.ndarray | None, of_differences: bool, form: str) -> None:
    """Refuses to write a policy of relative actions in a format whose processors know none.

    Raises:
      ValueError: some are relative; the message names the format `form`, and one that works.
    """
    if mask is not None:
        raise ValueError(
            f"the base predicts {said(mask, of_differences)}, and the processors that --format={form} writes would "
            "send differences as commands: use --format=lerobot_plugin, which sends absolute ones"
        )


class Mismatch(NamedTuple):
    """Recorded actions that are not of the kind that a policy with relative actions takes."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def mismatch(
    states: Sequence[np.ndarray], actions: Sequence[np.ndarray], mask: np.ndarray | None, of_differences: bool
) -> Mismatch | None:
    """Whether recorded actions are differences where a policy subtracts the state from them, or the reverse.

    Absolute actions follow the state, differences its changes (`convention.find`); where neither is clear, nothing is
    said.

    Args:
      states, actions: (T, width) of each episode.
      mask: of the policy; None: it takes any.
      of_differences: it was trained on recorded differences.
    """
    if mask is None:
        return None
    known = convention.find(states, actions, None, np.flatnonzero(~mask).tolist())
    pairs = [pair for pair in known.pairs if mask[pair.action]]
    differences = sum(pair.relative for pair in pairs)
    if 2 * len(pairs) <= mask.sum() or 2 * differences == len(pairs):
        return None  # most of the actions explain no state: their meaning cannot be told
    if not of_differences and 2 * differences > len(pairs):
        return Mismatch(
            "the recorded actions are differences already, and the policy predicts actions minus the state: a state "
            "would be subtracted from a difference",
            "take demonstrations of absolute actions, or a base that predicts differences as they are recorded; a "
            "policy that was trained this way all the same, as openpi's pi0_libero, is converted with "
            "--relative_of_differences",
        )
    if of_differences and 2 * differences < len(pairs):
        return Mismatch(
            "the recorded actions are absolute, and the policy was trained on recorded differences minus the state",
            "take demonstrations of differences, or convert it without --relative_of_differences",
        )
    return None
