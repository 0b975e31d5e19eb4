"""LIBERO's HDF5: one file for each task, alone or in a directory. `data.libero_hdf5` describes the layout."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from absl import logging

from metalora_jax.data import libero_reader, text
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.embodiment import Embodiment, recorded_cameras
from metalora_jax.data.sources.selection import EVERYTHING, Episode, Selection, check
from metalora_jax.data.sources.source import Source
from metalora_jax.types import Demo


class Hdf5(Source):
    """See `sources.open`."""

    def __init__(self, path: Path, cameras: Sequence[str], keys: Mapping[str, str], selection: Selection = EVERYTHING):
        """Lists the files; opens none, unless demonstrations are selected."""
        if single := keys.keys() & {"state", "action"}:
            raise DemoError(f"{path}: {min(single)} has fixed keys in HDF5; leave it out of keys")
        self.path, self._cameras, self._keys, self.selection = path, cameras, keys, selection
        self._heads: dict[Path, libero_reader.Head] = {}
        self._told: set[Path] = set()  # files whose choice of words has been logged
        self.several = len(self._files) > 1
        if named := selection.numbers:
            if self.several and (plain := [number for task, number in named if task is None]):
                what = f"episode {plain[0]} could be of any of {len(self._files)} files"
                raise DemoError(f"{path}: {what}; write '{next(iter(self._files))}:{plain[0]}'")
            tasks = {task for task, _ in named if task in self._files} if self.several else self._files
            there = [(task, i) for task in tasks for i in self._head(self._files[task]).numbers]
            check(path, selection, [*there, *((None, i) for _, i in there)])

    @functools.cached_property
    def _files(self) -> dict[str, Path]:
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.hdf5"))
        return {file.stem.removesuffix("_demo"): file for file in files}

    @property
    def embodiment(self) -> Embodiment:
        """See `Source`; the rate is that of the first file, where it says."""
        file = next(iter(self._files.values()), None)
        rate = None if file is None else libero_reader.control_rate(file)
        return Embodiment(recorded_cameras(self._cameras, self._keys) or None, fps=rate)

    def names(self) -> tuple[str, ...]:
        """See `Source`; from the names of the files."""
        return tuple(self._files)

    def find(self, task: str) -> str:
        """See `Source`; by what is recorded in the files where no file's name matches."""
        try:
            return super().find(task)
        except DemoError:
            wanted = text.same(task) if isinstance(task, str) else ""
            found = [name for name in self._files if wanted and self._tells(name, wanted)]
            if len(found) != 1:
                raise
            return found[0]

    def _tells(self, task: str, wanted: str) -> bool:
        try:
            words = self._head(self._files[task]).words
        except DemoError:
            return False
        return not isinstance(words, DemoError) and text.same(words.instruction) == wanted

    def _head(self, file: Path) -> libero_reader.Head:
        if file not in self._heads:
            self._heads[file] = libero_reader.head(file)
        return self._heads[file]

    def listing(self, task: str | None = None) -> list[Episode]:
        """See `Source`."""
        files = self._files if task is None else {task: self._files[task]}
        return [
            Episode(name, file, i)
            for name, file in files.items()
            for i in self._head(file).numbers
            if self.selection.keeps(name, i)
        ]

    def tasks(self) -> dict[str, int]:
        """See `Source`."""
        return {task: len(self.listing(task)) for task in self._files}

    def stream(self, episodes: Sequence[Episode]) -> Iterator[Demo | DemoError]:
        """See `Source`."""
        for file, chosen in itertools.groupby(episodes, key=lambda episode: episode.file):
            numbers = [episode.number for episode in chosen if episode.number is not None]
            self._tell(file)
            yield from libero_reader.each(file, self._cameras, self._keys, numbers)

    def survey(self) -> Iterator[tuple[Episode, Demo | DemoError]]:
        """See `Source`; goes on after a file that cannot be read at all."""
        for task, file in self._files.items():
            try:
                episodes = self.listing(task)
                yield from zip(episodes, self.stream(episodes), strict=True)
            except DemoError as error:
                yield Episode(task, file, None), error

    def _tell(self, file: Path) -> None:
        """Logs, once, which words a file tells the robot, if there is something to say about them."""
        if file not in self._told:
            self._told.add(file)
            words = self._head(file).words
            if not isinstance(words, DemoError):
                for what in filter(None, (words.note, *text.oddities([words.instruction]))):
                    logging.warning("%s: %s", file, what)
