"""Which demonstrations a recipe learns from: the section `data` of a config, and reading what it names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from metalora_jax.data import content, sources
from metalora_jax.fields import from_fields
from metalora_jax.types import Demo


class DataConfig(NamedTuple):
    """Which demonstrations are learned from."""

    directory: str  # of <task>_demo.hdf5, a LeRobot dataset or a TFDS dataset; see `data.sources`
    tasks: Sequence[str]  # by name, or by instruction
    demos: int | Mapping[str, int]  # the first so many of each task; {task: number} where tasks differ
    cameras: Sequence[str]  # in the order of the base
    digest: str = ""  # of their content, which must then be this one, see `data.content`; empty takes what is there
    keys: Mapping[str, str] | None = None  # camera, state or action -> its name in a dataset of one's own
    frames: int | None = None  # of each demonstration, spread evenly; few make a large base's front cheap. None: all
    episodes: Sequence[int | str] | None = None  # the only ones to read, by the dataset's own numbers. None: all
    drop: Sequence[int | str] = ()  # those not to read; "task:3" in a directory of HDF5 files, which all count from 0
    skip_bad: bool = False  # leave out what cannot be used, with a warning that names it; else it is an error

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "DataConfig":
        """Reads the section `data`; see `fields.from_fields`.

        Raises:
          ValueError: see there; or `demos` names other tasks than `tasks`.
        """
        self = from_fields(cls, fields, "data")
        if isinstance(self.demos, Mapping) and (odd := set(self.demos) ^ set(self.tasks)):
            raise ValueError(f"data.demos and data.tasks differ in {min(odd)!r}: give a number for every task, or one")
        return self

    def open(self) -> sources.Source:
        """The demonstrations at `directory`; raises what `data.sources.open` raises."""
        return sources.open(
            self.directory, self.cameras, self.keys, episodes=self.episodes, drop=self.drop, skip_bad=self.skip_bad
        )


def check_there(data: DataConfig) -> None:
    """Refuses tasks, cameras and demonstrations that are not there, before anything else takes time.

    Raises:
      ValueError: see `data.sources`.
    """
    sources.counts(data.open(), data.tasks, data.demos)


def read_demos(data: DataConfig) -> dict[str, list[Demo]]:
    """The demonstrations that `data` names.

    Raises:
      ValueError: they are not those of `data.digest`; or see `data.sources`.
    """
    demos = sources.read(data.open(), data.tasks, data.demos)
    if data.digest and (found := content.digest(demos)) != data.digest:
        raise ValueError(
            f"the demonstrations in {data.directory} have digest {found}, the config wants {data.digest}: get those "
            "that it was written for, or set `digest` to '' to learn from these"
        )
    return demos


def unpictured(parts: Iterable[DataConfig]) -> list[DataConfig]:
    """What several sections ask for, each once, all of every demonstration but its pictures."""
    found: list[DataConfig] = []
    for part in parts:
        keys = {name: feature for name, feature in (part.keys or {}).items() if name not in part.cameras}
        plain = part._replace(cameras=(), digest="", frames=None, keys=keys)
        if plain not in found:  # keys cannot be hashed
            found.append(plain)
    return found
