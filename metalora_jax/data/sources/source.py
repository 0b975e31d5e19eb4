"""What the formats have in common: tasks by name, demonstrations one at a time, and keys for what is in them."""

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
        """Task -> how many demonstrations there are; no picture is decoded for it.

        A task's name is its file's in HDF5, and its instruction elsewhere.
        """

    @abc.abstractmethod
    def demos(self, task: str, limit: int | None = None) -> Iterator[Demo]:
        """The first `limit` demonstrations of a task (all of them when None), by any name that `find` takes.

        Raises:
          DemoError: there is no such task, there are fewer demonstrations, or one of them is damaged.
        """

    def names(self) -> tuple[str, ...]:
        """The tasks."""
        return tuple(self.tasks())

    def find(self, task: str) -> str:
        """This source's own name of a task that is given by any name or by its instruction.

        LIBERO's `KITCHEN_SCENE3_turn_on_the_stove` finds the instruction "turn on the stove", and no other scene.

        Raises:
          DemoError: none or several fit.
        """
        names = self.names()
        found = [task] if task in names else [name for name in names if _same(name, task)]
        if len(found) > 1:
            raise DemoError(f"{self.path}: {task!r} may be {' or '.join(found)}; name one of them")
        if not found:
            near = difflib.get_close_matches(spoken(task), {spoken(name): name for name in names}, n=3, cutoff=0.4)
            hint = f"; near: {', '.join(near)}" if near else f"; there is {', '.join(names[:5])}"
            raise DemoError(f"{self.path}: no task {task!r} among {len(names)}{hint}")
        return found[0]

    def only(self) -> str:
        """The only task there is; a DemoError where there are several."""
        names = self.names()
        if len(names) != 1:
            raise DemoError(f"{self.path}: has {len(names)} tasks; name one, such as {names[0]!r}")
        return names[0]

    def enough(self, task: str, there: int, limit: int | None) -> int:
        """How many demonstrations to read of `there`; a DemoError where fewer than `limit` are there."""
        if limit is not None and limit > there:
            raise DemoError(f"{self.path}: {limit} demonstrations of {task!r} wanted, {there} there; ask for fewer")
        return there if limit is None else limit


def _same(name: str, wanted: str) -> bool:
    other_scene = spoken(name) != name.replace("_", " ") and spoken(wanted) != wanted.replace("_", " ")
    return spoken(name).lower() == spoken(wanted).lower() and not other_scene


class Features(NamedTuple):
    """What a dataset calls the parts of a demonstration."""

    cameras: tuple[str, ...]
    state: str
    action: str


KNOWN = {  # part -> what datasets call it; the first is what our writer does
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
    """What datasets call a camera, the state or the action; the first is what our writer calls it."""
    return KNOWN.get(part, (f"observation.images.{part}", part))


def features(where: Path, present: Iterable[str], cameras: Sequence[str], keys: Mapping[str, str]) -> Features:
    """Which of the `present` features are the cameras, the state and the action; `keys` overrides what is known.

    Raises:
      DemoError: one is not there, or there are several that it may be.
    """
    present = tuple(present)

    def one(part: str) -> str:
        wanted = (keys[part],) if part in keys else known_names(part)
        found = [name for name in wanted if name in present]
        if len(found) != 1:
            trouble = f"any of {', '.join(found)}" if found else f"{' or '.join(wanted)}, which is not there"
            raise DemoError(
                f"{where}: {part} may be {trouble}; name its feature with keys, such as {part}={present[0]}; "
                f"the features are: {', '.join(present)}"
            )
        return found[0]

    return Features(tuple(one(camera) for camera in cameras), one("state"), one("action"))
