"""How a policy drives a robot: what it sees, how often it looks, and when an episode ends."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from metalora_jax.envs.world import world
from metalora_jax.fields import from_fields, to_fields


class Control(NamedTuple):
    """How a policy drives the robot."""

    cameras: tuple[str, ...]  # in the order the base was trained with
    execute: int  # control steps before the policy observes again (n_action_steps); at most a chunk
    max_steps: int | Mapping[str, int]  # control steps before an episode counts as failed; may differ by suite
    world: str = "metaworld"
    image_size: int = 64  # [px] of what the cameras give
    ensemble: float | None = None  # overlapping chunks are averaged, see `execution.command`; None: the newest counts
    simulator: Mapping[str, Any] | None = None  # what else the world's takes: LIBERO's settle_steps, fast
    timeout: float = 3600.0  # [s] for an episode, its compilation included; then its process is killed: a failure
    fuse: bool = False  # fold adapters into the base's weights, float32 only: see `adaptation.agent`
    platform: str | None = None  # JAX's, such as "cpu", for the policies of all workers; None: JAX's choice

    def cap(self, task: str) -> int:
        """`max_steps` of a task.

        Raises:
          ValueError: if there is none for the task's suite.
        """
        if not isinstance(self.max_steps, Mapping):
            return self.max_steps
        suite = world(self.world).suite(task)
        if suite not in self.max_steps:
            raise ValueError(f"control.max_steps lacks {suite!r}, the suite of {task}; add it")
        return self.max_steps[suite]

    @classmethod
    def from_config(cls, fields: Mapping[str, Any], cameras: Sequence[str]) -> "Control":
        """Reads the section `control`; `cameras` are those of the demonstrations. See `fields.from_fields`."""
        if "cameras" in fields:
            raise ValueError("control.cameras is set by the demonstrations' cameras: leave it out")
        return from_fields(cls, {"cameras": tuple(cameras), **fields}, "control")

    def to_json(self) -> dict[str, Any]:
        """The section `control`, with the defaults of what it left out."""
        return {name: to_fields(value) for name, value in self._asdict().items() if name != "cameras"}
