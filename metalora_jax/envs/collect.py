"""Records scripted demonstrations of many tasks in parallel processes; resumable: finished files are kept."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from metalora_jax.data import libero_hdf5
from metalora_jax.envs import libero_files
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.experts import record_whole
from metalora_jax.envs.world import Traced, check_shift, world
from metalora_jax.fields import check_positive, each, from_fields
from metalora_jax.machine.processes import in_processes


class RecordingJob(NamedTuple):
    """One file of demonstrations to record."""

    task: str
    path: Path
    demos: int
    first_seed: int
    noise: float
    world: str
    image_size: int  # [px]
    conditions: ConditionRange = ConditionRange()  # every demonstration draws its own from these, by its seed
    simulator: Mapping[str, Any] = {}
    condition: Condition | None = None  # of all demonstrations, in place of draws

    def of(self, seed: int) -> Condition:
        """The condition of a demonstration."""
        if self.condition is not None:
            return self.condition
        return self.conditions.sample(np.random.default_rng(seed), "train")


class Recorded(NamedTuple):
    """The result of one job."""

    job: RecordingJob
    failures: int  # episodes in which the expert failed; they are not kept


class ExpertFails(RuntimeError):
    """A scripted expert fails more often than it succeeds; nothing is written for that task."""


class Part(NamedTuple):
    """Some of the files of a collection: `tasks`, or all of a LIBERO `suite`."""

    demos: int  # of each task
    first_seed: int
    noise: float  # pushes on the hand, or on joints [action units], 0 to record undisturbed experts
    tasks: tuple[str, ...] = ()
    suite: str | None = None
    folder: str | None = None  # of another part, to be written to; None: one of the part's own name
    conditions: ConditionRange = ConditionRange()  # domain randomisation
    apart: int = 0  # between the first seeds of two files; 0: all tasks are recorded from the same starts
    robots: int = 0  # files of each task, `<task>@<robot>`: all demonstrations of a robot share one of `conditions`
    split: str = "train"  # of `conditions`, which robots are drawn from: "train", "validation" or "test"

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Part":
        """Reads one of `parts`; see `fields.from_fields`. Raises ValueError unless it has either tasks or a suite."""
        self = from_fields(cls, fields, "parts", {"conditions": ConditionRange.from_config})
        if bool(self.tasks) == (self.suite is not None):
            raise ValueError("each of `parts` names its tasks, or a suite: set exactly one of the two")
        if self.split != "train" and not self.robots:
            raise ValueError(f"parts: split {self.split!r} is of the robots, and there are none; set robots")
        if self.robots and self.conditions == ConditionRange():
            raise ValueError("parts: robots differ in their conditions, and there are none; set conditions")
        return self


class Collection(NamedTuple):
    """Demonstrations to record, `directory/<part>/<task>_demo.hdf5`."""

    directory: str
    world: str
    image_size: int  # [px]
    workers: int  # processes
    parts: Mapping[str, Part]
    simulator: Mapping[str, Any] = {}

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Collection":
        """Reads a whole config of collect.py; see `fields.from_fields`."""
        self = from_fields(cls, fields, "", {"parts": each(Part.from_config)})
        check_positive(self, "config", ("workers", "image_size"))
        for name, part in self.parts.items():
            check_positive(part, f"parts.{name}", ("demos",))
        if not self.parts:
            raise ValueError("the config has no `parts`: nothing would be recorded; name some tasks")
        return self

    def jobs(self) -> list[RecordingJob]:
        """One for each file."""
        return [
            RecordingJob(
                task,
                Path(self.directory, part.folder or name, f"{called}_demo.hdf5"),
                part.demos,
                part.first_seed + part.apart * index,
                part.noise,
                self.world,
                self.image_size,
                part.conditions,
                self.simulator,
                condition,
            )
            for name, part in self.parts.items()
            for index, (task, called, condition) in enumerate(_files(part))
        ]


def _files(part: Part) -> Iterator[tuple[str, str, Condition | None]]:
    """Task, name and shared condition of each file."""
    tasks = part.tasks or tuple(libero_files.suite_tasks(str(part.suite)))
    if not part.robots:
        yield from ((task, task, None) for task in tasks)
    for number in range(part.robots):  # the same one for all tasks
        robot = part.conditions.sample(np.random.default_rng([part.first_seed, number]), part.split)
        yield from ((task, f"{task}@{number}", robot) for task in tasks)


def record_file(job: RecordingJob) -> Recorded:
    """Records one file, keeping successes only; seeds count up from `first_seed`.

    Raises:
      ExpertFails: if it fails more often than it succeeds; nothing is written.
    """
    recordings: list[libero_hdf5.Recording] = []
    seeds, conditions, seed = [], [], job.first_seed
    known = world(job.world)
    steps = known.demo_steps(job.task)
    limits = known.joint_limits
    with known.open(job.task, known.cameras, job.image_size, **job.simulator) as env:
        while len(recordings) < job.demos:
            condition = job.of(seed)
            recording = record_whole(env, seed, condition, job.noise, steps, limits=limits)
            if recording is not None:
                recordings.append(recording)
                seeds.append(seed)
                conditions.append(condition.to_json())
            seed += 1
            failures = seed - job.first_seed - len(recordings)
            logging.info("%s: %d of %d recorded, %d failed", job.task, len(recordings), job.demos, failures)
            if failures > job.demos + 10:
                raise ExpertFails(f"the expert of {job.task} failed {failures} times; drop the task")
    provenance = {"seeds": seeds, "noise": job.noise, "conditions": conditions, "expert": job.world}
    provenance |= {"simulator": dict(job.simulator)} if job.simulator else {}
    if isinstance(env, Traced):
        libero_hdf5.write_official(job.path, recordings, known.cameras, provenance)
    else:
        demos = [recording.demo for recording in recordings]
        libero_hdf5.write(job.path, demos, known.cameras, job.task, provenance, joints=bool(known.joints))
    return Recorded(job, seed - job.first_seed - len(recordings))


def collect(jobs: Sequence[RecordingJob], workers: int) -> Iterator[Recorded]:
    """Records all jobs whose file does not exist yet, in `workers` fresh processes; yields each as it finishes.

    Each demonstration is logged.

    Raises:
      ExpertFails: if the expert of a task fails; raised once all others are recorded.
      RuntimeError: nothing can be rendered here.
      ValueError: if a task is unknown, two jobs name one file, or a file that is there was recorded otherwise.
    """
    for job in jobs:
        world(job.world).instruction(job.task)
        check_shift(job.conditions, job.world, world(job.world))
    if twice := [path for path, count in Counter(job.path for job in jobs).items() if count > 1]:
        raise ValueError(f"two parts record {twice[0]}: give one of them another folder, or other tasks")
    for job in jobs:
        check_recorded(job)
    todo = [(job,) for job in jobs if libero_hdf5.count(job.path) < job.demos]
    for name in {job.world for (job,) in todo}:
        world(name).prepare()
    refusals = []
    for done in in_processes(_record, todo, workers, logging.set_verbosity, (logging.INFO,), jobs_each=8):
        if isinstance(done, Recorded):
            yield done
        else:
            refusals.append(str(done))
    if refusals:
        raise ExpertFails("; ".join(refusals))


def check_recorded(job: RecordingJob) -> None:
    """Refuses a file of other settings, which would be taken as this job's.

    Raises:
      ValueError: the message names the setting.
    """
    if not job.path.exists():
        return
    known = libero_hdf5.provenance_of(job.path)
    remedy = "remove it to record it again, or choose another directory"
    if (noise := known.get("noise", job.noise)) != job.noise:
        raise ValueError(f"{job.path} was recorded with noise {noise}, the config has {job.noise}; {remedy}")
    if (side := libero_hdf5.picture_side(job.path)) not in (None, job.image_size):
        raise ValueError(f"{job.path} has pictures of {side} px, the config has {job.image_size}; {remedy}")
    if (simulator := known.get("simulator", {})) != dict(job.simulator):
        raise ValueError(
            f"{job.path} was recorded with simulator {simulator}, the config has {job.simulator}; {remedy}"
        )
    under = {Condition.from_json(each) for each in known.get("conditions", [])}
    if job.condition is not None and under != {job.condition}:
        raise ValueError(f"{job.path} was recorded on another robot than the config draws; {remedy}")
    if (first := min(known.get("seeds") or [job.first_seed])) < job.first_seed:
        raise ValueError(f"{job.path} was recorded from seed {first}, the config has {job.first_seed}; {remedy}")


def _record(job: RecordingJob) -> Recorded | ExpertFails:
    try:
        return record_file(job)
    except ExpertFails as error:
        return error
