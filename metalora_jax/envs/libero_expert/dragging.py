"""Drags things too flat to be grasped, such as plates: the closed fingers go inside their rim and pull."""

import numpy as np

from metalora_jax.envs.libero_expert import hand
from metalora_jax.envs.libero_expert.boxes import CELL, Boxes, heights, joined, turn
from metalora_jax.envs.libero_expert.grasps import grasps
from metalora_jax.envs.libero_expert.hand import UP, command
from metalora_jax.envs.libero_expert.motion import CLOSE, OPEN, Actions, Lost, Stuck, descend, follow, rise, straight
from metalora_jax.envs.libero_expert.placing import course, places, sunk
from metalora_jax.envs.libero_expert.scene import Scene

_FIST = 0.016  # [m] half width of the closed fingers
_RIM = 0.005  # [m] that a rim must stand above the fingers, at least
_LEVEL = 0.0015  # [m] above the lowest part inside that counts as being as low
_PRESS = 0.006  # [m] below what the fingers stand on that they aim at, so that they press on it
_ABOVE = 0.05  # [m]
_AIR = 0.03  # [m]
_LEAD = 0.04  # [m] that the hand aims ahead of itself
_NEAR = 0.015  # [m] from the middle of the region, where dragging ends
_SLIP = 0.04  # [m] that the fingers may slide within it
_STEP = 0.01  # [m] between its present and its future support, at most
_STEPS = 150
_NUDGE = 0.08  # [m] by which a thing is pulled from what it lies against
_WAYS = [turn(angle)[:, 0] for angle in np.pi / 4 * np.arange(8)]
_LIFT = 0.005  # [m] by which it is lifted in the computation, not to touch what it stands on
_TILT = 0.5  # [rad]
_BACK = 0.12  # [m] that it comes from, along itself
_TURN_STEPS = 20  # allowed for leaning
_SLOWLY = 0.025  # [m] that it aims ahead of itself while it presses
_PULLS = 5
_PULL = 0.045  # [m] at a time: a flat thing tips over its edge
_PULL_STEPS = 20
_PRESS_HARD = 0.02  # [m] below its top that the fingers aim at


def drag(scene: Scene, goal: list[str]) -> Actions:
    """Drags the object of `goal` = [predicate, object, place] across what it stands on.

    Raises:
      Stuck: if it has no rim to pull at, or its place is not on the same level.
      Lost: if the fingers left it behind.
    """
    name = goal[1]
    own, origin = scene.boxes(name), scene.origin(name)
    [spots] = places(own, [own], origin, scene.others(name), *scene.region(goal), turns=np.zeros(1))
    level = [spot for spot in spots if abs(spot.origin[2] - origin[2]) < _STEP]
    end = level[0].origin[:2] if level else origin[:2]
    inside = inner_edge(own, end - origin[:2])
    if inside is None or not level:
        yield from nudge(scene, name)
        return
    position, rotation = scene.hand()
    down = hand.pointing_down(hand.yaw_of(rotation))
    fist = hand.shape(position, rotation, 0.0)
    way_there = course(fist, scene.others(), position, inside + _ABOVE * UP, 0.0, _AIR)
    yield from follow(scene, way_there, down, CLOSE, near=0.02)
    yield from descend(scene, lambda: inside, down, CLOSE, lambda: scene.hand()[0][2] < inside[2] + 0.004)
    hold = scene.hold(name)
    for _ in range(_STEPS):
        if np.linalg.norm(scene.hold(name) - hold) > _SLIP:
            raise Lost(name)
        left = end - scene.origin(name)[:2]
        if scene.holds(goal) and np.linalg.norm(left) < _NEAR:
            break
        position, now = scene.hand()
        ahead = position[:2] + left * min(1.0, _LEAD / np.linalg.norm(left))
        yield command(position, now, np.array([*ahead, inside[2] - _PRESS]), down, CLOSE)
    yield from rise(scene, 0.08, OPEN)


def nudge(scene: Scene, name: str) -> Actions:
    """Presses on an object that fingers cannot get around, and pulls it from what it lies against, bit by bit.

    Raises:
      Stuck: if there is no way to pull it, or it cannot be grasped there either.
    """
    way = _freeing(scene, name)
    position, rotation = scene.hand()
    leaning = _leaning(way, rotation)
    both = joined(*(hand.shape(position, pose, 0.0) for pose in (rotation, leaning)))
    before = _press_point(scene.boxes(name), leaning) - _BACK * leaning[:, 2]
    yield from follow(scene, course(both, scene.others(), position, before, 0.0, _AIR), leaning, CLOSE, near=0.02)
    yield from straight(scene, lambda: before, leaning, CLOSE, steps=_TURN_STEPS)
    for _ in range(_PULLS):
        yield from _press_and_pull(scene, _press_point(scene.boxes(name), leaning), way, leaning)
        if grasps(scene.boxes(name), scene.mass_center(name), scene.others(name)):
            break
    yield from rise(scene, 0.08, OPEN)


def _press_and_pull(scene: Scene, press: np.ndarray, way: np.ndarray, leaning: np.ndarray) -> Actions:
    yield from straight(scene, lambda: press - _ABOVE * leaning[:, 2], leaning, CLOSE, near=0.02)
    yield from straight(scene, lambda: press, leaning, CLOSE, near=0.008, steps=20)
    for _ in range(_PULL_STEPS):
        position, now = scene.hand()
        if np.linalg.norm((position - press)[:2]) > _PULL:
            return
        goal = np.array([*(position + _SLOWLY * way)[:2], press[2] - _PRESS_HARD])
        yield command(position, now, goal, leaning, CLOSE)


def _freeing(scene: Scene, name: str) -> np.ndarray:
    """Which way (3,) a closed hand can pull an object so that it can be grasped."""
    own, others = scene.boxes(name), scene.others(name)
    lifted, middle = own.moved(np.eye(3), np.zeros(3), _LIFT * UP), own.centers.mean(axis=0)
    found = []
    for way in _WAYS:
        rotation = _leaning(way, scene.hand()[1])
        press = _press_point(own, rotation)
        ahead = sunk(lifted, others, middle, way, _NUDGE)  # it may lie under what leans over it
        fist = hand.shape(press + _LIFT * UP, rotation, 0.0)
        if (sunk(fist, others, press, way, _NUDGE) >= 0).any() or (ahead[1:] > ahead[:-1].clip(0.0)).any():
            continue
        then = grasps(own.moved(np.eye(3), np.zeros(3), _NUDGE * way), scene.mass_center(name) + _NUDGE * way, others)
        if then:
            found.append((then[0].cost, way))
    if not found:
        raise Stuck(f"{name} can neither be grasped nor dragged")
    return min(found, key=lambda each: each[0])[1]


def _press_point(boxes: Boxes, rotation: np.ndarray) -> np.ndarray:
    """Grip site (3,) of a closed hand of that `rotation` (3, 3) whose fingertips stand on the middle of `boxes`."""
    low, high = boxes.extent()
    middle = (low.min(axis=0) + high.max(axis=0)) / 2
    return np.array([*middle[:2], high.max(axis=0)[2]]) - hand.TIP * rotation[:, 2]


def _leaning(way: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Rotation of a hand that leans toward `way` (3,), its fingers behind: so its palm keeps off what it pulls from."""
    inward = -np.sin(_TILT) * way - np.cos(_TILT) * UP
    return hand.facing(inward, np.cross(UP, way), now)


def inner_edge(boxes: Boxes, way: np.ndarray) -> np.ndarray | None:
    """Grip site (3,) of a closed hand that stands inside `boxes`, near to the rim on the side that `way` (2,) leads to.

    None where nothing is raised there.
    """
    low, high = (edge[:, :2] for edge in boxes.extent())
    middle = np.array([*(low.min(axis=0) + high.max(axis=0)) / 2, 0.0])
    ahead = turn(-np.arctan2(way[1], way[0]))
    far = np.linalg.norm(high.max(axis=0) - low.min(axis=0)) / 2
    top = heights(boxes.moved(ahead, middle, np.zeros(3)), np.array([0.0, -_FIST]), np.array([far, _FIST])).top
    profile = np.where(np.isfinite(top), top, -np.inf).max(axis=1)  # along the way
    wide = round(_FIST / CELL)
    cells = range(wide, len(profile) - wide - 1)
    floors = np.array([profile[cell - wide : cell + wide + 1].max() for cell in cells])
    rims = np.array([profile[cell + wide + 1 :].max() for cell in cells])
    fine = np.isfinite(floors) & (rims - floors > _RIM) & (floors < floors.min() + _LEVEL)
    if fine.any():
        best = int(np.flatnonzero(fine)[-1])
        return middle + ahead.T @ np.array([CELL * cells[best], 0.0, floors[best] + hand.TIP])
    return None
