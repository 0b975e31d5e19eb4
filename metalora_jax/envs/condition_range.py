"""Distributions of deployment conditions: what a recipe draws from, with parts held out for each split."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from metalora_jax.envs import viewpoint
from metalora_jax.envs.conditions import RELABELLED, Condition
from metalora_jax.fields import from_fields, to_fields


@dataclasses.dataclass(frozen=True)
class ConditionRange:
    """A distribution of conditions: every field is drawn uniformly and independently.

    Held-out conditions are held out in yaw: its interval is cut into 72 equal arcs, of which every sixth belongs to
    validation, every sixth to test, and the rest to training. So no test condition lies in an arc used for training.

    Attributes:
      yaw: interval [rad]. gain: interval of each axis' factor [1]. latency: inclusive interval of steps.
      camera: largest displacement along each axis [m]. light: interval of the brightness factor [1].
      camera_turn: largest turn about each axis [rad]. colour: how far surfaces are recoloured, each time, in [0, 1].
      friction, mass, damping: intervals of their factors [1]. texture: share of surfaces with another texture, always
        drawn each time, in [0, 1].
      joint_offset: largest offset of each joint, in its own unit, to either side; () is none. joint_gain: largest
        departure of each joint's gain from 1, to either side. Where they are set, held-out conditions are held out in
        the first joint that varies, as in yaw.
      moved: the cameras that are moved; () is all.
      view: values to choose from for each number of a condition's `view`; () is none. Held-out conditions are held out
        in the first that has several: of six neighbouring ones validation has the third, test the sixth.
      arm_start, picture_noise: what to choose from, held out in the same way; () is none. arm_start_reading: of them
        all. displaced: level of the displacement, each time another one.
      tilt: largest component of its axis-angle [rad], to either side; where yaw does not vary, held-out conditions are
        held out in the first, about x, as in yaw. mirror: what to choose from; () is none. dead_zone: interval of each
        axis'. gripper_flipped: how often, in [0, 1].
    """

    yaw: tuple[float, float] = (0.0, 0.0)
    gain: tuple[float, float] = (1.0, 1.0)
    latency: tuple[int, int] = (0, 0)
    camera: float = 0.0
    light: tuple[float, float] = (1.0, 1.0)
    camera_turn: float = 0.0
    colour: float = 0.0
    friction: tuple[float, float] = (1.0, 1.0)
    mass: tuple[float, float] = (1.0, 1.0)
    damping: tuple[float, float] = (1.0, 1.0)
    texture: float = 0.0
    joint_offset: tuple[float, ...] = ()
    joint_gain: tuple[float, ...] = ()
    moved: tuple[str, ...] = ()
    view: tuple[tuple[float, ...], ...] = ()
    arm_start: tuple[int, ...] = ()
    arm_start_reading: Literal["published", "pose"] = "published"
    displaced: int = 0
    picture_noise: tuple[int, ...] = ()
    tilt: float = 0.0
    mirror: tuple[str, ...] = ()
    dead_zone: tuple[float, float] = (0.0, 0.0)
    gripper_flipped: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "view", tuple(map(tuple, self.view)))  # lists, where JSON was read
        if self.view and (len(self.view) != len(viewpoint.PLAIN) or not all(self.view)):
            raise ValueError(
                f"conditions.view is {self.view}; give {len(viewpoint.PLAIN)} lists, each with one value or several: "
                "around, up, distance, aside, raised"
            )
        for start in self.arm_start or (0,):
            Condition(arm_start=start, arm_start_reading=self.arm_start_reading)  # refuses what there is not
        for noise in self.picture_noise:
            Condition(picture_noise=noise)
        for axes in self.mirror:
            Condition(mirror=axes)
        for distance in self.view[2] if self.view else ():
            Condition(view=(0.0, 0.0, distance, 0.0, 0.0))
        Condition(colour=self.colour, texture=self.texture, displaced=self.displaced)
        for name in ("yaw", "gain", "latency", "light", "friction", "mass", "damping", "dead_zone"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"conditions.{name} is {[least, most]}; give the least first, then the most")
            for end in {least, most}:
                fields: dict[str, Any] = {name: (end,) * 3 if name in _OF_AXES else end}
                Condition(**fields)
        if not 0 <= self.gripper_flipped <= 1:
            raise ValueError(f"conditions.gripper_flipped is {self.gripper_flipped}; it is how often, in [0, 1]")

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "ConditionRange":
        """Reads the section `conditions`; see `fields.from_fields`."""
        return from_fields(cls, fields, "conditions")

    def to_json(self) -> dict[str, Any]:
        """All fields, but later ones only where they are set: older runs do not have them."""
        values, plain = dataclasses.asdict(self), ConditionRange()
        return {
            name: to_fields(value)
            for name, value in values.items()
            if name not in _LATER or value != getattr(plain, name)
        }

    @property
    def of_the_scene(self) -> list[str]:
        """The fields that change what is seen or how things move; demonstrations must be recorded under them."""
        plain = ConditionRange()
        relabelled = set(RELABELLED) - {"joint_offset", "joint_gain"}  # these shift the state, too
        names = [field.name for field in dataclasses.fields(self) if field.name not in relabelled]
        return [name for name in names if getattr(self, name) != getattr(plain, name)]

    def sample(self, rng: np.random.Generator, split: str) -> Condition:
        """One condition of "train", "validation" or "test"; the same generator state gives the same condition."""
        if split not in _ARCS:
            raise ValueError(f"no split named {split!r}; choose from {', '.join(_ARCS)}")
        arc = rng.choice([i for i in range(_ARC_COUNT) if i % 6 in _ARCS[split]])
        yaw = self.yaw[0] + (self.yaw[1] - self.yaw[0]) * (arc + rng.uniform()) / _ARC_COUNT
        light, gain = rng.uniform(*self.light), rng.uniform(*self.gain, size=3)
        camera = self.camera * rng.uniform(-1.0, 1.0, size=3)
        latency = int(rng.integers(self.latency[0], self.latency[1] + 1))
        gx, gy, gz = gain.tolist()
        dx, dy, dz = (camera + 0.0).tolist()  # + 0.0 turns -0.0, which would not equal the default in JSON, into 0.0
        condition = Condition(float(yaw), (gx, gy, gz), latency, (dx, dy, dz), float(light))
        return dataclasses.replace(condition, **self._further(rng, int(arc), split))

    def _further(self, rng: np.random.Generator, arc: int, split: str) -> dict[str, Any]:
        """The fields that are drawn only if requested, so that draws without them stay the same."""
        drawn: dict[str, Any] = {"moved": self.moved} if self.moved else {}
        if self.camera_turn:
            drawn["camera_turn"] = tuple((self.camera_turn * rng.uniform(-1.0, 1.0, size=3)).tolist())
        if self.colour:
            drawn |= {"colour": self.colour, "colour_seed": int(rng.integers(1 << 31))}
        for name in ("friction", "mass", "damping"):
            if (interval := getattr(self, name)) != (1.0, 1.0):
                drawn[name] = float(rng.uniform(*interval))
        if self.texture:
            drawn |= {"texture": self.texture, "texture_seed": int(rng.integers(1 << 31))}
        if self.view:
            drawn["view"] = self._view(rng, split)
        if self.arm_start:
            drawn["arm_start_reading"] = self.arm_start_reading
        for name in ("arm_start", "picture_noise"):
            if values := getattr(self, name):
                drawn[name] = int(rng.choice(values if len(values) == 1 else _held_out(values, split, name)))
        if self.displaced:
            drawn |= {"displaced": self.displaced, "displaced_seed": int(rng.integers(1 << 31))}
        return drawn | self._of_joints(rng, arc) | self._of_actions(rng, arc)

    def _of_actions(self, rng: np.random.Generator, arc: int) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        if self.tilt:
            share = rng.uniform(-1.0, 1.0, size=3)
            if self.yaw[0] == self.yaw[1]:
                share[0] = 2 * (arc + rng.uniform()) / _ARC_COUNT - 1
            drawn["tilt"] = tuple((self.tilt * share).tolist())
        if self.mirror:
            drawn["mirror"] = str(rng.choice(self.mirror))
        if self.dead_zone != (0.0, 0.0):
            drawn["dead_zone"] = tuple(rng.uniform(*self.dead_zone, size=3).tolist())
        if self.gripper_flipped:
            drawn["gripper_flipped"] = bool(rng.uniform() < self.gripper_flipped)
        return drawn

    def _view(self, rng: np.random.Generator, split: str) -> tuple[float, ...]:
        varies = next((i for i, values in enumerate(self.view) if len(values) > 1), None)
        choices = [_held_out(v, split, "view") if i == varies else v for i, v in enumerate(self.view)]
        return tuple(float(values[int(rng.integers(len(values)))]) for values in choices)

    def _of_joints(self, rng: np.random.Generator, arc: int) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        for name, middle in (("joint_offset", 0.0), ("joint_gain", 1.0)):
            largest = np.asarray(getattr(self, name))
            if largest.any():
                share = rng.uniform(-1.0, 1.0, size=len(largest))
                if not drawn:
                    share[np.flatnonzero(largest)[0]] = 2 * (arc + rng.uniform()) / _ARC_COUNT - 1
                drawn[name] = tuple((middle + largest * share).tolist())
        return drawn


def _held_out(values: Sequence[Any], split: str, field: str) -> Sequence[Any]:
    """Those of a field's values that belong to a split."""
    if not (own := [value for i, value in enumerate(values) if i % 6 in _ARCS[split]]):
        raise ValueError(
            f"conditions.{field} has {len(values)} values, none of which is held out for {split}: give six or more, or "
            "a range of its own to what is recorded for it"
        )
    return own


_LATER = (
    *("joint_offset", "joint_gain", "moved", "view", "arm_start", "arm_start_reading"),
    *("displaced", "picture_noise", "tilt", "mirror", "dead_zone", "gripper_flipped"),
)
_OF_AXES = ("gain", "dead_zone")  # of which a condition has one for each axis
_ARC_COUNT = 72  # 5 degrees each where yaw goes all around; held-out arcs then cover all directions evenly
_ARCS = {"train": (0, 1, 3, 4), "validation": (2,), "test": (5,)}
