"""What the SO-101 can be told: lift a cube, place it on a marker, or push it away; and when that is done.

All cubes and markers lie in every scene, at places that do not depend on the instruction: the picture does not tell the
task, and the words do not tell the place.
"""

import difflib
from typing import NamedTuple

import numpy as np

CUBES = {"red": (0.85, 0.08, 0.08), "green": (0.05, 0.6, 0.15), "blue": (0.1, 0.2, 0.9)}  # colour -> RGB
MARKERS = {"white": (1.0, 1.0, 1.0), "purple": (0.55, 0.1, 0.7)}  # no colour of the arm, which is yellow and black
SIDE = 0.04  # [m] of a cube
LIFT = 0.05  # [m] that a cube must rise
ON = 0.025  # [m] between the centres of a cube and the marker that it rests on, at most
PUSH = 0.05  # [m] that a cube must move away from the arm's base, on the table
STILL = 0.03  # [m/s] below which a cube rests
LEVEL = 0.006  # [m] that the centre of a cube on the table may be off its height


class Task(NamedTuple):
    """One instruction, taken apart."""

    verb: str  # "lift", "place" or "push"
    cube: str  # its colour
    marker: str | None = None  # its colour, where something is placed


class Scene(NamedTuple):
    """Where things are; positions [m] in the arm's frame: x ahead, y to its left, z up."""

    cube: np.ndarray  # (3,) centre of the task's cube
    start: np.ndarray  # (3,) where it lay when the episode began
    speed: float  # of the cube [m/s]
    marker: np.ndarray | None  # (3,) centre of the task's marker
    touched: bool  # whether the gripper touches the cube


TASKS = (
    {f"lift-{cube}": Task("lift", cube) for cube in CUBES}
    | {f"place-{cube}-{marker}": Task("place", cube, marker) for cube in CUBES for marker in MARKERS}
    | {f"push-{cube}": Task("push", cube) for cube in CUBES}
)


def instruction(task: str) -> str:
    """The instruction; raises ValueError, naming the closest tasks, if there is no such task."""
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=3, cutoff=0.4)
        raise ValueError(f"no SO-101 task named {task!r}; choose from {', '.join(near or TASKS)}")
    verb, cube, marker = TASKS[task]
    if verb == "place":
        return f"place the {cube} cube on the {marker} marker"
    return f"lift the {cube} cube" if verb == "lift" else f"push the {cube} cube away"


def solved(task: Task, scene: Scene) -> bool:
    """Whether the task is done in this moment.

    lift: the cube has risen by LIFT. place: it lies on the marker, at rest and released. push: it has moved away from
    the arm's base by PUSH, on the table and at rest.
    """
    if task.verb == "lift":
        return bool(scene.cube[2] - scene.start[2] >= LIFT)
    at_rest = scene.speed < STILL and abs(scene.cube[2] - SIDE / 2) < LEVEL
    if task.verb == "push":
        return bool(at_rest and np.hypot(*scene.cube[:2]) - np.hypot(*scene.start[:2]) >= PUSH)
    assert scene.marker is not None
    return bool(at_rest and not scene.touched and np.linalg.norm(scene.cube[:2] - scene.marker[:2]) <= ON)
