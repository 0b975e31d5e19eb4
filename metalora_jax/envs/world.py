"""What every simulator offers, and the worlds that there are: Meta-World and LIBERO."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from metalora_jax.data.libero_hdf5 import Moment, Origin
from metalora_jax.envs.conditions import Condition


class Frame(NamedTuple):
    """What the robot sees at one moment."""

    images: np.ndarray  # (C, H, W, 3) uint8, as the policies of this world are trained to see them
    state: np.ndarray  # (state_dim,) float32, in the world's own units


class Step(NamedTuple):
    """What came of one command."""

    reward: float
    success: bool


class Simulator(Protocol):
    """One task. A context manager: only one renderer may live in a process, OSMesa contexts disturb each other."""

    task: str
    instruction: str

    def __enter__(self) -> "Simulator": ...

    def __exit__(self, *_) -> None: ...

    def close(self) -> None:
        """Frees the renderer."""

    def reset(self, start: int, condition: Condition = ...) -> None:
        """Begins the episode that `start` names, whatever ran before, under `condition`."""

    def observe(self) -> Frame:
        """Renders the cameras. Call it only when someone looks: it costs far more than a step of physics."""

    def step(self, command: np.ndarray) -> Step:
        """Sends one command (action_dim,), nominally in [-1, 1]; ValueError where it is misshapen or not finite."""

    def expert(self) -> Callable[[], np.ndarray]:
        """A scripted expert for the episode that has begun: gives the next action (action_dim,), in [-1, 1].

        It reads the simulator's whole state, which no policy sees.
        """


@runtime_checkable
class Traced(Protocol):
    """What a Simulator has besides, whose demonstrations are kept in LIBERO's official layout, whole."""

    def origin(self) -> Origin:
        """Of the episode that has begun. Asked once, after `reset`."""

    def moment(self) -> Moment:
        """Of the present. Asked before every command."""


def _no_facts(task: str) -> Mapping[str, Sequence[str]]:
    return {}


class World(NamedTuple):
    """A simulator with its tasks and conventions. Its functions are importable: a World travels between processes."""

    cameras: tuple[str, ...]
    state_dim: int
    action_dim: int
    tasks: Callable[[], tuple[str, ...]]  # all that there are
    instruction: Callable[[str], str]  # of a task; a ValueError that names the nearest tasks where there is none
    open: Callable[..., Simulator]  # (task, cameras, image_size), and what else the simulator takes
    episode_start: Callable[[str, int, int], int]  # (task, draw, number) -> start of an episode for evaluation
    demo_steps: Callable[[str], int]  # longest demonstration of a task that is worth keeping
    suite: Callable[[str], str]  # that a task belongs to
    # What else a task is than its name and instruction, by kind, such as {"scene": ("KITCHEN_SCENE3",)}: held-out tasks
    # can be required to share none of it with those that are learned from.
    facts: Callable[[str], Mapping[str, Sequence[str]]] = _no_facts


WORLDS = ("metaworld", "libero")


def world(name: str) -> World:
    """One of WORLDS; its package is imported when a task is opened.

    Raises:
      ValueError: there is no such world.
    """
    if name not in WORLDS:
        raise ValueError(f"no world named {name!r}; choose from {', '.join(WORLDS)}")
    return importlib.import_module(f"metalora_jax.envs.{name}").WORLD
