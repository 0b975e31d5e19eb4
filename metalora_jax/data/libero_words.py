"""What a file of LIBERO tells the robot to do: the words recorded in it, or those that its name spells."""

import re
import string
from typing import NamedTuple

from metalora_jax.data.libero_names import NAMES

_SCENE = re.compile(r"^[A-Z_]*SCENE\d+_")


def spoken(task: str) -> str:
    """The instruction that a task's name spells, as LIBERO's benchmark reads it: without scene and underscores."""
    return " ".join(_SCENE.sub("", task).replace("_", " ").split())


class Words(NamedTuple):
    """An instruction, and why it is this one."""

    instruction: str
    note: str = ""  # what to log where name and file differ


def choose(name: str, recorded: str) -> Words:
    """The instruction of an official file.

    LIBERO's benchmark, and with it every VLA, takes the instruction from the file's name. For 34 of its 130 tasks
    `problem_info` has another, older wording: the name is used if it is exactly a benchmark task's, and the recorded
    words are nearly the same. Everywhere else the recorded words are used: names of users' own files hold numbers of
    views, seeds and dates.

    Args:
      name: of the file, without `_demo.hdf5`.
      recorded: the words in the file.
    """
    named = spoken(name)
    if name not in NAMES or _plain(named) == _plain(recorded):
        return Words(named if name in NAMES else recorded)
    words = set(_plain(recorded))
    if 2 * len(words & set(_plain(named))) > len(words):
        why = "after the file's name, as LIBERO's benchmark tells it"
        return Words(named, f"the instruction is {named!r}, {why}; the words recorded in the file are {recorded!r}")
    why = "as recorded in the file, whose name is of another task"
    return Words(recorded, f"the instruction is {recorded!r}, {why}: {named!r}")


def _plain(words: str) -> list[str]:
    return words.lower().translate(str.maketrans("", "", string.punctuation)).split()
