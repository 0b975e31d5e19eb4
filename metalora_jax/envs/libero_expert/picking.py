"""Pick and place: whatever the object, wherever the goal wants it, among whatever stands around."""

import numpy as np

from metalora_jax.envs.libero_expert import hand
from metalora_jax.envs.libero_expert.boxes import joined, turn
from metalora_jax.envs.libero_expert.dragging import drag
from metalora_jax.envs.libero_expert.grasps import Grasp, grasps
from metalora_jax.envs.libero_expert.hand import UP
from metalora_jax.envs.libero_expert.motion import CLOSE, OPEN, Actions, Stuck, descend, follow, release, rise, squeeze
from metalora_jax.envs.libero_expert.placing import TURNS, Place, course, places
from metalora_jax.envs.libero_expert.scene import Scene

_ABOVE = 0.05  # [m] over a grasp or a place, from where the hand goes straight down
_AIR = 0.03  # [m] over what is passed
_NOWHERE = 10.0  # cost of a grasp with which there is no place
_TRIED = 12  # grasps for which a place is sought


def pick_and_place(scene: Scene, goal: list[str]) -> Actions:
    """Brings the object of `goal` = [predicate, object, place] where it belongs.

    Raises:
      Lost: the object slipped out of the hand.
      Stuck: it can neither be grasped nor dragged, or there is no place for it.
    """
    name = goal[1]
    grasp = chosen(scene, goal)
    if grasp is None:
        yield from drag(scene, goal)
        return
    yield from pick(scene, name, grasp)
    if scene.grasped(name):
        yield from place(scene, goal)


def chosen(scene: Scene, goal: list[str]) -> Grasp | None:
    """The cheapest grasp, what it means for putting the object down counted in; None where fingers fit nowhere."""
    name = goal[1]
    found = grasps(scene.boxes(name), scene.mass_center(name), scene.others(name))
    if not found:
        return None
    strains = scene.strain(np.stack([grasp.position for grasp in found]))
    found = [grasp._replace(cost=grasp.cost + strain) for grasp, strain in zip(found, strains, strict=True)]
    apart: list[Grasp] = []
    for grasp in sorted(found, key=lambda grasp: grasp.cost):
        if all(
            np.linalg.norm(grasp.position - other.position) > 0.012 or abs(grasp.yaw - other.yaw) > 0.2
            for other in apart
        ):
            apart.append(grasp)
        if len(apart) == _TRIED:
            break
    spots = _spots(scene, goal, apart, TURNS[::2])
    costs = [grasp.cost + (places[0].cost if places else _NOWHERE) for grasp, places in zip(apart, spots, strict=True)]
    return apart[int(np.argmin(costs))]


def pick(scene: Scene, name: str, grasp: Grasp) -> Actions:
    """Approaches, closes, and ends with the object between the fingers, not yet lifted."""
    down = hand.pointing_down(grasp.yaw)
    above = grasp.position + _ABOVE * UP
    position, rotation = scene.hand()
    free = hand.shape(position, rotation, 2 * hand.OPEN)
    way = course(free, scene.others(), position, above, grasp.yaw - hand.yaw_of(rotation), _AIR)
    yield from follow(scene, way, down, OPEN, near=0.02)
    offset = grasp.position - scene.origin(name)
    yield from descend(
        scene,
        lambda: scene.origin(name) + offset,
        down,
        OPEN,
        lambda: bool(np.linalg.norm(scene.hand()[0] - scene.origin(name) - offset) < 0.006),
    )
    yield from squeeze(scene, name)


def place(scene: Scene, goal: list[str]) -> Actions:
    """Lifts, carries, lowers, opens and retreats."""
    name = goal[1]
    position, rotation = scene.hand()
    [spots] = _spots(scene, goal, [Grasp(position, hand.yaw_of(rotation), 0.0)])
    if not spots:
        raise Stuck(f"no free place for {name}")
    spot = spots[0]
    end = spot.origin + turn(spot.turn) @ (position - scene.origin(name)) + spot.drop * UP
    held = joined(scene.boxes(name), hand.shape(position, rotation, scene.opening()))
    way = course(held, scene.others(name), position, end + _ABOVE * UP, spot.turn, _AIR)
    turned = turn(spot.turn) @ rotation
    yield from follow(scene, way, turned, CLOSE, near=0.02, held=name)
    final = spot.origin + spot.drop * UP
    yield from descend(
        scene,
        lambda: scene.hand()[0] + final - scene.origin(name) - 0.004 * UP,
        turned,
        CLOSE,
        lambda: scene.supported(name) or bool(scene.origin(name)[2] < final[2] + 0.004),
    )
    yield from release(scene, name)
    yield from rise(scene, 0.08, OPEN)


def _spots(scene: Scene, goal: list[str], held_by: list[Grasp], turns: np.ndarray = TURNS) -> list[list[Place]]:
    """For each grasp, where it can put down the object of `goal`, with a wrist that turns only so far."""
    name = goal[1]
    hands = [hand.shape(grasp.position, hand.pointing_down(grasp.yaw), 2 * hand.OPEN) for grasp in held_by]
    own, still = scene.boxes(name), scene.others(name)
    found = places(own, hands, scene.origin(name), still, *scene.region(goal), turns)
    return [_reachable(scene, grasp, spots, scene.origin(name)) for grasp, spots in zip(held_by, found, strict=True)]


def _reachable(scene: Scene, grasp: Grasp, spots: list[Place], origin: np.ndarray) -> list[Place]:
    """Those that the wrist's turn allows, the arm's stretch counted in."""
    low, high = hand.WRIST
    spots = [spot for spot in spots if low < grasp.yaw + spot.turn < high]
    if not spots:
        return []
    ends = np.stack([spot.origin + turn(spot.turn) @ (grasp.position - origin) + spot.drop * UP for spot in spots])
    costed = [spot._replace(cost=spot.cost + cost) for spot, cost in zip(spots, scene.strain(ends), strict=True)]
    return sorted(costed, key=lambda spot: spot.cost)


def _alike(one: Grasp, other: Grasp) -> bool:
    return bool(np.linalg.norm(one.position - other.position) < 0.012 and abs(one.yaw - other.yaw) < 0.2)
