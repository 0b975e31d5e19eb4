"""Simulators as gymnasium environments: a single one, or many in worker processes, each of which may crash or hang.

    envs = VectorSimulators(world("libero"), tasks, image_size=128, max_steps=280, execute=5, settle_steps=10)
    observation, info = envs.reset(options={"starts": range(len(tasks))})
    while not (envs.terminated | envs.truncated).all():
        observation, reward, terminated, truncated, info = envs.step(policy(observation))

A step is a chunk of `execute` commands, followed by an observation: rendering is the main cost, and no policy uses the
pictures in between.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import Frame, World
from metalora_jax.machine.processes import end_with_parent

Observation = dict[str, np.ndarray]
"""images (C, H, W, 3) uint8 and state (state_dim,) float32, as `world.Frame` has them; (N, ...) for N environments."""


class SimulatorEnv(gymnasium.Env):
    """One simulator as a gymnasium environment. Actions are chunks (execute, action_dim), within `World.bounds`."""

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's)

    def __init__(
        self,
        world: World,
        task: str,
        *,
        cameras: Sequence[str] | None = None,
        image_size: int,
        max_steps: int,
        execute: int = 1,
        **settings: Any,
    ):
        """Opens the simulator.

        Args:
          world, task: what to open.
          cameras: some of the world's, in order; None for all.
          image_size: [px].
          max_steps: control steps before an episode is truncated.
          execute: commands between two observations.
          settings: further arguments of the world's simulator, such as LIBERO's `settle_steps` and `fast`.
        """
        cameras = world.cameras if cameras is None else tuple(cameras)
        if max_steps < 1 or execute < 1:
            raise ValueError(f"max_steps {max_steps} and execute {execute} must be at least 1")
        self.observation_space, self.action_space = _spaces(world, len(cameras), image_size, execute)
        self._simulator = world.open(task, cameras, image_size, **settings)
        self._max_steps, self._steps = max_steps, 0

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode.

        Args:
          seed: of the generator that draws starts when none is given.
          options: `start` (see `world.Simulator.reset`) and `condition`, each optional.

        Returns:
          The first observation, and info: the `start`.
        """
        super().reset(seed=seed)
        named = dict(options or {})
        start = int(named.pop("start", self.np_random.integers(1 << 31)))
        condition = named.pop("condition", Condition())
        if named:
            raise ValueError(f"unknown reset options {sorted(named)}; known: start, condition")
        self._simulator.reset(start, condition)
        self._steps = 0
        return _observation(self._simulator.observe()), {"start": start}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Executes a chunk up to success or the step cap, then observes.

        Returns:
          The observation; the rewards' sum; whether the task is done; whether it is out of steps; info: `steps` so
          far.
        """
        total, success = 0.0, False
        for command in action:
            step = self._simulator.step(command)
            self._steps += 1
            total, success = total + step.reward, step.success
            if success or self._steps >= self._max_steps:
                break
        truncated = not success and self._steps >= self._max_steps
        return _observation(self._simulator.observe()), total, success, truncated, {"steps": self._steps}

    def close(self) -> None:
        """Frees the simulator."""
        self._simulator.close()


class VectorSimulators(VectorEnv):
    """One simulator per worker process, all in lockstep. A finished episode stays unchanged until it is reset.

    A worker that dies, or does not answer in time, is replaced; its episode is truncated and counts as a failure, and
    `info["error"]` says why. The same holds for an error in the simulator. Other episodes are not affected.

    Attributes:
      terminated, truncated: (N,) bool, the state of every episode.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 (gymnasium's)

    def __init__(
        self,
        world: World,
        tasks: Sequence[str],
        *,
        cameras: Sequence[str] | None = None,
        image_size: int,
        max_steps: int,
        execute: int = 1,
        timeout: float = 60.0,
        build_timeout: float = 600.0,
        **settings: Any,
    ):
        """Builds a simulator for each of `tasks`, side by side.

        Args:
          world, cameras, image_size, max_steps, execute, settings: see `SimulatorEnv`.
          tasks: one of the world's for each environment; they may repeat.
          timeout: limit for a step or a reset [s].
          build_timeout: limit for building a simulator [s].

        Raises:
          RuntimeError: if a simulator cannot be built.
        """
        cameras = world.cameras if cameras is None else tuple(cameras)
        self.num_envs = len(tasks)
        self.single_observation_space, self.single_action_space = _spaces(world, len(cameras), image_size, execute)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._timeout, self._build_timeout = timeout, build_timeout
        how = {"cameras": cameras, "image_size": image_size, "max_steps": max_steps, "execute": execute} | settings
        self._jobs = [(world, task, how) for task in tasks]
        self._observation = {
            name: np.zeros(space.shape, space.dtype)
            for name, space in self.observation_space.items()  # type: ignore[attr-defined]
        }
        self.terminated = np.zeros(self.num_envs, bool)
        self.truncated = np.ones(self.num_envs, bool)  # no episode has begun
        self._steps = np.zeros(self.num_envs, int)
        self._errors = np.full(self.num_envs, None, object)
        self._crew = [_hire(*job) for job in self._jobs]
        self._building = set(range(self.num_envs))
        for i, (built, problem) in self._built(self._building).items():
            if not built:
                self.close()
                raise RuntimeError(f"{tasks[i]}: cannot build its simulator: {problem}")

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode in every environment, or in those of `reset_mask`.

        Args:
          seed: must be None; give `starts` instead.
          options: `starts` (N,) int; `conditions` (N,), optional; `reset_mask` (N,) bool, optional (gymnasium's).

        Returns:
          Observations; info: `steps` (N,), and `error` (N,), a text if an episode could not begin, else None.
        """
        named = dict(options or {})
        if seed is not None or "starts" not in named:
            raise ValueError("VectorSimulators.reset needs options={'starts': one per environment}, and no seed")
        starts = list(named.pop("starts"))
        conditions = list(named.pop("conditions", [Condition()] * self.num_envs))
        mask = np.asarray(named.pop("reset_mask", np.ones(self.num_envs, bool)))
        if named or not len(starts) == len(conditions) == len(mask) == self.num_envs:
            raise ValueError(
                f"reset options must be starts, conditions and reset_mask, each of {self.num_envs}, not "
                f"{sorted((options or {}).keys())} of {len(starts)}, {len(conditions)}, {len(mask)}"
            )
        chosen = {int(i) for i in np.flatnonzero(mask)}
        answers = {i: answer for i, answer in self._built(chosen).items() if not answer[0]}
        requests = {
            i: ("reset", {"options": {"start": starts[i], "condition": conditions[i]}}) for i in chosen - answers.keys()
        }
        for i, (succeeded, value) in (answers | self._ask(requests, self._timeout)).items():
            self.terminated[i], self.truncated[i], self._steps[i] = False, not succeeded, 0
            self._errors[i] = None if succeeded else value
            self._see(i, value[0] if succeeded else None)
        return self._seen(), self._info()

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Executes a chunk in every environment whose episode is still running.

        Args:
          actions: (N, execute, action_dim); those of finished episodes are ignored.

        Returns:
          Observations; rewards (N,), 0 for finished episodes; terminated (N,): success; truncated (N,): out of
          steps, or broken; info: `steps` (N,) so far, and `error` (N,), why an episode broke, else None.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions have shape {actions.shape}, expected {self.action_space.shape}")
        rewards = np.zeros(self.num_envs)
        live = [int(i) for i in np.flatnonzero(~(self.terminated | self.truncated))]
        requests = {i: ("step", {"action": actions[i]}) for i in live}
        for i, (succeeded, value) in self._ask(requests, self._timeout).items():
            if not succeeded:
                self.truncated[i], self._errors[i] = True, value
                continue
            observation, rewards[i], self.terminated[i], self.truncated[i], info = value
            self._steps[i] = info["steps"]
            self._see(i, observation)
        return self._seen(), rewards, self.terminated.copy(), self.truncated.copy(), self._info()

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the workers."""
        for pipe, process in self._crew:
            pipe.close()
            process.kill()
            process.join()

    def _ask(self, requests: Mapping[int, tuple[str, dict] | None], timeout: float) -> dict[int, tuple[bool, Any]]:
        """The workers' answers to their requests (None: to being started), or (False, why there is no answer)."""
        waiting = {}
        for i, request in requests.items():
            waiting[self._crew[i][0]] = i
            if request is not None:
                with contextlib.suppress(OSError):  # it has died, which shows below
                    self._crew[i][0].send(request)
        answers: dict[int, tuple[bool, Any]] = {}
        lost = set()
        deadline = time.monotonic() + timeout
        while waiting and (ready := wait(list(waiting), max(0.0, deadline - time.monotonic()))):
            for pipe in ready:
                assert isinstance(pipe, Connection)
                i = waiting.pop(pipe)
                try:
                    answers[i] = pipe.recv()
                except (EOFError, OSError):
                    answers[i] = False, "its worker process died: out of memory, or a crash in a C library"
                    lost.add(i)
        for i in waiting.values():
            answers[i] = False, f"its worker process did not answer within {timeout:g} s"
            lost.add(i)
        for i, (succeeded, _) in answers.items():
            hired = requests[i] is None
            if hired and succeeded:
                self._building.discard(i)
            elif hired or i in lost:
                self._replace(i)
        return answers

    def _built(self, chosen: set[int]) -> dict[int, tuple[bool, Any]]:
        """Waits for the workers that are still building, and returns their answers."""
        return self._ask({i: None for i in sorted(chosen & self._building)}, self._build_timeout)

    def _replace(self, i: int) -> None:
        pipe, process = self._crew[i]
        pipe.close()
        process.kill()
        process.join()
        self._crew[i] = _hire(*self._jobs[i])
        self._building.add(i)

    def _see(self, i: int, observation: Observation | None) -> None:
        for name, batch in self._observation.items():
            batch[i] = 0 if observation is None else observation[name]

    def _seen(self) -> Observation:
        return {name: batch.copy() for name, batch in self._observation.items()}

    def _info(self) -> dict[str, np.ndarray]:
        return {"steps": self._steps.copy(), "error": self._errors.copy()}


def _spaces(world: World, cameras: int, image_size: int, execute: int) -> tuple[spaces.Dict, spaces.Box]:
    images = spaces.Box(0, 255, (cameras, image_size, image_size, 3), np.uint8)
    state = spaces.Box(-np.inf, np.inf, (world.state_dim,), np.float32)
    low, high = (np.tile(limit.astype(np.float32), (execute, 1)) for limit in world.bounds.T)
    actions = spaces.Box(low, high, dtype=np.float32)
    return spaces.Dict({"images": images, "state": state}), actions


def _observation(frame: Frame) -> Observation:
    return {"images": frame.images, "state": frame.state}


def _hire(world: World, task: str, how: dict[str, Any]) -> tuple[Connection, Any]:
    context = multiprocessing.get_context("spawn")  # not forked: JAX runs threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, world, task, how), daemon=True)
    process.start()
    theirs.close()  # so that its end is noticed here
    return ours, process


def _serve(pipe: Connection, world: World, task: str, how: dict[str, Any]) -> None:
    end_with_parent()
    try:
        env = SimulatorEnv(world, task, **how)
    except Exception as problem:
        pipe.send((False, f"{type(problem).__name__}: {problem}"))
        return
    pipe.send((True, None))
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, getattr(env, name)(**arguments)
        except Exception as problem:
            answer = False, f"{type(problem).__name__}: {problem}"
        pipe.send(answer)
