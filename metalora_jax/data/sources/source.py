"""What the formats have in common: tasks by name, demonstrations one at a time, and what to do about bad ones."""

import abc
import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import logging

from metalora_jax.data import text
from metalora_jax.data.demos import DemoError
from metalora_jax.data.libero_words import spoken
from metalora_jax.data.sources.embodiment import UNKNOWN, Embodiment
from metalora_jax.data.sources.selection import Episode, Fault, Selection, leave_out, listed
from metalora_jax.machine.progress import progress
from metalora_jax.types import Demo


class Source(abc.ABC):
    """Demonstrations of one or several tasks, one in memory at a time."""

    path: Path
    selection: Selection = Selection()
    several = False  # whether there are several files, each of which numbers its demonstrations from 0

    @abc.abstractmethod
    def listing(self, task: str | None = None) -> Sequence[Episode]:
        """Where the selected demonstrations lie, in order: of one task (this source's name), or of all.

        Those whose task cannot be told are among those of every task. No picture is decoded.
        """

    @abc.abstractmethod
    def stream(self, episodes: Sequence[Episode]) -> Iterator[Demo | DemoError]:
        """Each of these, of `listing` and in its order, or what is wrong with it."""

    @property
    def embodiment(self) -> Embodiment:
        """What the data say of the robot, with the cameras that were asked for; no number is read."""
        return UNKNOWN

    def tasks(self) -> dict[str, int]:
        """Task -> number of demonstrations, sound or not; no picture is decoded.

        A task is named after its file in HDF5, and by its instruction elsewhere.
        """
        return dict(Counter(episode.task for episode in self.listing() if episode.task))

    def demos(self, task: str, limit: int | None = None) -> Iterator[Demo]:
        """The first `limit` demonstrations of a task (all of them when None), by any name that `find` accepts.

        Raises:
          DemoError: if there is no such task, there are fewer demonstrations, or one of them cannot be used. With
            `skip_bad` those are left out, counted and named in a warning.
        """
        for _, demo in self.recorded(task, limit):
            yield demo

    def recorded(self, task: str, limit: int | None = None) -> Iterator[tuple[Episode, Demo]]:
        """As `demos`, each with where it lies."""
        chosen = self.listing(self.find(task))
        self.enough(task, len(chosen), limit)
        some = chosen if self.selection.skip_bad else chosen[:limit]
        found, bad = 0, list[tuple[Episode, DemoError]]()
        total = len(some) if limit is None else limit
        with progress(description=f"reading {task!r}, demonstrations", total=total, delay=1.0) as bar:
            for episode, demo in zip(some, self.stream(some), strict=True):
                if not isinstance(demo, DemoError):
                    found += 1
                    bar.update()
                    yield episode, demo
                    if found == limit:
                        break
                elif self.selection.skip_bad and episode.number is not None:
                    bad.append((episode, demo))
                elif episode.number is None:
                    raise demo
                else:
                    raise DemoError(f"{demo}, or {leave_out(episode, self.several)}") from demo
        if bad:
            numbers = listed([episode.number for episode, _ in bad])
            what = f"left out {len(bad)} of {len(chosen)} demonstrations of {task!r} that cannot be used: {numbers}"
            logging.warning("%s: %s; the first: %s", self.path, what, bad[0][1])
        if bad and (found == 0 or found < (limit or 0)):
            asked = "at least one" if limit is None else limit
            what = f"{asked} of {task!r} requested, but only {found} of {len(chosen)} can be used"
            raise DemoError(f"{self.path}: {what}; {bad[0][1]}")

    def survey(self) -> Iterator[tuple[Episode, Demo | DemoError]]:
        """Every selected demonstration of every task in order, or what is wrong with it; goes on after bad ones."""
        episodes = self.listing()
        yield from zip(episodes, self.stream(episodes), strict=True)

    def faults(self) -> Iterator[Fault]:
        """What is wrong with each selected demonstration that cannot be used, by the dataset's own number.

        Raises:
          DemoError: if something is wrong with the dataset as a whole, so that none can be used.
        """
        for (task, file, number), demo in self.survey():
            if isinstance(demo, DemoError):
                yield Fault(number, task, str(demo), file)

    def names(self) -> tuple[str, ...]:
        """The tasks."""
        return tuple(self.tasks())

    def find(self, task: str) -> str:
        """This source's own name for a task given by any of its names or by its instruction.

        LIBERO's `KITCHEN_SCENE3_turn_on_the_stove` finds the instruction "turn on the stove", and no other scene.

        Raises:
          DemoError: if no task or several tasks match.
        """
        if not isinstance(task, str):
            raise DemoError(f"{self.path}: a task is {text.named(task)}, expected its name or its instruction")
        names = self.names()
        if not names:
            raise self._nothing()
        found = [task] if task in names else [name for name in names if _same(name, task)]
        if len(found) > 1:
            raise DemoError(f"{self.path}: {task!r} is ambiguous: {' or '.join(found)}; name one of them")
        if not found:
            near = difflib.get_close_matches(spoken(task), {spoken(name): name for name in names}, n=3, cutoff=0.4)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; found {', '.join(names[:5])}"
            left = " of the selected episodes (see episodes, drop, held_out)" if self.selection.numbers else ""
            raise DemoError(f"{self.path}: no task {task!r} among {len(names)}{left}{hint}")
        return found[0]

    def only(self) -> str:
        """The only task; raises DemoError if there are several."""
        names = self.names()
        if not names:
            raise self._nothing()
        if len(names) != 1:
            raise DemoError(f"{self.path}: has {len(names)} tasks; name one, such as {names[0]!r}")
        return names[0]

    def _nothing(self) -> DemoError:
        """What to say where there is no task."""
        first = next(self.faults(), None)
        why = "has no demonstration that could be read; record some"
        if self.selection.numbers:
            why = "no demonstration is left of those selected; change episodes, drop or held_out"
        return DemoError(first.message if first else f"{self.path}: {why}")

    def enough(self, task: str, there: int, limit: int | None) -> int:
        """How many of `there` demonstrations to read; raises DemoError if fewer than `limit` are there."""
        if limit is not None and limit < 1:
            raise DemoError(f"{self.path}: {limit} demonstrations of {task!r} requested; ask for at least one")
        if limit is not None and limit > there:
            raise DemoError(f"{self.path}: {limit} demonstrations of {task!r} requested, {there} found; use fewer")
        return there if limit is None else limit


def _same(name: str, wanted: str) -> bool:
    other_scene = spoken(name) != name.replace("_", " ") and spoken(wanted) != wanted.replace("_", " ")
    return text.same(spoken(name)) == text.same(spoken(wanted)) and not other_scene
