"""Which demonstrations a recipe learns from: the section `data` of a config, and reading what it names."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from metalora_jax.data import content, sources
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.data.sources.held_out import held_out
from metalora_jax.data.sources.selection import without
from metalora_jax.fields import check_positive, each, from_fields
from metalora_jax.types import Demo


class DataConfig(NamedTuple):
    """Which demonstrations are learned from; what is empty is read from the data, see `resolved`."""

    directory: str  # of <task>_demo.hdf5, a LeRobot dataset or a TFDS dataset; or owner/name@revision on the hub
    tasks: Sequence[str] = ()  # by name, or by instruction. Empty: all
    demos: int | Mapping[str, int] | None = None  # the first so many of each task, or {task: number}. None: all
    cameras: Sequence[str] = ()  # in the order of the base. Empty: those that it was trained with, else all there are
    digest: str = ""  # of their content, which must then be this one, see `data.content`; empty takes what is there
    keys: Mapping[str, str] | None = None  # camera, state or action -> its name in a dataset of one's own
    frames: int | None = None  # of each demonstration, spread evenly; few make a large base's front cheap. None: all
    episodes: Sequence[int | str] | None = None  # the only ones to read, by the dataset's own numbers. None: all
    drop: Sequence[int | str] = ()  # those not to read; "task:3" in a directory of HDF5 files, which all count from 0
    skip_bad: bool = False  # leave out what cannot be used, with a warning that names it; else it is an error
    held_out_tasks: float = 0.0  # share of all tasks, the last ones, rounded down, that is not read
    held_out_episodes: Sequence[
        int | str
    ] = ()  # not read either, see `data.sources.held_out`: ("last:1",) of each task
    weight: float = 1.0  # how often a task of this dataset is drawn, in proportion to the weights of `others`
    others: Mapping[str, "DataConfig"] = {}

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "DataConfig":
        """Reads the section `data`; see `fields.from_fields`.

        Raises:
          ValueError: the share is outside [0, 1), tasks are held out of a list, a weight is not positive, or `demos`
            names other tasks than `tasks`.
        """
        self = from_fields(cls, fields, "data", {"others": each(cls.from_config), "keys": _keys})
        check_positive(self, "data", ("weight",) if isinstance(self.demos, Mapping) else ("demos", "weight"))
        if isinstance(self.demos, Mapping) and (odd := set(self.demos) ^ set(self.tasks)):
            raise ValueError(f"data.demos and data.tasks differ in {min(odd)!r}: give a number for every task, or one")
        if not 0 <= self.held_out_tasks < 1:
            raise ValueError(f"data.held_out_tasks is {self.held_out_tasks}; it is a share, from 0 to below 1")
        if self.tasks and self.held_out_tasks:
            raise ValueError(
                f"data.held_out_tasks is {self.held_out_tasks}, a share of all tasks, and data.tasks names those to "
                "learn: set --config.data.held_out_tasks=0 beside --config.data.tasks"
            )
        if wrong := [name for name in self.others if "/" in name or not name]:
            raise ValueError(
                f"data.others has {wrong[0]!r}; it names tasks as name/task: choose a name without a slash"
            )
        return self

    def with_cameras(self, known: Sequence[str] | None) -> "DataConfig":
        """With those of a base where none are named; raises what `sources.choose_cameras` raises."""
        return self if self.cameras else self._replace(cameras=sources.choose_cameras(self.directory, known, self.keys))

    @property
    def embodiment(self) -> Embodiment:
        """What the data say of the robot; raises what `data.sources` raises."""
        return self.open().embodiment

    def holding_out(self, names: Sequence[int | str]) -> "DataConfig":
        """Without these episodes, which come last in `drop`."""
        return self._replace(episodes=without(self.episodes, names), drop=(*self.drop, *names))

    def open(self, pictures: bool = True) -> sources.Source:
        """The demonstrations at `directory`; raises what `data.sources.open` raises."""
        seen = _cameras(self) if pictures else ()
        keys = dict(self.keys or {})
        if not pictures:
            keys = {part: name for part, name in keys.items() if part in ("state", "action")}
        return sources.open(self.directory, seen, keys, episodes=self.episodes, drop=self.drop, skip_bad=self.skip_bad)


def check_there(data: DataConfig) -> None:
    """Refuses tasks, cameras and demonstrations that are not there, before anything else takes time.

    Raises:
      ValueError: see `data.sources`.
    """
    sources.counts(data.open(), data.tasks, data.demos)


def _keys(value: Any) -> Any:
    """Keys as a mapping, or as the "part=feature" pairs of a flag."""
    return sources.read_keys(value) if isinstance(value, list | tuple) else value


class HeldOut(NamedTuple):
    """What `resolved` leaves for judging."""

    tasks: tuple[str, ...]
    episodes: tuple[int | str, ...]  # of the tasks that are learned, by the dataset's own numbers


def resolved(data: DataConfig, pictures: bool = True) -> tuple[DataConfig, HeldOut]:
    """The section with tasks, cameras and held-out episodes named, and what is held out; nothing is decoded for it.

    Raises:
      DemoError: the dataset does not list its cameras; see `data.sources` and `data.sources.held_out`.
    """
    if not data.directory:
        raise ValueError("data.directory is not set; --config.data.directory=PATH, or owner/name@revision on the hub")
    others = {name: resolved(other, pictures)[0] for name, other in data.others.items()}
    data = data._replace(cameras=_cameras(data) if pictures else (), others=others)
    if data.tasks and not data.held_out_episodes:
        return data, HeldOut((), ())
    source = data.open(pictures=False)
    there = tuple(data.tasks) or source.names()
    count = len(there) - math.floor(data.held_out_tasks * len(there) + 1e-9)  # a tenth of ten is one
    data = data._replace(tasks=there[:count], held_out_tasks=0.0)
    if not data.held_out_episodes:
        return data, HeldOut(there[count:], ())
    apart = held_out(source, data.tasks, data.held_out_episodes)
    return data.holding_out(apart)._replace(held_out_episodes=()), HeldOut(there[count:], apart)


def _cameras(data: DataConfig) -> tuple[str, ...]:
    if found := tuple(data.cameras) or tuple(sources.cameras_of(data.directory, data.keys)):
        return found
    raise DemoError(f"{data.directory}: the metadata list no cameras; name them, in the base's order, in data.cameras")


def described(data: DataConfig, held: HeldOut) -> str:
    """One line: what is learned from, and what is kept for judging."""
    tasks = len(data.tasks) + sum(len(other.tasks) for other in data.others.values())
    words = f"learning from {tasks} task{'s' * (tasks != 1)}, cameras {', '.join(data.cameras)}"
    if held.tasks:
        words += f"; held out: {', '.join(map(repr, held.tasks))}"
    if held.episodes:
        words += f"; held-out episodes: {','.join(map(str, held.episodes))}"
    return words


def read_demos(data: DataConfig, pictures: bool = True) -> dict[str, list[Demo]]:
    """The demonstrations that `data` names; a task of one of `others` is called `name/task`.

    Raises:
      ValueError: they are not those of `data.digest`; datasets differ in widths or cameras; or see `data.sources`.
    """
    data, _ = resolved(data, pictures)
    demos = sources.read(data.open(pictures), data.tasks, data.demos)
    if data.digest and pictures and (found := content.digest(demos)) != data.digest:
        raise ValueError(
            f"the demonstrations in {data.directory} have digest {found}, the config wants {data.digest}: get those "
            "that it was written for, or set `digest` to '' to learn from these"
        )
    for name, other in data.others.items():
        if tuple(other.cameras) != tuple(data.cameras):
            raise ValueError(
                f"data.others.{name} has cameras {', '.join(other.cameras)}, data {', '.join(data.cameras)}: name the "
                "same ones in both, and map them to features with keys"
            )
        more = read_demos(other, pictures)
        _check_alike(data.directory, demos, other.directory, more)
        demos |= {f"{name}/{task}": recorded for task, recorded in more.items()}
    return demos


def _check_alike(where: str, demos: Mapping[str, list[Demo]], elsewhere: str, more: Mapping[str, list[Demo]]) -> None:
    one, other = ((d.images.shape[1:], d.state.shape[1], d.actions.shape[1]) for d in (_any(demos), _any(more)))
    if one != other:
        raise ValueError(
            f"(cameras, height, width, 3), state and action differ: {where}: {one}; {elsewhere}: {other}; bring both "
            "to one size of pictures, and learn from robots with the same joints"
        )


def _any(demos: Mapping[str, list[Demo]]) -> Demo:
    return next(iter(demos.values()))[0]


def weights(data: DataConfig, tasks: Sequence[str]) -> list[float] | None:
    """How likely each of `tasks` is drawn, adding up to 1; None where there is one dataset, and all are alike.

    Datasets are drawn in proportion to their weights, and the tasks of each evenly.
    """
    if not data.others:
        return None
    owners = [owner if (owner := task.partition("/")[0]) in data.others else "" for task in tasks]
    shares = {"": data.weight} | {name: other.weight for name, other in data.others.items()}
    total = sum(shares[owner] for owner in set(owners))
    return [shares[owner] / total / owners.count(owner) for owner in owners]


def unpictured(parts: Iterable[DataConfig]) -> list[DataConfig]:
    """What several sections ask for, each once, for `read_demos` without pictures."""
    found: list[DataConfig] = []
    for part in parts:
        plain = part._replace(cameras=(), digest="", frames=None)
        if plain not in found:  # keys cannot be hashed
            found.append(plain)
    return found


def check_named(data: DataConfig, section: str) -> None:
    """Refuses a section that leaves its tasks or cameras to the data.

    Raises:
      ValueError: the field is named.
    """
    for name in ("tasks", "cameras"):
        if not getattr(data, name):
            raise ValueError(f"{section}.{name} is not set; only meta_train reads it from the data: name it here")
