"""Deployment conditions: what differs between the robot that a policy was trained for and the one it runs on.

A condition is hidden: no field of the observation names it; it shows only in what actions do and in what the camera
sees. Action shifts act between policy and simulator, `executed[t] = clip(R (gain * through(command[t - latency])))`: R
turns and mirrors the frame, `through` is a dead zone. So a demonstration recorded without a shift becomes an exact
demonstration under one by relabelling (`command_labels`); everything else changes what is seen or how things move, and
needs new recordings.

A robot that is told joint positions has no such frame; its own shift is a wrong calibration, which the reading shares:
`executed = gain said + offset`, `observed = (physical - offset) / gain`, each joint by itself. `world.check_shift`
refuses what does not fit a world's actions.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from metalora_jax.data import joints
from metalora_jax.envs import action_frame, arm_starts, viewpoint
from metalora_jax.fields import from_fields


@dataclasses.dataclass(frozen=True)
class Condition:
    """One deployment. The default is the one the base was trained for.

    Attributes:
      yaw: rotation of the action frame about the vertical axis [rad].
      gain: factor on the commanded x, y, z displacement [1], each > 0.
      latency: control steps between command and execution.
      camera: displacement of every camera [m], in the axes of what carries it: the world, or the robot's hand.
      light: factor on the brightness of every light [1].
      camera_turn: axis-angle turn of every camera about its own axes [rad]: x to the right, y up, z backwards.
      colour: how far surfaces are recoloured, in [0, 1]: each channel of each is multiplied by 1 - colour to 1.
      colour_seed: which recolouring.
      friction: factor on every sliding friction [1].
      mass: factor on the mass and inertia of every loose object [1].
      damping: factor on the damping of every joint [1].
      texture: share of the textured surfaces that get another of the scene's textures, in [0, 1]; loose objects keep
        theirs, by which instructions name them.
      texture_seed: which ones, and whose.
      joint_offset: of each joint, in its own unit: what it executes beyond what it is told; () is none.
      joint_gain: of each joint [1], each > 0; () is none.
      moved: the cameras that `camera` and `camera_turn` move; () is all.
      view: where agentview stands, LIBERO alone: round the table, up [degrees], distance [1], and its gaze aside and
        raised [degrees]; see `viewpoint.moved`.
      arm_start: which of LIBERO-plus's starts of the arm, LIBERO alone; 0 is the usual one. See `arm_starts.pose`.
      arm_start_reading: "published", what its usual loop makes of them: the arm stands where it always does, and the
        controller alone has the start's orientation and joints for goals, so that the hand turns while things settle,
        and the arm is drawn to other joints from then on; or "pose", the arm stands there.
      displaced: how far what lies about is displaced, LIBERO alone: a level from 0, not at all, to 5, whose reach
        LIBERO-plus has for each suite, see `libero_starts`.
      displaced_seed: where to.
      picture_noise: LIBERO-plus's noise of agentview, 1 to 40, LIBERO alone; 0 is none. See `picture_noise.spoiled`.
      tilt: rotation of the action frame after `yaw`, an axis-angle [rad].
      mirror: axes of the action frame that point the other way, such as "x" or "xz". Turns are mirrored with it: "x"
        leaves those about x as they are, and reverses those about y and z.
      dead_zone: of the commanded x, y, z displacement, each in [0, 1): what does not move the hand yet.
      gripper_flipped: whether the gripper opens where it is told to close.
    """

    yaw: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    latency: int = 0
    camera: tuple[float, float, float] = (0.0, 0.0, 0.0)
    light: float = 1.0
    camera_turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    colour: float = 0.0
    colour_seed: int = 0
    friction: float = 1.0
    mass: float = 1.0
    damping: float = 1.0
    texture: float = 0.0
    texture_seed: int = 0
    joint_offset: tuple[float, ...] = ()
    joint_gain: tuple[float, ...] = ()
    moved: tuple[str, ...] = ()
    view: tuple[float, float, float, float, float] = viewpoint.PLAIN
    arm_start: int = 0
    arm_start_reading: Literal["published", "pose"] = "published"
    displaced: int = 0
    displaced_seed: int = 0
    picture_noise: int = 0
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mirror: str = ""
    dead_zone: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gripper_flipped: bool = False

    def __post_init__(self):
        if min(self.gain) <= 0:
            raise ValueError(f"condition gain {self.gain} must be positive in every axis")
        if min(self.joint_gain, default=1.0) <= 0:
            raise ValueError(f"condition joint_gain {self.joint_gain} must be positive for every joint")
        if self.latency < 0:
            raise ValueError(f"condition latency {self.latency} must not be negative")
        for name in ("light", "friction", "mass", "damping"):
            if getattr(self, name) <= 0:
                raise ValueError(f"condition {name} {getattr(self, name)} must be positive")
        for name in ("colour", "texture"):
            if not 0 <= getattr(self, name) <= 1 or getattr(self, f"{name}_seed") < 0:
                raise ValueError(f"condition {name} {getattr(self, name)} must be in [0, 1], and its seed not negative")
        if self.view[2] <= 0:
            raise ValueError(f"condition view {self.view}: its distance, the third number, must be positive")
        if not 0 <= self.arm_start <= arm_starts.COUNT:
            raise ValueError(f"condition arm_start {self.arm_start} must be in 0..{arm_starts.COUNT}")
        if not self.arm_start and self.arm_start_reading != arm_starts.PUBLISHED:
            raise ValueError(f"condition arm_start_reading {self.arm_start_reading!r} has no arm_start to read: set it")
        if not 0 <= self.displaced <= _LEVELS or self.displaced_seed < 0:
            raise ValueError(f"condition displaced {self.displaced} must be in 0..{_LEVELS}, and its seed not negative")
        if not 0 <= self.picture_noise <= _NOISES:
            raise ValueError(f"condition picture_noise {self.picture_noise} must be in 0..{_NOISES}")
        if not 0 <= min(self.dead_zone) <= max(self.dead_zone) < 1:
            raise ValueError(f"condition dead_zone {self.dead_zone} must be in [0, 1) in every axis")
        if self.mirror != "".join(axis for axis in "xyz" if axis in self.mirror):
            raise ValueError(f"condition mirror {self.mirror!r} must name axes of x, y, z, in this order, each once")

    @property
    def of_the_scene(self) -> "Condition":
        """This condition without what relabelling recorded actions and readings of joints makes up for."""
        plain = Condition()
        return dataclasses.replace(self, **{name: getattr(plain, name) for name in RELABELLED})

    @property
    def changes_scene(self) -> bool:
        """Whether this condition needs demonstrations of its own."""
        return self.of_the_scene != Condition()

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the default, so that records stay readable."""
        default = Condition()
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != getattr(default, f.name)
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Condition":
        """Inverse of `to_json`."""
        return from_fields(cls, fields, "condition")


def from_flags(flags: Sequence[str]) -> Condition:
    """A condition from "FIELD=JSON" for each field that is not as usual, such as "camera=[0,0,0.05]" or "mirror=\"x\"".

    Raises:
      ValueError: one is not of this form or comes twice, or there is no such condition; the message names it.
    """
    fields: dict[str, Any] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not equals or name in fields:
            raise ValueError(f"condition {flag!r}: give each field once, as FIELD=VALUE, such as light=0.6")
        try:
            fields[name] = json.loads(value)
        except json.JSONDecodeError:
            fields[name] = value  # a word needs no quotes
    return Condition.from_json(fields)


def execute(command: np.ndarray, condition: Condition) -> np.ndarray:
    """What the shifted robot executes for a command; excludes latency, which needs a queue.

    Args:
      command: (..., 4) [x, y, z, gripper] or (..., 7) [x, y, z, axis-angle, gripper]; the turn is about the same axes
        as the displacement, and is rotated with it.
      condition: the shift.
    """
    frame, of_turns = action_frame.axes(condition.tilt, condition.yaw, condition.mirror)
    moved = action_frame.through(command[..., :3], condition.dead_zone) * np.asarray(condition.gain) @ frame.T
    rest = _turned(command, of_turns.T), _gripper(command, condition)
    return np.clip(np.concatenate([moved, *rest], axis=-1), -1.0, 1.0)


def command_labels(executed: np.ndarray, condition: Condition) -> np.ndarray:
    """The commands (T, 4 or 7) that make the shifted robot execute the recorded actions: the inverse of the shift.

    Under latency the command for step t is the action of step t + latency; the last ones repeat the final action.
    """
    wanted = joints.said_ahead(executed, condition.latency)
    frame, of_turns = action_frame.axes(condition.tilt, condition.yaw, condition.mirror)
    moved = action_frame.out_of(wanted[:, :3] @ frame / np.asarray(condition.gain), condition.dead_zone)
    rest = _turned(wanted, of_turns), _gripper(wanted, condition)
    return np.concatenate([moved, *rest], axis=-1).astype(np.float32)


def _turned(command: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """The axis-angle part of a command, rotated; (..., 0) where the robot cannot turn."""
    turn = command[..., 3:-1]
    return turn @ rotation if turn.shape[-1] else turn


def _gripper(command: np.ndarray, condition: Condition) -> np.ndarray:
    return -command[..., -1:] if condition.gripper_flipped else command[..., -1:]


def execute_joints(said: np.ndarray, condition: Condition) -> np.ndarray:
    """The joint targets (..., joints) that a robot with a wrong calibration takes for what it is told."""
    return joints.executed(said, *_calibration(said, condition))


def read_joints(physical: np.ndarray, condition: Condition) -> np.ndarray:
    """What such a robot says of joints (..., joints): the inverse, so that it says to stand where it is told to."""
    return joints.observed(physical, *_calibration(physical, condition))


def joint_labels(executed: np.ndarray, condition: Condition) -> np.ndarray:
    """As `command_labels`, for joint targets (T, joints)."""
    return read_joints(joints.said_ahead(executed, condition.latency), condition).astype(np.float32)


def _calibration(values: np.ndarray, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
    there = values.shape[-1]
    for name in ("joint_gain", "joint_offset"):
        if len(given := getattr(condition, name)) not in (0, there):
            raise ValueError(f"condition {name} has {len(given)} numbers, the robot {there} joints: give one for each")
    return np.asarray(condition.joint_gain or (1.0,) * there), np.asarray(condition.joint_offset or (0.0,) * there)


# What relabelling recorded actions, and readings of joints, makes up for.
RELABELLED = ("yaw", "gain", "latency", "joint_offset", "joint_gain", "tilt", "mirror", "dead_zone", "gripper_flipped")
_LEVELS, _NOISES = 5, 40  # LIBERO-plus's
