"""Problems that any policy can be put to: what it may adapt to, and the episodes that it is then judged by.

A file of problems is JSON, so that it needs nothing of this package to be read; `metalora problems` writes one from the
recipe of a comparison. A policy of another code base runs its episodes in `ProblemEnv`, a gymnasium environment:

    env = ProblemEnv(read("problems.json"), "lift-red@0/1")
    for episode in range(env.episodes):
        observation, info = env.reset(options={"episode": episode})
        over = False
        while not over:
            command = policy(observation["images"], observation["state"], info["instruction"])
            observation, reward, terminated, truncated, info = env.step(command)
            over = terminated or truncated
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.vector import Observation, SimulatorEnv
from metalora_jax.envs.world import world
from metalora_jax.fields import from_fields, meant, to_fields
from metalora_jax.machine import files


class Problem(NamedTuple):
    """One task on one robot: a policy adapts to `support`, then runs an episode from each of `starts`."""

    task: str  # of the world
    instruction: str
    demonstrations: str  # the file that they are in, as the recipe names it
    support: tuple[int, ...]  # which of them a policy may adapt to, from 0
    condition: Condition  # what is hidden from the policy
    starts: tuple[int, ...]  # see `world.Simulator.reset`
    max_steps: int  # after which an episode has failed


class Problems(NamedTuple):
    """Problems in one world, by name."""

    title: str
    world: str  # one of `world.WORLDS`
    cameras: tuple[str, ...]
    image_size: int  # [px]
    simulator: Mapping[str, Any]  # what else the world's takes
    problems: Mapping[str, Problem]

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return {name: to_fields(value) for name, value in self._asdict().items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str = "problems") -> "Problems":
        """Reads what `to_json` gave.

        Raises:
          ValueError: a field is missing, unknown or of another type; there is no such world or condition, or there are
            no problems. The message begins with `where`.
        """
        self = from_fields(cls, fields, where, {"problems": lambda found: _problems(found, where)})
        world(self.world)
        return self

    def named(self, name: str) -> Problem:
        """One of the problems; ValueError with the nearest name where there is none."""
        if name not in self.problems:
            raise ValueError(f"no problem named {name!r} among {len(self.problems)}{meant(name, self.problems)}")
        return self.problems[name]


def _problems(fields: Mapping[str, Any], where: str) -> dict[str, Problem]:
    if not isinstance(fields, Mapping) or not fields:
        raise ValueError(f"{where}: there are no problems in it; write it with metalora problems")
    parts = {"condition": Condition.from_json}
    found = {name: from_fields(Problem, problem, f"{where}.{name}", parts) for name, problem in fields.items()}
    for name, problem in found.items():
        if not problem.starts:
            raise ValueError(f"{where}.{name}.starts is empty: name the start of an episode")
    return found


def read(path: str | Path) -> Problems:
    """Reads a file of problems; ValueError as of `Problems.from_json`, naming the file."""
    return Problems.from_json(files.read_json(Path(path)), str(path))


class ProblemEnv(SimulatorEnv):
    """The episodes of one problem. An action is one command (action_dim,), within `World.bounds`."""

    def __init__(self, problems: Problems | str | Path, name: str):
        """Opens the simulator.

        Args:
          problems: or the file that they are in.
          name: of the problem.
        """
        known = problems if isinstance(problems, Problems) else read(problems)
        self.problem = known.named(name)
        where = world(known.world)
        super().__init__(
            where,
            self.problem.task,
            cameras=known.cameras,
            image_size=known.image_size,
            max_steps=self.problem.max_steps,
            **known.simulator,
        )
        low, high = where.bounds.T.astype(np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        self._next = 0

    @property
    def episodes(self) -> int:
        """How many there are."""
        return len(self.problem.starts)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode of the problem, under its hidden condition.

        Args:
          seed: not used: starts are the problem's.
          options: `episode`, from 0; without it they follow each other, and begin again after the last.

        Returns:
          The first observation, and info: `start`, `episode` and `instruction`.

        Raises:
          ValueError: there is no such episode or option.
        """
        named = dict(options or {})
        episode = named.pop("episode", self._next if seed is None else 0)
        if named or episode not in range(self.episodes):
            raise ValueError(f"options {options}: the one there is is episode, from 0 to {self.episodes - 1}")
        self._next = (episode + 1) % self.episodes
        which = {"start": self.problem.starts[episode], "condition": self.problem.condition}
        observation, info = super().reset(seed=seed, options=which)
        return observation, info | self._told(episode)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Sends one command (action_dim,); see `SimulatorEnv.step`. Solved is `terminated`."""
        observation, reward, terminated, truncated, info = super().step(np.asarray(action)[None])
        return observation, reward, terminated, truncated, info | {"instruction": self.problem.instruction}

    def _told(self, episode: int) -> dict[str, Any]:
        return {"episode": episode, "instruction": self.problem.instruction}
