"""What the formats have in common: tasks by name, demonstrations one at a time, and the names of their parts."""

import abc
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from metalora_jax.data.demos import DemoError
from metalora_jax.data.libero_hdf5 import spoken
from metalora_jax.types import Demo


class Source(abc.ABC):
    """Demonstrations of one or several tasks, one in memory at a time."""

    path: Path

    @abc.abstractmethod
    def tasks(self) -> dict[str, int]:
        """Task -> number of demonstrations; no picture is decoded.

        A task is named after its file in HDF5, and by its instruction elsewhere.
        """

    @abc.abstractmethod
    def demos(self, task: str, limit: int | None = None) -> Iterator[Demo]:
        """The first `limit` demonstrations of a task (all of them when None), by any name that `find` accepts.

        Raises:
          DemoError: if there is no such task, there are fewer demonstrations, or one of them is damaged.
        """

    def names(self) -> tuple[str, ...]:
        """The tasks."""
        return tuple(self.tasks())

    def find(self, task: str) -> str:
        """This source's own name for a task given by any of its names or by its instruction.

        LIBERO's `KITCHEN_SCENE3_turn_on_the_stove` finds the instruction "turn on the stove", and no other scene.

        Raises:
          DemoError: if no task or several tasks match.
        """
        names = self.names()
        found = [task] if task in names else [name for name in names if _same(name, task)]
        if len(found) > 1:
            raise DemoError(f"{self.path}: {task!r} is ambiguous: {' or '.join(found)}; name one of them")
        if not found:
            near = difflib.get_close_matches(spoken(task), {spoken(name): name for name in names}, n=3, cutoff=0.4)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; found {', '.join(names[:5])}"
            raise DemoError(f"{self.path}: no task {task!r} among {len(names)}{hint}")
        return found[0]

    def only(self) -> str:
        """The only task; raises DemoError if there are several."""
        names = self.names()
        if len(names) != 1:
            raise DemoError(f"{self.path}: has {len(names)} tasks; name one, such as {names[0]!r}")
        return names[0]

    def enough(self, task: str, there: int, limit: int | None) -> int:
        """How many of `there` demonstrations to read; raises DemoError if fewer than `limit` are there."""
        if limit is not None and limit > there:
            raise DemoError(f"{self.path}: {limit} demonstrations of {task!r} requested, {there} found; use fewer")
        return there if limit is None else limit


def _same(name: str, wanted: str) -> bool:
    other_scene = spoken(name) != name.replace("_", " ") and spoken(wanted) != wanted.replace("_", " ")
    return spoken(name).lower() == spoken(wanted).lower() and not other_scene


class FeatureNames(NamedTuple):
    """A dataset's names for the parts of a demonstration."""

    cameras: tuple[str, ...]
    state: str
    action: str


KNOWN = {  # part -> its names in datasets; the first is the one that our writer uses
    "agentview": ("observation.images.image", "image", "observation.images.agentview"),
    "eye_in_hand": (
        "observation.images.image2",
        "wrist_image",
        "observation.images.wrist_image",
        "observation.images.eye_in_hand",
    ),
    "state": ("observation.state", "state"),
    "action": ("action", "actions"),
}


def known_names(part: str) -> tuple[str, ...]:
    """Names of a camera, the state or the action in datasets; the first is the one that our writer uses."""
    return KNOWN.get(part, (f"observation.images.{part}", part))


def feature_names(where: Path, present: Iterable[str], cameras: Sequence[str], keys: Mapping[str, str]) -> FeatureNames:
    """Which of the `present` features are the cameras, the state and the action; `keys` overrides the known names.

    Raises:
      DemoError: if one is missing or ambiguous.
    """
    present = tuple(present)

    def one(part: str) -> str:
        wanted = (keys[part],) if part in keys else known_names(part)
        found = [name for name in wanted if name in present]
        if len(found) != 1:
            trouble = f"is ambiguous: {', '.join(found)}" if found else f"({' or '.join(wanted)}) is not there"
            raise DemoError(
                f"{where}: {part} {trouble}; name its feature with keys, such as {part}={present[0]}; "
                f"the features are: {', '.join(present)}"
            )
        return found[0]

    return FeatureNames(tuple(one(camera) for camera in cameras), one("state"), one("action"))
