"""Records scripted demonstrations of many tasks in parallel processes; resumable: finished files are kept."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from metalora_jax.data import libero_hdf5
from metalora_jax.envs import libero_files
from metalora_jax.envs.conditions import ConditionRange
from metalora_jax.envs.experts import record_whole
from metalora_jax.envs.world import Traced, world
from metalora_jax.processes import in_processes


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


class Recorded(NamedTuple):
    """The result of one job."""

    job: RecordingJob
    failures: int  # episodes in which the expert failed; they are not kept


class ExpertFails(RuntimeError):
    """A scripted expert fails more often than it succeeds; nothing is written for that task."""


def jobs_of(config: Mapping[str, Any]) -> list[RecordingJob]:
    """The jobs of a config section: `directory`, `world`, `image_size`, and `parts` with their fields.

    A part names its `tasks`, or a LIBERO `suite`; its `conditions`, if any, define the domain randomisation. It
    is written to a folder of its own name, or to `folder`, that of another part.
    """
    return [
        RecordingJob(
            task,
            Path(config["directory"], part.get("folder", name), f"{task}_demo.hdf5"),
            part["demos"],
            part["first_seed"],
            part["noise"],
            config["world"],
            config["image_size"],
            ConditionRange.from_config(part.get("conditions", {})),
        )
        for name, part in config["parts"].items()
        for task in (part["tasks"] if "tasks" in part else libero_files.suite_tasks(part["suite"]))
    ]


def record_file(job: RecordingJob) -> Recorded:
    """Records one file, keeping successes only; seeds count up from `first_seed`.

    Raises:
      ExpertFails: if it fails more often than it succeeds; nothing is written.
    """
    recordings: list[libero_hdf5.Recording] = []
    seeds, conditions, seed = [], [], job.first_seed
    known = world(job.world)
    steps = known.demo_steps(job.task)
    with known.open(job.task, known.cameras, job.image_size) as env:
        while len(recordings) < job.demos:
            condition = job.conditions.sample(np.random.default_rng(seed), "train")
            recording = record_whole(env, seed, condition, job.noise, steps)
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
    if isinstance(env, Traced):
        libero_hdf5.write_official(job.path, recordings, known.cameras, provenance)
    else:
        demos = [recording.demo for recording in recordings]
        libero_hdf5.write(job.path, demos, known.cameras, job.task, provenance)
    return Recorded(job, seed - job.first_seed - len(recordings))


def collect(jobs: Sequence[RecordingJob], workers: int) -> Iterator[Recorded]:
    """Records all jobs whose file does not exist yet, in `workers` fresh processes; yields each as it finishes.

    Each demonstration is logged.

    Raises:
      ExpertFails: if the expert of a task fails; raised once all others are recorded.
    """
    for job in jobs:
        world(job.world).instruction(job.task)
    todo = [(job,) for job in jobs if libero_hdf5.count(job.path) < job.demos]
    refusals = []
    for done in in_processes(_record, todo, workers, logging.set_verbosity, (logging.INFO,), jobs_each=8):
        if isinstance(done, Recorded):
            yield done
        else:
            refusals.append(str(done))
    if refusals:
        raise ExpertFails("; ".join(refusals))


def _record(job: RecordingJob) -> Recorded | ExpertFails:
    try:
        return record_file(job)
    except ExpertFails as error:
        return error
