"""The demonstrations of one task that a policy adapts to, and the episodes that it is judged by afterwards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from metalora_jax.data import sources
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.data.sources import held_out
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.data.sources.selection import without
from metalora_jax.types import Demo
from metalora_jax.words import listed


class Wanted(NamedTuple):
    """What is asked of a dataset; see `sources.open`."""

    path: str | Path
    cameras: Sequence[str]
    keys: Mapping[str, str]
    task: str  # its name or instruction; "": the only one there is
    shots: int  # the first so many demonstrations are learned from
    held_out: Sequence[int | str]  # episodes not to learn from, see `held_out.held_out`; none: the next one is judged
    drop: Sequence[int | str] = ()
    episodes: Sequence[int | str] | None = None
    skip_bad: bool = False


class Support(NamedTuple):
    """What is read of the dataset."""

    task: str  # by its name there, or as it was asked for
    demos: list[Demo]
    episodes: list[int | str]  # the dataset's own numbers of `demos`
    unseen: list[Demo]  # of the same task: those that are held out, or the next one that is not learned from, if any
    told: str  # where `unseen` come from, in words
    robot: Embodiment  # that recorded them


def read(wanted: Wanted, known: Embodiment, whose: str = "the adapter") -> Support:
    """Reads what is `wanted`; `known` is the robot that a policy was trained on, and `whose` names that policy.

    Raises:
      ValueError: see `hold`.
      DemoError: the task or the episodes are not there, or cannot be used.
    """
    every: dict[str, Any] = {"keys": wanted.keys, "drop": wanted.drop, "skip_bad": wanted.skip_bad}
    every["episodes"] = wanted.episodes
    whole = sources.open(wanted.path, wanted.cameras, **every)
    hold(whole, known, whose)
    task = wanted.task or whole.only()
    kept = held_out.held_out(whole, [task], wanted.held_out) if wanted.held_out else ()
    source = whole
    if kept:
        apart = {"episodes": without(wanted.episodes, kept), "drop": (*wanted.drop, *kept)}
        source = sources.open(wanted.path, wanted.cameras, **every | apart)
    recorded = list(source.recorded(task, wanted.shots))
    demos, used = [demo for _, demo in recorded], [episode for episode, _ in recorded]
    unseen, told = list[Demo](), ""
    following = [e for e in source.listing(source.find(task)) if e not in used and e.number is not None][:1]
    names = kept or tuple(held_out.name(source, episode) for episode in following)
    try:
        if names:
            judging = sources.open(wanted.path, wanted.cameras, **every | {"drop": (), "episodes": names})
            unseen = list(judging.demos(task))
            told = f"episode {listed(list(map(str, names)), 12)}, {'held out' if kept else 'not learned from'}"
    except DemoError as error:
        if kept:
            raise
        logging.warning("the next episode cannot be held against the adapted policy: %s", error)
    return Support(task, demos, [held_out.name(source, episode) for episode in used], unseen, told, whole.embodiment)


def hold(source: sources.Source, known: Embodiment, whose: str = "the adapter") -> None:
    """Says, before pictures are read, in what the robot of `source` differs from the one that a policy was trained on.

    Raises:
      ValueError: the policy cannot act on it, see `embodiment.check`.
    """
    for doubt in embodiments.check(source.embodiment, known, whose):
        logging.warning("%s: %s", source.path, doubt)
