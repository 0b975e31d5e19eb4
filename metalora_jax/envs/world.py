"""The interface of every simulator, and the available worlds: Meta-World, LIBERO and the SO-101."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from metalora_jax.data.libero_hdf5 import Moment, Origin
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.envs.conditions import Condition


class Frame(NamedTuple):
    """What the robot sees at one moment."""

    images: np.ndarray  # (C, H, W, 3) uint8, as the policies of this world are trained to see them
    state: np.ndarray  # (state_dim,) float32, in the world's own units


class Step(NamedTuple):
    """The result of one command."""

    reward: float
    success: bool


class Simulator(Protocol):
    """One task. A context manager: a process may hold only one renderer, since OSMesa contexts interfere."""

    task: str
    instruction: str

    def __enter__(self) -> "Simulator": ...

    def __exit__(self, *_) -> None: ...

    def close(self) -> None:
        """Frees the renderer."""

    def reset(self, start: int, condition: Condition = ...) -> None:
        """Begins the episode that `start` identifies under `condition`, independently of earlier ones."""

    def observe(self) -> Frame:
        """Renders the cameras. Call it only when the images are needed: it costs far more than a physics step."""

    def step(self, command: np.ndarray) -> Step:
        """Sends one command (action_dim,), see `World.limits`; ValueError if misshapen or not finite."""

    def expert(self) -> Callable[[], np.ndarray]:
        """A scripted expert for the current episode: returns the next action (action_dim,), see `World.limits`.

        It reads the full simulator state, which no policy sees.
        """


@runtime_checkable
class Traced(Protocol):
    """What a Simulator needs in addition to record demonstrations in LIBERO's complete official layout."""

    def origin(self) -> Origin:
        """The origin of the current episode. Called once, after `reset`."""

    def moment(self) -> Moment:
        """The simulator's current state. Called before every command."""


class View(NamedTuple):
    """A scene at rest, and where things are in its pictures."""

    frame: Frame
    # (C, things, 2) float32, in the order of `World.things`: from the middle to the right and down, [-1, 1] within the
    # picture; NaN out of view
    points: np.ndarray


@runtime_checkable
class Pointed(Simulator, Protocol):
    """What a Simulator needs in addition for `training.grounding`, where its `World.things` names some."""

    def view(self, start: int, state: np.ndarray) -> View:
        """The scene of `start` with the robot in `state` (state_dim,); nothing moves, and the last episode is over."""


def _no_facts(task: str) -> Mapping[str, Sequence[str]]:
    return {}


def _nothing() -> None:
    """What a world without needs asks for."""


class World(NamedTuple):
    """A simulator with its tasks and conventions. Its functions are importable: a World travels between processes."""

    cameras: tuple[str, ...]
    state_dim: int
    action_dim: int
    tasks: Callable[[], tuple[str, ...]]  # all of them
    instruction: Callable[[str], str]  # of a task; ValueError naming the closest tasks if it is unknown
    open: Callable[..., Simulator]  # (task, cameras, image_size), and further simulator options
    episode_start: Callable[[str, int, int], int]  # (task, draw, number) -> start of an episode for evaluation
    demo_steps: Callable[[str], int]  # step limit for demonstrations of a task
    suite: Callable[[str], str]  # that a task belongs to
    # Further facts about a task, by kind, such as {"scene": ("KITCHEN_SCENE3",)}: held-out tasks
    # can be required to share none of them with training tasks.
    facts: Callable[[str], Mapping[str, Sequence[str]]] = _no_facts
    prepare: Callable[[], object] = _nothing  # chooses how to render, before workers start; RuntimeError if it cannot
    # Where state and actions are positions of joints: their names, and the range of each; commands are then absolute
    # targets in the state's units. (): commands are displacements of the hand, and the gripper, each in [-1, 1].
    joints: tuple[str, ...] = ()
    limits: tuple[tuple[float, float], ...] = ()
    shifts: tuple[str, ...] = ()  # the fields of a condition that few worlds have, and this one does
    things: tuple[str, ...] = ()  # what `Pointed.view` points to, where the world's simulators are `Pointed`

    @property
    def bounds(self) -> np.ndarray:
        """(action_dim, 2): the least and the largest value of each dimension of a command."""
        return np.asarray(self.limits or ((-1.0, 1.0),) * self.action_dim)

    @property
    def joint_limits(self) -> np.ndarray | None:
        """`bounds` where commands are joint targets, else None."""
        return self.bounds if self.joints else None


WORLDS = ("metaworld", "libero", "so101")
_OF_HAND = ("yaw", "gain", "tilt", "mirror", "dead_zone", "gripper_flipped")
_OF_JOINTS = ("joint_offset", "joint_gain")
_OF_FEW = {  # why other worlds do not have it
    "view": "whose cameras have no such orbit",
    "arm_start": "whose robot has no such starts",
    "displaced": "whose starts it does not know",
    "picture_noise": "whose pictures have none",
}


def check_shift(shift: Condition | ConditionRange | None, name: str, where: World) -> None:
    """Refuses a hidden condition that the world `name` cannot have.

    Raises:
      ValueError: a field shifts displacements of a hand where commands are joint targets, or the other way round; it
        has not one number for each joint; or it names a camera that is not there, or is of a
        kind that the world does not have.
    """
    if shift is None:
        return
    plain = type(shift)()
    for field in _OF_HAND if where.joints else _OF_JOINTS:
        if getattr(shift, field) != getattr(plain, field):
            commands, instead = (
                ("joint targets", " or ".join(_OF_JOINTS)) if where.joints else ("displacements", " or ".join(_OF_HAND))
            )
            raise ValueError(
                f"condition {field} does not fit the world {name}, whose commands are {commands}: leave it out, or use "
                + instead
            )
    for field, why in _OF_FEW.items():
        if field not in where.shifts and getattr(shift, field) != getattr(plain, field):
            raise ValueError(f"condition {field} does not fit the world {name}, {why}: leave it out")
    for field in _OF_JOINTS:
        if len(given := getattr(shift, field)) not in (0, len(where.joints)):
            raise ValueError(
                f"condition {field} has {len(given)} numbers; {name} has {len(where.joints)} joints: "
                + ", ".join(where.joints)
            )
    if unknown := set(shift.moved) - set(where.cameras):
        raise ValueError(
            f"condition moved names no camera of {name}: {min(unknown)!r}; known: {', '.join(where.cameras)}"
        )


def played(task: str) -> str:
    """A task's name without what follows an `@`: the robot, or the copy, that its demonstrations are of."""
    return task.partition("@")[0]


def robot(task: str) -> int:
    """The number that follows the `@` in a task's name, 0 where none does."""
    number = task.partition("@")[2]
    return int(number) if number.isdecimal() else 0


def world(name: str) -> World:
    """One of WORLDS; its package is imported when a task is opened.

    Raises:
      ValueError: if there is no such world.
    """
    if name not in WORLDS:
        raise ValueError(f"no world named {name!r}; choose from {', '.join(WORLDS)}")
    return importlib.import_module(f"metalora_jax.envs.{name}").WORLD
