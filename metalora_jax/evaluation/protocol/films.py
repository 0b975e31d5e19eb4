"""Before/after films: the same start under the same hidden condition, with the frozen base and with adapters."""

from pathlib import Path

import numpy as np

from metalora_jax.adaptation import base as bases
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.world import played, world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import experiment, few_shot, filming
from metalora_jax.evaluation.protocol.arms import Adaptation, Choice
from metalora_jax.evaluation.protocol.comparison import Comparison, Films
from metalora_jax.evaluation.rollout import Job, Rollout
from metalora_jax.machine import files
from metalora_jax.machine.processes import in_processes


def check(films: Films) -> None:
    """Checks, before any other work, that films can be written.

    Raises:
      ValueError: if films are requested, but the encoder is not installed.
    """
    if films.tasks:
        filming.check_encoder(", or set --config.films.tasks='()'")


def before_and_after(comparison: Comparison, workdir: Path) -> list[Path]:
    """Writes `workdir/videos/<task>.mp4` for the tasks of the section `films`; existing files are kept.

    Left: the base. Right: the report's reference method after `films.steps` steps on one demonstration. The episode is
    one of those that were counted, replayed from its commands with a larger picture.
    """
    films, protocol, control = comparison.films, comparison.protocol, comparison.closed_loop
    todo = [task for task in films.tasks if not (workdir / "videos" / f"{task}.mp4").exists()]
    if not todo:
        return []
    base = bases.load(comparison.base_directory)
    comparison, name = experiment.settled(comparison, base, workdir), str(comparison.report.reference)
    arm = experiment.build_arm(comparison, name, base, workdir)[0]
    chosen = files.read_json(workdir / experiment.RATES)[name]
    choices = {budget: Choice(**choice) for budget, choice in chosen.items()}
    adapt = Adaptation(protocol.noise_draws)
    [data] = experiment.data_sets(comparison, base, {arm.learner.stage}, ("test",))
    start_of = world(control.world).episode_start
    jobs, takes = [], {}
    for cell in data.cells[protocol.shots[0]]:
        if cell.task not in todo or cell.draw != 0:
            continue
        found = few_shot.adapted_at(arm, adapt, choices, cell, data, protocol, [films.steps])
        thetas = {step: theta for step, theta, _, _ in found}
        take = Rollout(
            (cell.task, "before"),
            cell.condition or Condition(),
            start_of(cell.plays, cell.draw, protocol.first_episode),
        )
        takes[cell.task] = take
        jobs.append(Job(cell.plays, (), None, (take,)))
        jobs.append(Job(cell.plays, arm.placement, thetas[films.steps], (take._replace(key=(cell.task, "after")),)))
    outcomes = {o.key: o for o in rollout.run(jobs, comparison.base_directory, control, comparison.workers)}
    halves = [(takes[task], outcomes[task, "before"].commands, outcomes[task, "after"].commands) for task in todo]
    paths = [workdir / "videos" / f"{task}.mp4" for task in todo]
    # In a process of its own: the encoder forks, which JAX, once it runs threads, must not see.
    return list(
        in_processes(
            _film, [(path, control, *take) for path, *take in zip(paths, todo, halves, strict=True)], workers=1
        )
    )


def _film(path: Path, control: Control, task: str, halves: tuple[Rollout, np.ndarray, np.ndarray]) -> Path:
    take, before, after = halves
    return filming.write(
        path, filming.panels(control, played(task), [("frozen base", take, before), ("adapted", take, after)])
    )
