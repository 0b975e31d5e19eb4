"""LIBERO's HDF5: one file for each task, alone or in a directory. `data.libero_hdf5` describes the layout."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from metalora_jax.data import libero_hdf5
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.source import Source
from metalora_jax.types import Demo


class Hdf5(Source):
    """See `sources.open`."""

    def __init__(self, path: Path, cameras: Sequence[str], keys: Mapping[str, str]):
        """Lists the files; opens none."""
        if single := keys.keys() & {"state", "action"}:
            raise DemoError(f"{path}: {min(single)} has fixed keys in HDF5; leave it out of keys")
        self.path, self._cameras, self._keys = path, cameras, keys

    @functools.cached_property
    def _files(self) -> dict[str, Path]:
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.hdf5"))
        return {file.stem.removesuffix("_demo"): file for file in files}

    def names(self) -> tuple[str, ...]:
        """See `Source`; from the names of the files."""
        return tuple(self._files)

    def tasks(self) -> dict[str, int]:
        """See `Source`."""
        return {task: libero_hdf5.count(file) for task, file in self._files.items()}

    def demos(self, task: str, limit: int | None = None) -> Iterator[Demo]:
        """See `Source`."""
        return libero_hdf5.stream(self._files[self.find(task)], self._cameras, limit, self._keys)
