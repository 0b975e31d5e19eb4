"""Demonstrations in a mirror, or seen from another side: geometric augmentation, with all the changes that it requires.

A `Symmetry` moves whole demonstrations: it transforms pictures, proprioception, commands and words together, so that no
picture can be flipped without its action, or the reverse. Which pictures stay valid follows from
the cameras' poses; a camera that would have to show what it cannot see raises a ValueError.

The result is a new demonstration, of a task of its own (`enlarged`): labels of a deployment condition, variants
of its pictures and cached features are made from it as from any other.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.types import Demo

NAMES = ("mirror", "turn_90", "turn_180", "turn_270")  # turns: counterclockwise, seen from above
_CLOSE = 1e-3  # [m] and of unit vectors; far below a pixel


class Eye(NamedTuple):
    """Where a camera is: in the world's frame, or in the hand's where the hand carries it."""

    position: tuple[float, float, float]  # [m]
    right: tuple[float, float, float]  # unit vector to the right of the picture, as demonstrations hold it
    up: tuple[float, float, float]  # unit vector to its top
    on_hand: bool = False


class Robot(NamedTuple):
    """What symmetries need to know of a world. Positions and displacements come first, the gripper last.

    State: x, y, z [m], the hand's axis-angle [rad] where it turns, `fingers` numbers. Command: displacement, turn as
    axis-angle in the world's axes where it turns, gripper.
    """

    name: str
    mirror: int  # axis that a mirror reverses (0 is x): of the world, and of the hand's own frame; its plane holds 0
    centre: tuple[float, float]  # x, y [m] of the vertical axis that turns are about
    turns: bool  # whether the hand can turn
    fingers: int  # 1: an opening. 2: positions of two fingers that move against each other along the mirrored axis
    eyes: Mapping[str, Eye]


class Symmetry(NamedTuple):
    """x -> linear x + offset [m] on the world, for the cameras of some demonstrations; made by `symmetry`."""

    name: str
    robot: Robot
    linear: np.ndarray  # (3, 3) orthogonal
    offset: np.ndarray  # (3,) [m]
    pictures: tuple[np.ndarray, ...]  # each camera's (2, 2): the same map on (right, up) of its picture

    def demo(self, demo: Demo) -> Demo:
        """The demonstration as it would have been recorded in the moved world.

        Its actions must be those of a robot without a condition (in a mirror, a turned action frame turns the other
        way); commands under one are made from them afterwards, as from any recorded ones.

        Raises:
          ValueError: if its arrays do not fit the robot and cameras, or a turn makes its words wrong.
        """
        cameras, height, width = demo.images.shape[1:4]
        arm = 6 if self.robot.turns else 3
        wanted = (len(self.pictures), arm + self.robot.fingers, arm + 1)
        if (cameras, demo.state.shape[1], demo.actions.shape[1]) != wanted:
            raise ValueError(
                f"{self.name}: a demonstration of {self.robot.name} has {wanted[0]} cameras, {wanted[1]} state and "
                f"{wanted[2]} action dimensions; this one has {cameras}, {demo.state.shape[1]}, {demo.actions.shape[1]}"
            )
        if height != width:
            raise ValueError(f"{self.name}: pictures of {height} x {width} pixels are not square")
        return Demo(
            say(self.name, demo.instruction),
            np.stack([_moved(demo.images[:, i], plane) for i, plane in enumerate(self.pictures)], axis=1),
            self._state(demo.state).astype(np.float32),
            self._command(demo.actions).astype(np.float32),
            tuple(say(self.name, text) for text in demo.paraphrases),
            tuple((first, say(self.name, text)) for first, text in demo.steps),
        )

    def _state(self, state: np.ndarray) -> np.ndarray:
        parts = [state[:, :3] @ self.linear.T + self.offset]
        gripper = state[:, 3:]
        if self.robot.turns:
            parts.append(self._attitude(state[:, 3:6].astype(np.float64)))
            gripper = state[:, 6:]
        swapped = self.robot.fingers == 2 and self.name == "mirror"  # each finger takes the other one's place
        return np.concatenate([*parts, -gripper[:, ::-1] if swapped else gripper], axis=1)

    def _attitude(self, axis_angle: np.ndarray) -> np.ndarray:
        """(T, 3) [rad], of angles in [0, 2 pi] as robosuite writes them, where a quaternion's sign is kept."""
        angle = np.linalg.norm(axis_angle, axis=1, keepdims=True)
        w, vector = np.cos(angle / 2), axis_angle * 0.5 * np.sinc(angle / (2 * np.pi))
        if self.name == "mirror":
            # Of the two quaternions of the mirrored attitude, the one that leaves a hand alone that points straight
            # down, half a turn about x: the arm mirrors itself in that pose, joints and all, so its kinematics says so.
            w, vector = -w, vector @ self.linear.T
        else:
            half = np.arctan2(self.linear[1, 0], self.linear[0, 0]) / 2
            axis = np.array([0.0, 0.0, np.sin(half)])
            w, vector = (
                np.cos(half) * w - vector @ axis[:, None],
                np.cos(half) * vector + w * axis + np.cross(axis, vector),
            )
        sine = np.linalg.norm(vector, axis=1, keepdims=True)
        return vector * 2 * np.arctan2(sine, w) / np.maximum(sine, 1e-9)

    def _command(self, command: np.ndarray) -> np.ndarray:
        moved, turn, gripper = command[:, :3] @ self.linear.T, command[:, 3:-1], command[:, -1:]
        if self.robot.turns:  # a turn's axis is a pseudovector: a mirror reverses its sense, too
            turn = np.linalg.det(self.linear) * turn @ self.linear.T
        return np.concatenate([moved, turn, gripper], axis=1)


def symmetry(robot: Robot, cameras: Sequence[str], name: str) -> Symmetry:
    """One of NAMES for demonstrations that were recorded with `cameras`, in that order.

    Raises:
      ValueError: if there is no such symmetry or camera, or a picture would have to show what its camera never saw.
    """
    if name not in NAMES:
        raise ValueError(f"no symmetry named {name!r}; choose from {', '.join(NAMES)}")
    linear, on_hand = np.eye(3), np.eye(3)
    offset = np.zeros(3)
    if name == "mirror":
        linear[robot.mirror, robot.mirror] = on_hand[robot.mirror, robot.mirror] = -1.0
    else:
        c, s = {"turn_90": (0, 1), "turn_180": (-1, 0), "turn_270": (0, -1)}[name]
        linear[:2, :2] = [[c, -s], [s, c]]
        offset[:2] = robot.centre - linear[:2, :2] @ robot.centre
    planes = []
    for camera in cameras:
        if camera not in robot.eyes:
            raise ValueError(
                f"{name}: the pose of camera {camera!r} of {robot.name} is unknown; known: {', '.join(robot.eyes)}"
            )
        eye = robot.eyes[camera]
        # In its own frame the hand is mirrored with the world, but turns with it unchanged.
        plane = _plane(eye, on_hand, np.zeros(3)) if eye.on_hand else _plane(eye, linear, offset)
        if plane is None:
            raise ValueError(
                f"{name}: camera {camera!r} of {robot.name}, at {eye.position} m, would show what it never saw: a "
                f"mirror needs a camera in the plane {'xyz'[robot.mirror]} = 0, held upright in it, and a turn one "
                f"that looks straight down on x, y = {robot.centre}; leave {name} or the camera out"
            )
        planes.append(plane)
    return Symmetry(name, robot, linear, offset, tuple(planes))


def _plane(eye: Eye, linear: np.ndarray, offset: np.ndarray) -> np.ndarray | None:
    """What x -> linear x + offset does to (right, up) of a picture: (2, 2); None where it is not the same camera's."""
    position, right, up = (np.asarray(value, np.float64) for value in eye[:3])
    plane = np.array([[a @ linear @ b for b in (right, up)] for a in (right, up)])
    forward = np.cross(right, up)  # or backward, where the picture is a mirror image already
    errors = (linear @ position + offset - position, linear @ forward - forward, plane - np.rint(plane))
    return np.rint(plane) if all(np.abs(error).max() < _CLOSE for error in errors) else None


def _moved(images: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Pictures (T, side, side, 3) whose points (right, up) move to plane @ (right, up)."""
    if plane[0, 0] == 0:
        images, (down, right) = images.swapaxes(1, 2), (-plane[1, 0], -plane[0, 1])
    else:
        down, right = plane[1, 1], plane[0, 0]
    return images[:, :: int(down), :: int(right)]


_HANDED = re.compile(r"(?<![a-z])(?:(?:counter|anti)-?clockwise|clockwise|(?:left|right)(?=most|ward|-|\b))", re.I)
_SIDES = re.compile(r"\b(?:left|right|front|back|rear|behind|forward|backward|side)\w*", re.I)


def say(name: str, text: str) -> str:
    """An instruction, reworded for the moved world: a mirror swaps left and right, and the sense of clocks.

    Raises:
      ValueError: if a turn changes the meaning of a word in `text`.
    """
    if name == "mirror":
        return _HANDED.sub(lambda found: _other_hand(found[0]), text)
    if found := _SIDES.search(text):
        raise ValueError(f"{name}: {text!r} says {found[0]!r}, which a turn makes wrong; leave the task out")
    return text


def _other_hand(word: str) -> str:
    lower = word.lower()
    if lower in ("left", "right"):
        other = "right" if lower == "left" else "left"
    else:
        other = "counterclockwise" if lower == "clockwise" else "clockwise"
    return other.capitalize() if word[0].isupper() else other


def twin(task: str, name: str) -> str:
    """The name of a task's copy under a symmetry."""
    return f"{task}@{name}"


def enlarged(
    demos: Mapping[str, Sequence[Demo]], symmetries: Sequence[Symmetry], tasks: Sequence[str]
) -> dict[str, list[Demo]]:
    """`demos`, and for each of `tasks` a `twin` under each symmetry with as many demonstrations.

    A twin is a task of its own, so that no support set is tested on its own mirror image. Name only tasks whose objects
    mirror into objects that work the same way: a window that opens to the right becomes one that opens to the left.

    Raises:
      ValueError: if a task has no demonstrations here, or one of them cannot be transformed.
    """
    out = {task: list(recorded) for task, recorded in demos.items()}
    for task in tasks:
        if task not in demos:
            raise ValueError(f"symmetries.tasks names {task!r}, which is not a training task; leave it out")
        for each in symmetries:
            try:
                out[twin(task, each.name)] = [each.demo(demo) for demo in demos[task]]
            except ValueError as error:
                raise ValueError(f"{task}: {error}") from None
    return out
