"""Runs policies on a file of problems (`envs.problems`): each in closed loop, from the starts that it names."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adapters import Placement, Theta
from metalora_jax.envs.control import Control
from metalora_jax.envs.problems import Problem, Problems
from metalora_jax.envs.world import world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import experiment
from metalora_jax.evaluation.reports import provenance
from metalora_jax.evaluation.reports.records import Episode, EpisodeLog, read_episodes
from metalora_jax.evaluation.rollout import Job, Rollout
from metalora_jax.machine.progress import progress

RECORDS = "episodes.jsonl"
METHOD = "policy"  # the name of whatever is put to the problems


class Policy(NamedTuple):
    """What runs the episodes of one problem."""

    base: str | None  # directory; None is the one in the package
    placement: Placement
    theta: Theta | None  # None: the base alone
    digest: str | None  # of the adapter


def policies(known: Problems, base: str | None, adapters: str | None) -> dict[str, Policy]:
    """The policy of each problem, all of which are read before anything runs.

    Args:
      known: the problems.
      base: directory of the base, in which `{problem}` stands for a problem's name; None is the one in the package.
      adapters: likewise of the adapter; None: the base alone.

    Raises:
      ValueError: see `base.load` and `adapter.load`.
    """
    found: dict[str, Policy] = {}
    loaded: dict[str | None, bases.Base] = {}
    read: dict[tuple[str | None, str | None], Policy] = {}
    for name in progress(list(known.problems), description="policies"):
        directory, path = (pattern and pattern.replace("{problem}", name) for pattern in (base, adapters))
        if directory not in loaded:
            loaded = {directory: bases.load(directory)}  # one at a time: a large one would not fit twice
        if (directory, path) not in read:
            read[directory, path] = _read(directory, path, loaded[directory])
        found[name] = read[directory, path]
    return found


def _read(directory: str | None, path: str | None, base: bases.Base) -> Policy:
    if path is None:
        return Policy(directory, (), None, None)
    start = adapter.load(path, base)
    return Policy(directory, start.placement, start.meta_params["theta"], start.digest)


def run(known: Problems, policies: Mapping[str, Policy], execute: int, workers: int, workdir: Path) -> list[Episode]:
    """Runs the episodes that `workdir` does not have yet; returns all.

    Args:
      known: the problems.
      policies: of each, see `policies`.
      execute: commands of a chunk before the policy observes again.
      workers: processes.
      workdir: for the records and what they came from.

    Raises:
      ValueError: a policy is not for this world, or plans fewer steps than `execute`.
      RuntimeError: every episode ended by an error.
    """
    where, by_base = world(known.world), defaultdict[str | None, list[str]](list)
    for name in known.problems:
        by_base[policies[name].base].append(name)
    control = _control(known, execute)
    with EpisodeLog(workdir / RECORDS) as log:
        for directory, names in by_base.items():
            base = bases.load(directory)
            rollout.check_base(base, control, where)
            judged = {"problems": known.to_json(), "execute": execute}
            common = provenance.inputs(judged, base.fingerprint, directory or "", base.statistics.digest(), {})
            stamps = {name: common._replace(adapter=policies[name].digest) for name in names}
            provenance.keep(workdir, stamps.values())
            jobs = [_job(known.problems[name], policies[name], stamps[name].fingerprint, log) for name in names]
            todo = [job for job in jobs if job.rollouts]
            experiment.execute(todo, None if directory is None else Path(directory), control, workers, log)
    return read_episodes(workdir / RECORDS)


def _control(known: Problems, execute: int) -> Control:
    where = world(known.world)
    caps: dict[str, int] = {}
    for name, problem in known.problems.items():
        suite = where.suite(problem.task)
        if caps.setdefault(suite, problem.max_steps) != problem.max_steps:
            raise ValueError(
                f"problem {name} allows {problem.max_steps} steps, another of {suite} {caps[suite]}: split the file"
            )
    return Control(known.cameras, execute, caps, known.world, known.image_size, simulator=known.simulator)


def _job(problem: Problem, policy: Policy, stamp: str, log: EpisodeLog) -> Job:
    """What `problem` still lacks."""
    rollouts = []
    for start in problem.starts:
        record = Episode(
            method=METHOD,
            meta_seed=0,
            distribution="conditions",
            split="test",
            task=problem.task,
            condition=problem.condition.to_json(),
            shots=len(problem.support),
            draw=0,
            steps=0,
            episode_seed=start,
            success=False,
            episode_return=0.0,
            length=0,
            adapt_seconds=0.0,
            support_loss=None,
            fingerprint=stamp,
            error=None,
        )
        if not log.done(record.key, stamp):
            rollouts.append(Rollout((record, 0.0, None), problem.condition, start))
    return Job(problem.task, policy.placement, policy.theta, tuple(rollouts))
