"""Pick and place: whatever the object, wherever the goal wants it, among whatever stands around."""

import itertools
from collections.abc import Iterator

import numpy as np

from metalora_jax.envs.libero_expert import hand
from metalora_jax.envs.libero_expert.dragging import drag
from metalora_jax.envs.libero_expert.grasps import Grasp, grasps
from metalora_jax.envs.libero_expert.hand import UP
from metalora_jax.envs.libero_expert.motion import OPEN, Actions, Stuck, descend, follow, squeeze
from metalora_jax.envs.libero_expert.placing import TURNS, course
from metalora_jax.envs.libero_expert.putting import least_cost, put, spots_of
from metalora_jax.envs.libero_expert.scene import Scene

_ABOVE = 0.05  # [m] over a grasp, from where the hand goes straight down
_AIR = 0.03  # [m] over what is passed
_TRIED = 24  # grasps at a time for which a place is searched


def pick_and_place(scene: Scene, goal: list[str]) -> Actions:
    """Brings the object of `goal` = [predicate, object, place] where it belongs.

    Raises:
      Lost: if the object slipped out of the hand.
      Stuck: if it can neither be grasped nor dragged, or there is no place for it.
    """
    name = goal[1]
    grasp = chosen(scene, goal)
    if grasp is None:
        yield from drag(scene, goal)
        return
    yield from pick(scene, name, grasp)
    if scene.grasped(name):
        yield from put(scene, goal)


def chosen(scene: Scene, goal: list[str]) -> Grasp | None:
    """The cheapest grasp, including the cost of putting the object down; None if fingers fit nowhere.

    Raises:
      Stuck: if none of them allows a place for it.
    """
    name = goal[1]
    found = grasps(scene.boxes(name), scene.mass_center(name), scene.others(name))
    if not found:
        return None
    strains = scene.strain(np.stack([grasp.position for grasp in found]))
    found = [grasp._replace(cost=grasp.cost + strain) for grasp, strain in zip(found, strains, strict=True)]
    apart = _apart(sorted(found, key=lambda grasp: grasp.cost))
    best, best_cost, least = None, np.inf, least_cost(scene, goal)
    while few := list(itertools.islice(apart, _TRIED)):
        if few[0].cost + least >= best_cost:  # the rest cannot be better
            break
        for grasp, spots in zip(few, spots_of(scene, goal, few, TURNS[::2]), strict=True):
            if spots and grasp.cost + spots[0].cost < best_cost:
                best, best_cost = grasp, grasp.cost + spots[0].cost
    if best is None:
        raise Stuck(f"no free place for {name}, however it is grasped")
    return best


def pick(scene: Scene, name: str, grasp: Grasp) -> Actions:
    """Approaches, closes, and ends with the object between the fingers, not yet lifted."""
    down = hand.pointing_down(grasp.yaw)
    above = grasp.position + _ABOVE * UP
    position, rotation = scene.hand()
    free = hand.shape(position, rotation, 2 * hand.OPEN)
    way = course(free, scene.others(), position, above, grasp.yaw - hand.yaw_of(rotation), _AIR)
    yield from follow(scene, way, down, OPEN, near=0.02)
    offset = grasp.position - scene.origin(name)
    yield from descend(scene, lambda: scene.origin(name) + offset, down, OPEN)
    yield from squeeze(scene, name)


def _apart(found: list[Grasp]) -> Iterator[Grasp]:
    """Those that are not nearly the same as a cheaper one."""
    kept: list[Grasp] = []
    for grasp in found:
        if not any(_alike(grasp, other) for other in kept):
            kept.append(grasp)
            yield grasp


def _alike(one: Grasp, other: Grasp) -> bool:
    return bool(np.linalg.norm(one.position - other.position) < 0.012 and abs(one.yaw - other.yaw) < 0.2)
