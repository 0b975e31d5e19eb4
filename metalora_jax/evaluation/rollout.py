"""Closed-loop episodes in worker processes: one simulator and one policy per process, one episode at a time.

Each worker has one agent; the adapters of a job are swapped in without compiling again.
"""

import functools
import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from metalora_jax import adapters
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Agent
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.identification import ActionMap
from metalora_jax.adaptation.learner import Learner, learner
from metalora_jax.data import widths
from metalora_jax.data.sources.embodiment import Embodiment, check
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.world import Simulator, World, world
from metalora_jax.evaluation import execution
from metalora_jax.evaluation.alterations import OTHER_SCENE, Altered
from metalora_jax.evaluation.execution import Chunk, covering
from metalora_jax.machine.processes import in_processes

_UNUSED = 98  # a draw of starts that nothing else uses


class Rollout(NamedTuple):
    """One episode to run."""

    key: Any  # returned with the outcome; identifies it to the caller
    condition: Condition
    start: int  # which of the task's starts; the policy's noise is drawn from it, too
    told: str | None = None  # another instruction in place of the task's own
    altered: str | None = None  # which input of the policy is replaced, see `alterations`


class Job(NamedTuple):
    """Episodes of one policy on one task."""

    task: str
    placement: adapters.Placement
    theta: adapters.Theta | None  # numpy leaves; None is the plain base
    rollouts: tuple[Rollout, ...]
    turn: int = 0  # lower ones run first, whatever their tasks
    action_map: ActionMap | None = None  # what is commanded in place of what the policy commands
    only_for: tuple[str, ...] | None = None  # the instructions that the adapters are for; None is all


class Outcome(NamedTuple):
    """The result of one episode."""

    key: Any
    success: bool
    episode_return: float
    length: int  # control steps
    commands: np.ndarray  # (length, action_dim): with the seed, all that a replay needs
    error: str | None

    @property
    def digest(self) -> str:
        """Of the commands: equal where two policies commanded the same, bit by bit."""
        return hashlib.sha256(np.ascontiguousarray(self.commands, np.float32).tobytes()).hexdigest()[:16]


def run(jobs: Sequence[Job], base_directory: Path | None, control: Control, workers: int) -> Iterator[Outcome]:
    """Runs all jobs in `workers` fresh processes; yields outcomes as they come, in no fixed order.

    A process that crashes, or hangs for `control.timeout`, is replaced; its episode is a failure that says why.

    Raises:
      RuntimeError: if processes are lost repeatedly (see `in_processes`), or nothing can be rendered here.
      ValueError: if a task has no step cap.
    """
    ordered = sorted(jobs, key=lambda job: (job.turn, job.task))  # neighbours share a simulator
    for job in ordered:
        control.cap(job.task)
    if ordered:
        world(control.world).prepare()
    episodes = [(number, job._replace(rollouts=(each,))) for number, job in enumerate(ordered) for each in job.rollouts]
    how = base_directory, control, workers
    yield from in_processes(_run, episodes, workers, _start, how, lost=_lost, timeout=control.timeout)


def _lost(why: str, _: int, job: Job) -> Outcome:
    """An episode whose process was lost, along with its commands."""
    return Outcome(job.rollouts[0].key, False, 0.0, 0, np.zeros((0, 0), np.float32), why)


def check_base(base: Base, control: Control, where: World) -> None:
    """Checks that a base is for the world that it is to act in, with its cameras and chunks.

    Raises:
      ValueError: if not; the message names both sides.
    """
    wide = {"state": where.state_dim, "action": where.action_dim, "camera": len(control.cameras)}
    remedy = "evaluate it in the world and with the cameras that it was trained for, or choose another base"
    widths.against(f"the world {control.world}", wide, base.statistics, base.sizes, remedy)
    said = check(Embodiment(control.cameras), base.embodiment)
    for doubt in (*said, widths.fewer_cameras(f"the world {control.world}", len(control.cameras), base.sizes)):
        if doubt:
            logging.warning("%s", doubt)
    execution.check(control.execute, control.ensemble, base.sizes.chunk)


def replay(
    control: Control, task: str, rollout: Rollout, commands: np.ndarray, camera: str, image_size: int, every: int
) -> np.ndarray:
    """Frames (n, H, W, 3) uint8 of an episode, at higher resolution than the policy's: one in `every` control steps."""
    frames = []
    with _open(control._replace(cameras=(camera,), image_size=image_size), task) as env:
        env.reset(rollout.start, rollout.condition)
        for t, command in enumerate(commands):
            if t % every == 0:
                frames.append(env.observe().images[0])
            env.step(command)
        frames.append(env.observe().images[0])
    return np.stack(frames)


def _open(control: Control, task: str) -> Simulator:
    return world(control.world).open(task, control.cameras, control.image_size, **(control.simulator or {}))


class _Worker(NamedTuple):
    base: Base
    control: Control
    agent: Agent


_worker: _Worker | None = None
_env: Simulator | None = None
_policy: int | None = None  # the number of the job that the agent acts for


def _start(base_directory: Path | None, control: Control, workers: int) -> None:
    global _worker
    one_core_each(workers)
    if control.platform is not None:
        jax.config.update("jax_platforms", control.platform)
    base = bases.load(base_directory)
    execution.check(control.execute, control.ensemble, base.sizes.chunk)
    _worker = _Worker(base, control, Agent(base, fuse=control.fuse))


def one_core_each(workers: int) -> int:
    """Pins a pool's worker to one core where they fill the machine: threads that compete for cores cost time.

    Returns:
      The worker's number, from 0.
    """
    number = multiprocessing.current_process()._identity[0] - 1
    cores = sorted(os.sched_getaffinity(0))
    if workers >= len(cores):
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    return number % workers


@functools.lru_cache(maxsize=8)
def _learner(placement: adapters.Placement) -> Learner:
    assert _worker is not None
    return learner(_worker.base, placement, jax.random.key(0))


def _run(number: int, job: Job) -> Outcome:
    """The one rollout of a job; `number` tells jobs apart."""
    global _env, _policy
    assert _worker is not None
    if _env is None or _env.task != job.task:
        if _env is not None:
            _env.close()
        _env = _open(_worker.control, job.task)
    if _policy != number:
        adapted = None if job.theta is None else _learner(job.placement).replace(only_for=job.only_for)
        _worker.agent.swap(adapted, job.theta, job.action_map)
        _policy = number
    return episode(_env, _worker.agent, _worker.control, job.rollouts[0])


def episode(env: Simulator, agent: Agent, control: Control, rollout: Rollout) -> Outcome:
    """Runs one episode in this process, until it succeeds or `control.max_steps` are over.

    One that raises is a failure, and its outcome says why.
    """
    instruction = env.instruction if rollout.told is None else rollout.told
    key = jax.random.key(rollout.start)
    commands: list[np.ndarray] = []
    chunks: list[Chunk] = []
    cap = control.cap(env.task)
    total, success, error = 0.0, False, None
    try:
        scene = _other_scene(env, control, rollout) if rollout.altered == OTHER_SCENE else None
        seen = Altered(rollout.altered, control.cameras, rollout.start, scene)
        env.reset(rollout.start, rollout.condition)
        while (now := len(commands)) < cap and not success:
            if now % control.execute == 0:
                frame = seen(env.observe())
                planned = agent.act(frame.images, frame.state, instruction, jax.random.fold_in(key, now))
                newest = Chunk(now, planned)
                chunks = [*covering(chunks, now), newest]
            command = execution.command(chunks, now, control.ensemble)
            step = env.step(command)
            commands.append(command)
            total += step.reward
            success = step.success
    except Exception as problem:
        error, success = f"{type(problem).__name__}: {problem}", False
    done = np.array(commands, np.float32).reshape(-1, world(control.world).action_dim)
    return Outcome(rollout.key, success, total, len(commands), done, error)


def _other_scene(env: Simulator, control: Control, rollout: Rollout) -> np.ndarray:
    """The first pictures (C, H, W, 3) of a start that no comparison uses."""
    env.reset(world(control.world).episode_start(env.task, _UNUSED, 0), rollout.condition)
    return env.observe().images
