"""A world of made-up tasks, and rollouts that nobody runs: everything of a comparison but the simulator."""

import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from metalora_jax.envs.world import World
from metalora_jax.evaluation.rollout import Outcome


def make_world(
    instructions: Mapping[str, str], facts: Mapping[str, Mapping[str, Sequence[str]]] | None = None
) -> World:
    """A world with these tasks; it opens none."""

    def start(task: str, draw: int, number: int) -> int:
        return 1_000_000 + 1000 * (zlib.crc32(task.encode()) % 1000) + 10 * draw + number

    def never(*_: object) -> None:
        raise AssertionError("no simulator in these tests")

    known = {task: {} for task in instructions} if facts is None else facts
    return World(
        ("agentview",),
        4,
        4,
        lambda: tuple(instructions),
        instructions.__getitem__,
        never,
        start,
        lambda task: 100,
        lambda task: "made up",
        known.__getitem__,
    )


def roll_out(jobs: Sequence, *_: object) -> Iterator[Outcome]:
    """Outcomes of every episode, by a coin that is the start's; in no particular order."""
    for job in reversed(jobs):
        for rollout in job.rollouts:
            success = bool(np.random.default_rng(rollout.start).integers(2)) and rollout.told is None
            yield Outcome(rollout.key, success, 1.5, 7, np.zeros((7, 4), np.float32), None)
