"""Before/after films: the same start under the same hidden condition, with the frozen base and with adapters."""

import importlib.util
from pathlib import Path

import numpy as np

from metalora_jax.adaptation import base as bases
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.world import world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import experiment, few_shot
from metalora_jax.evaluation.protocol.arms import Adaptation, Choice
from metalora_jax.evaluation.protocol.comparison import Comparison, Films
from metalora_jax.evaluation.rollout import Job, Rollout
from metalora_jax.machine import files
from metalora_jax.machine.processes import in_processes

SIZE = 224  # [px] each half
EVERY = 2  # control steps between two frames
RATE = 20  # frames per second


def check(films: Films) -> None:
    """Checks, before any other work, that films can be written.

    Raises:
      ValueError: if films are requested, but the encoder is not installed.
    """
    encoder = ("imageio", "imageio_ffmpeg")
    if films.tasks and not all(importlib.util.find_spec(name) for name in encoder):
        raise ValueError("films need imageio and imageio-ffmpeg: install both, or set --config.films.tasks='()'")


def before_and_after(comparison: Comparison, workdir: Path) -> list[Path]:
    """Writes `workdir/videos/<task>.mp4` for the tasks of the section `films`; existing files are kept.

    Left: the base. Right: the report's reference method after `films.steps` steps on one demonstration. The episode is
    one of those that were counted, replayed from its commands with a larger picture.
    """
    films, protocol, control = comparison.films, comparison.protocol, comparison.control
    todo = [task for task in films.tasks if not (workdir / "videos" / f"{task}.mp4").exists()]
    if not todo:
        return []
    base = bases.load(comparison.base_directory)
    name = str(comparison.report.reference)
    arm = experiment.build_arm(comparison, name, base, workdir)[0]
    chosen = files.read_json(workdir / "rates.json")[name]
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
            (cell.task, "before"), cell.condition or Condition(), start_of(cell.task, cell.draw, protocol.first_episode)
        )
        takes[cell.task] = take
        jobs.append(Job(cell.task, (), None, (take,)))
        jobs.append(Job(cell.task, arm.placement, thetas[films.steps], (take._replace(key=(cell.task, "after")),)))
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
    take, *both = halves
    replayed = [rollout.replay(control, task, take, commands, "agentview", SIZE, EVERY) for commands in both]
    return _write(path, [_captioned(*half) for half in zip(replayed, ("frozen base", "adapted"), strict=True)])


def _captioned(frames: np.ndarray, text: str) -> np.ndarray:
    from PIL import Image, ImageDraw

    caption = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(caption).text((8, 8), text, fill=255, font_size=16)
    return np.where(np.asarray(caption)[..., None] > 127, np.uint8(255), frames)


def _write(path: Path, halves: list[np.ndarray]) -> Path:
    import imageio.v3 as iio

    length = max(len(half) for half in halves) + RATE // 2  # hold the last picture for half a second
    held = [np.concatenate([half, np.repeat(half[-1:], length - len(half), axis=0)]) for half in halves]
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_file(path) as staging:
        staging.write_bytes(
            iio.imwrite("<bytes>", np.concatenate(held, axis=2), extension=".mp4", fps=RATE, codec="libx264")
        )
    return path
