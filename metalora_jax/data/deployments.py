"""Demonstrations as another robot of the same kind would have recorded them: its calibration, cameras, light, delay.

A `Deployment` moves whole demonstrations, as a symmetry does (`data.symmetry`): commands, readings and pictures of all
of a task's demonstrations together. Its copy is a task of its own (`deployed`), so that support and query come from one
robot, and what differs can only be learned from the support: domain randomisation as a distribution of tasks (Finn et
al. 2017, arXiv:1703.03400; Tobin et al. 2017, arXiv:1703.06907).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.data import joints
from metalora_jax.fields import from_fields
from metalora_jax.types import Demo


class View(NamedTuple):
    """How one camera stands otherwise, in its picture."""

    keep: float = 1.0  # share of the side that is seen, resized to the whole
    right: float = 0.0  # of the middle of what is seen, as a share of the side
    down: float = 0.0
    tilt: float = 0.0  # [rad] of what is seen, counterclockwise

    def apply(self, images: np.ndarray, light: float = 1.0) -> np.ndarray:
        """Pictures (T, H, W, 3) uint8 -> the same, resampled bilinearly, borders repeated; `light` times as bright."""
        height, width = images.shape[1:3]
        y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
        c, s = np.cos(self.tilt) * self.keep, np.sin(self.tilt) * self.keep  # of where each pixel looks
        across, along = c * x - s * y + self.right * width, s * x + c * y + self.down * height
        row = np.clip(along + (height - 1) / 2, 0, height - 1)
        column = np.clip(across + (width - 1) / 2, 0, width - 1)
        top, left = np.floor(row).astype(int), np.floor(column).astype(int)
        bottom, far = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
        v, u = ((part[..., None]).astype(np.float32) for part in (row - top, column - left))
        out = np.empty(images.shape, np.uint8)
        for i, image in enumerate(images):
            upper = (1 - u) * image[top, left] + u * image[top, far]
            lower = (1 - u) * image[bottom, left] + u * image[bottom, far]
            out[i] = np.clip(np.rint(light * ((1 - v) * upper + v * lower)), 0, 255)
        return out


class Deployment(NamedTuple):
    """One other robot of the same kind; the default is the one that was recorded."""

    gain: tuple[float, ...]  # (D,) of each joint [1]
    offset: tuple[float, ...]  # (D,) in the joint's own unit
    reading: bool  # whether readings are shifted alike
    latency: int  # control steps between command and execution
    views: tuple[View, ...]  # of each camera
    light: float  # factor on every pixel

    def demo(self, demo: Demo) -> Demo:
        """The demonstration that this robot would have recorded while it did the same.

        Raises:
          ValueError: readings are shifted, and the state does not hold one number for each joint of an action.
        """
        width = demo.actions.shape[1]
        if self.reading and demo.state.shape[1] != width:
            raise ValueError(
                f"the state has {demo.state.shape[1]} numbers, an action {width}: readings cannot be shifted as the "
                "commands are. Name the joints' feature with keys, set deployments.reading to False, or, where actions "
                "are no joint positions, leave deployments out"
            )
        gain, offset = np.asarray(self.gain), np.asarray(self.offset)
        actions = joints.said_ahead(joints.observed(demo.actions, gain, offset), self.latency)
        state = joints.observed(demo.state, gain, offset) if self.reading else demo.state
        return demo._replace(
            images=self._seen(demo.images), state=state.astype(np.float32), actions=actions.astype(np.float32)
        )

    def _seen(self, images: Any) -> Any:
        if self.light == 1 and set(self.views) <= {View()}:
            return images  # not copied
        seen = np.asarray(images)
        return np.stack([view.apply(seen[:, i], self.light) for i, view in enumerate(self.views)], axis=1)


class DeploymentRange(NamedTuple):
    """Other robots, drawn for each task: every value uniformly to both sides, and independently."""

    copies: int = 0  # of each task, each on another robot
    gain: float = 0.0  # largest departure of a joint's gain from 1
    offset: float = 0.0  # largest offset of a joint, in the unit of its actions
    joints: Sequence[int] = ()  # numbers of the joints that are shifted. Empty: all
    reading: bool = True  # whether readings are shifted alike
    latency: int = 0  # most control steps between command and execution
    crop: float = 0.0  # largest share of a picture's side that a camera does not see, which is cut off anywhere
    tilt: float = 0.0  # largest turn of a camera in its picture [rad]
    light: float = 0.0  # largest relative change of brightness
    seed: int = 0

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "DeploymentRange":
        """Reads the section `deployments`; see `fields.from_fields`.

        Raises:
          ValueError: a value is out of its range, or copies and what differs between them are not set together.
        """
        self = from_fields(cls, fields, "deployments")
        for name in ("gain", "crop", "light"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"deployments.{name} is {getattr(self, name)}; it must lie in [0, 1)")
        for name in ("copies", "offset", "latency", "tilt"):
            if getattr(self, name) < 0:
                raise ValueError(f"deployments.{name} is {getattr(self, name)}; it must not be negative")
        ways = ("gain", "offset", "latency", "crop", "tilt", "light")
        if (differs := [name for name in ways if getattr(self, name)]) and not self.copies:
            raise ValueError(
                f"deployments.{differs[0]} is {getattr(self, differs[0])}, and there are no copies that it would "
                "change: set deployments.copies, such as 3"
            )
        if self.copies and not differs:
            raise ValueError(
                f"deployments.copies is {self.copies}, and they would all be alike: set one of {', '.join(ways)}"
            )
        return self

    def sample(self, rng: np.random.Generator, width: int, cameras: int) -> Deployment:
        """One robot, of so many joints and cameras.

        Raises:
          ValueError: `joints` names one that is not there.
        """
        chosen = list(self.joints) or list(range(width))
        if odd := [joint for joint in chosen if not 0 <= joint < width]:
            raise ValueError(f"deployments.joints holds {odd[0]}; actions have {width} numbers, from 0 to {width - 1}")
        gain, offset = np.ones(width), np.zeros(width)
        gain[chosen] += rng.uniform(-self.gain, self.gain, len(chosen))
        offset[chosen] += rng.uniform(-self.offset, self.offset, len(chosen))
        views = []
        for _ in range(cameras):
            cut = rng.uniform(0, self.crop)
            right, down = rng.uniform(-cut / 2, cut / 2, 2)
            views.append(View(1 - cut, float(right), float(down), rng.uniform(-self.tilt, self.tilt)))
        light = 1 + rng.uniform(-self.light, self.light)
        latency = int(rng.integers(self.latency + 1))
        return Deployment(tuple(gain.tolist()), tuple(offset.tolist()), self.reading, latency, tuple(views), light)


def deployed(demos: Mapping[str, Sequence[Demo]], wanted: DeploymentRange) -> dict[str, list[Demo]]:
    """`demos`, and `copies` of each task, all of whose demonstrations are those of one other robot.

    Copy k of the i-th task depends on (seed, i, k) alone. It is called `task@deployment_k`.

    Raises:
      ValueError: see `Deployment.demo` and `DeploymentRange.sample`.
    """
    out = {task: list(recorded) for task, recorded in demos.items()}
    for i, (task, recorded) in enumerate(demos.items()):
        cameras, width = recorded[0].images.shape[1], recorded[0].actions.shape[1]
        for k in range(1, wanted.copies + 1):
            robot = wanted.sample(np.random.default_rng([wanted.seed, i, k]), width, cameras)
            out[f"{task}@deployment_{k}"] = [robot.demo(demo) for demo in recorded]
    return out
