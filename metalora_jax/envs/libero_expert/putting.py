"""Putting down what the hand holds: from above, or from the side where there is a roof."""

import numpy as np

from metalora_jax.envs.libero_expert import hand
from metalora_jax.envs.libero_expert.boxes import joined, turn
from metalora_jax.envs.libero_expert.grasps import Grasp
from metalora_jax.envs.libero_expert.hand import UP
from metalora_jax.envs.libero_expert.motion import (
    CLOSE,
    OPEN,
    Actions,
    Lost,
    Stuck,
    descend,
    follow,
    release,
    rise,
    straight,
)
from metalora_jax.envs.libero_expert.placing import TURNS, Place, course, places, way_out
from metalora_jax.envs.libero_expert.scene import Scene

_ABOVE = 0.05  # [m] over a place, from where the hand goes straight down
_AIR = 0.03  # [m] over what is passed
_OUTSIDE = 0.20  # [m] before a place under a roof, from where the hand goes straight in
_FLOAT = 0.015  # [m] over the floor on the way in


def put(scene: Scene, goal: list[str]) -> Actions:
    """Lifts what is held, carries it to its place, opens and retreats.

    Raises:
      Lost: if it slipped out of the hand.
      Stuck: if there is no place for it.
    """
    position, rotation = scene.hand()
    [spots] = spots_of(scene, goal, [Grasp(position, hand.yaw_of(rotation), 0.0)])
    if not spots:
        raise Stuck(f"no free place for {goal[1]}")
    if spots[0].roofed:
        yield from _slide_in(scene, goal, spots)
    else:
        yield from _lower(scene, goal, spots[0])


def spots_of(scene: Scene, goal: list[str], held_by: list[Grasp], turns: np.ndarray = TURNS) -> list[list[Place]]:
    """For each grasp, where it can put down the object of `goal`: from above if any can, else under a roof."""
    name = goal[1]
    own, origin = scene.boxes(name), scene.origin(name)
    hands = [hand.shape(grasp.position, hand.pointing_down(grasp.yaw), 2 * hand.OPEN) for grasp in held_by]
    found = places(own, hands, origin, scene.others(name), *scene.region(goal), turns)
    if not any(found):
        below, roof = scene.around(name, goal[2])
        found = places(own, hands, origin, below, *scene.region(goal), turns, roof)
    return [_reachable(scene, grasp, spots, origin) for grasp, spots in zip(held_by, found, strict=True)]


def least_cost(scene: Scene, goal: list[str]) -> float:
    """What the best place for the object of `goal` would cost if no hand had to hold it; 0 under a roof."""
    own = scene.boxes(goal[1])
    origin = scene.origin(goal[1])
    [spots] = places(own, [own], origin, scene.others(goal[1]), *scene.region(goal), TURNS[::2])
    return spots[0].cost if spots else 0.0


def _reachable(scene: Scene, grasp: Grasp, spots: list[Place], origin: np.ndarray) -> list[Place]:
    """The places that the wrist's turn allows, with costs for the arm's stretch."""
    low, high = hand.WRIST
    spots = [spot for spot in spots if low < grasp.yaw + spot.turn < high]
    if not spots:
        return []
    ends = np.stack([spot.origin + turn(spot.turn) @ (grasp.position - origin) + spot.drop * UP for spot in spots])
    costed = [spot._replace(cost=spot.cost + cost) for spot, cost in zip(spots, scene.strain(ends), strict=True)]
    return sorted(costed, key=lambda spot: spot.cost)


def _carry(scene: Scene, name: str, end: np.ndarray, angle: float, near: float) -> Actions:
    """Brings the grip site `near` [m] to `end` (3,) over everything, turned by `angle` [rad]."""
    position, rotation = scene.hand()
    held = joined(scene.boxes(name), hand.shape(position, rotation, scene.opening()))
    way = course(held, scene.others(name), position, end, angle, _AIR)
    yield from follow(scene, way, turn(angle) @ rotation, CLOSE, near=near, held=name)


def _lower(scene: Scene, goal: list[str], spot: Place) -> Actions:
    name = goal[1]
    position, rotation = scene.hand()
    final = spot.origin + spot.drop * UP
    grip = turn(spot.turn) @ (position - scene.origin(name))
    yield from _carry(scene, name, final + grip + _ABOVE * UP, spot.turn, near=0.02)
    yield from descend(
        scene,
        lambda: scene.hand()[0] + final - scene.origin(name) - 0.004 * UP,
        turn(spot.turn) @ rotation,
        CLOSE,
        lambda: scene.supported(name) or bool(scene.origin(name)[2] < final[2] + 0.004),
    )
    yield from release(scene, name)
    yield from rise(scene, 0.08, OPEN)


def _slide_in(scene: Scene, goal: list[str], spots: list[Place]) -> Actions:
    name = goal[1]
    position, rotation = scene.hand()
    origin = scene.origin(name)
    own = joined(scene.boxes(name), hand.shape(position, rotation, 2 * hand.OPEN))
    below, _ = scene.around(name, goal[2])
    for spot in spots:
        turned, final = turn(spot.turn), spot.origin + _FLOAT * UP
        inside = final + turned @ (position - origin)
        way = way_out(own.moved(turned, position, inside), below, inside, _OUTSIDE)
        if way is not None:
            break
    else:
        raise Stuck(f"no free way into the place for {name}")
    before, level = inside + _OUTSIDE * way, turned @ rotation
    yield from _carry(scene, name, before, spot.turn, near=0.008)
    yield from straight(scene, lambda: scene.hand()[0] + final - scene.origin(name), level, CLOSE, near=0.01)
    if np.linalg.norm(scene.origin(name) - final) > 0.02:
        raise Lost(name)
    yield from release(scene, name)
    yield from straight(scene, lambda: before, level, OPEN, near=0.03)
