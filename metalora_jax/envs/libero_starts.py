"""What a condition changes of where a LIBERO episode begins: the arm, and what lies about (LIBERO-plus, 2510.13626)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metalora_jax.envs import arm_starts
from metalora_jax.envs.conditions import Condition

# [m] of each level, as LIBERO-plus has them; libero_90, which it leaves out, is as libero_10, whose scenes it shares.
_RADII = {"libero_spatial": 0.01, "libero_object": 0.03, "libero_goal": 0.02, "libero_10": 0.01, "libero_90": 0.01}
_WIDER = "LIVING_ROOM_SCENE1", 0.02
_GAP = 0.01  # [m] that things keep from each other, if they lie as far apart
_DRAWS = 1000


def begin_arm(simulator: Any, condition: Condition, drawn: bool) -> None:
    """Begins `condition.arm_start` in one of its readings.

    Args:
      simulator: LIBERO's environment, whose controller was made with the start's joints for goals.
      condition: the shift.
      drawn: whether the arm stands as it was reset, and not as an initial state has it.
    """
    robot, there = simulator.robots[0], condition.arm_start_reading == arm_starts.POSE
    pose = arm_starts.pose(condition.arm_start)
    if there or drawn:
        simulator.sim.data._data.qpos[robot._ref_joint_pos_indexes] = pose if there else arm_starts.NOMINAL
        simulator.sim.forward()
    if there:
        robot.controller.update_initial_joints(pose)


def radius(suite: str, task: str) -> float:
    """How far level 1 displaces what lies about in a task [m]; level L reaches L times as far."""
    scene, wider = _WIDER
    return wider if task.startswith(f"{scene}_") else _RADII[suite]


def displace(simulator: Any, reach: float, seed: int) -> None:
    """Moves whatever stands on the table or floor, with what is on it; fixtures, and what is in them, stay.

    Args:
      simulator: LIBERO's environment, its objects placed.
      reach: farthest displacement [m].
      seed: of the displacements, which do not depend on the start but where things would come too near.
    """
    loose = _groups(simulator)
    names = [*simulator.objects_dict, *simulator.fixtures_dict]
    numbers = {name: number for number, name in enumerate(names)}
    bodies = [{**simulator.objects_dict, **simulator.fixtures_dict}[name].root_body for name in names]
    prints = np.stack([_footprint(simulator, body) for body in bodies])
    moves = offsets(prints, [[numbers[name] for name in group] for group in loose], reach, seed)
    model, data = simulator.sim.model._model, simulator.sim.data._data
    for name, thing in simulator.objects_dict.items():
        place = model.jnt_qposadr[model.joint(thing.joints[-1]).id]
        data.qpos[place : place + 2] += moves[numbers[name]]
    simulator.sim.forward()


def offsets(prints: np.ndarray, groups: Sequence[Sequence[int]], reach: float, seed: int) -> np.ndarray:
    """Displacements (N, 2) [m], uniform in a disc of radius `reach`, and equal within a group; 0 for all others.

    Args:
      prints: (N, 4) [m] what each thing covers: least x and y, largest x and y.
      groups: numbers of the things that move, those that move together in one group.
      reach: [m].
      seed: of the draws.

    Raises:
      ValueError: if a group finds no place. Two things that are 1 cm apart or more, in x or y, stay so; others come
        no nearer.
    """
    rng, moves = np.random.default_rng([seed, 13]), np.zeros((len(prints), 2))
    for group in groups:
        others = np.setdiff1d(np.arange(len(prints)), group)
        least = np.minimum(_apart(prints[group], prints[others]), _GAP)
        for _ in range(_DRAWS):
            angle, away = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform())
            move = away * np.array([np.cos(angle), np.sin(angle)])
            now = prints + np.tile(moves, 2)
            if (_apart(prints[group] + np.tile(move, 2), now[others]) >= least).all():
                moves[group] = move
                break
        else:
            raise ValueError(f"displaced: no place within {reach:g} m in {_DRAWS} draws; choose another displaced_seed")
    return moves


def _apart(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) [m] between footprints, in x or y, whichever is more; negative where they overlap."""
    a, b = some[:, None], others[None]
    return np.maximum(a[..., :2] - b[..., 2:], b[..., :2] - a[..., 2:]).max(axis=-1)


def _groups(simulator: Any) -> list[list[str]]:
    """The objects that stand on the table or floor, each with what is on or in it."""
    problem = simulator.parsed_problem
    under = {}
    for fact in problem["initial_state"]:
        if len(fact) == 3:
            place = fact[2]
            under[fact[1]] = problem["regions"][place]["target"] if place in problem["regions"] else place
    groups: dict[str, list[str]] = {}
    for name in simulator.objects_dict:
        carrier = name
        while (below := under.get(carrier)) in simulator.objects_dict:
            carrier = below
        if below == simulator.workspace_name:
            groups.setdefault(carrier, []).append(name)
    return list(groups.values())


def _footprint(simulator: Any, root: str) -> np.ndarray:
    """(4,) [m] what a body and its parts cover: least x and y, largest x and y."""
    model, data = simulator.sim.model._model, simulator.sim.data._data
    root_id = model.body(root).id
    solid = (model.geom_contype | model.geom_conaffinity) != 0
    geoms = np.flatnonzero((model.body_rootid[model.geom_bodyid] == model.body_rootid[root_id]) & solid)
    centre, half = model.geom_aabb[geoms, :3], model.geom_aabb[geoms, 3:]
    turned = data.geom_xmat[geoms].reshape(-1, 3, 3)
    middle = data.geom_xpos[geoms] + np.einsum("nij,nj->ni", turned, centre)
    spread = np.einsum("nij,nj->ni", np.abs(turned), half)
    return np.concatenate([(middle - spread).min(axis=0)[:2], (middle + spread).max(axis=0)[:2]])
