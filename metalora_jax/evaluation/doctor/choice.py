"""Which world do demonstrations come from? Their widths decide, and whether that world knows their tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from metalora_jax.data.demos import DemoError
from metalora_jax.envs.world import WORLDS, world
from metalora_jax.evaluation.doctor import sets, words

NONE, AUTO = "none", "auto"


class Choice(NamedTuple):
    """A world, or NONE, and why."""

    world: str
    why: str


def choose(paths: Sequence[Path], keys: Mapping[str, str]) -> Choice:
    """The world whose widths the first readable data set has, and whose task or instruction it names.

    Widths alone do not decide: a robot of one's own may have as many joints as a benchmark has dimensions.
    """
    for path in paths:
        try:
            widths, tasks, instruction = sets.widths_and_texts(path, keys)
        except (DemoError, ImportError, StopIteration):
            continue
        return _of(path, widths, (*tasks, path.stem.removesuffix("_demo")), instruction)
    return Choice(NONE, "no demonstration could be read" if paths else "no demonstrations are given")


def _of(path: Path, widths: tuple[int, int], tasks: Sequence[str], instruction: str) -> Choice:
    alike = []
    for name in WORLDS:
        if (world(name).state_dim, world(name).action_dim) != widths:
            continue
        try:
            known = {task: world(name).instruction(task) for task in world(name).tasks()}
        except ImportError:
            alike.append(f"{name}, which is not installed")
            continue
        for told in (*tasks, instruction):
            if task := words.name_task(known, told, told):
                return Choice(name, f"{path.name} has its widths, and {told!r} is its {task}")
        alike.append(name)
    width = f"state and actions of {path.name} are {widths[0]} and {widths[1]} wide"
    if not alike:
        return Choice(NONE, f"{width}, as in no known benchmark")
    return Choice(NONE, f"{width}, as in {' and '.join(alike)}, but no task of it is named; --world overrides this")
