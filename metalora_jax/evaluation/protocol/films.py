"""Before/after films: the same start under the same hidden condition, with the frozen base and with adapters."""

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax import files
from metalora_jax.adaptation import base as bases
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import experiment, few_shot
from metalora_jax.evaluation.protocol.arms import Adaptation, Choice
from metalora_jax.evaluation.protocol.few_shot import Protocol
from metalora_jax.evaluation.rollout import Control, Job, Rollout
from metalora_jax.processes import in_processes

SIZE = 224  # [px] each half
EVERY = 2  # control steps between two frames
RATE = 20  # frames per second
GIF_EVERY = 2  # frames of the film to one of the GIF
GIF_SCALES = (1.0, 0.85, 0.7, 0.5)  # of the film's width, tried in this order
GIF_COLOURS = 256
GIF_BYTES = 2_000_000


def check(config: Mapping[str, Any]) -> None:
    """Checks, before any other work, that films can be written.

    Raises:
      ValueError: if films are requested, but the encoder is not installed.
    """
    if config["films"]["tasks"]:
        check_encoder(", or set --config.films.tasks='()'")


def check_encoder(otherwise: str = "") -> None:
    """Checks that what writes films is installed.

    Raises:
      ValueError: if not; the message ends with what else can be done.
    """
    if not all(importlib.util.find_spec(name) for name in ("imageio", "imageio_ffmpeg")):
        raise ValueError(f"films need imageio and imageio-ffmpeg: install both{otherwise}")


def before_and_after(config: Mapping[str, Any], workdir: Path) -> list[Path]:
    """Writes `workdir/videos/<task>.mp4` for the tasks in config["films"]; existing files are kept.

    Left: the base. Right: the report's reference method after `films.steps` steps on one demonstration. The episode is
    one of those that were counted, replayed from its commands with a larger picture.
    """
    films = config["films"]
    todo = [task for task in films["tasks"] if not (workdir / "videos" / f"{task}.mp4").exists()]
    if not todo:
        return []
    base = bases.load(config["base"] or None)
    protocol = Protocol.from_config(config["protocol"])
    name = config["report"]["reference"]
    arm = experiment.build_arm(config, name, base, workdir)[0]
    chosen = files.read_json(workdir / "rates.json")[name]
    choices = {budget: Choice(**choice) for budget, choice in chosen.items()}
    adapt = Adaptation(protocol.flow_draws)
    [data] = experiment.data_sets(config, base, protocol, {arm.learner.stage}, ("test",))
    control = Control(tuple(config["test"]["cameras"]), **config["control"])
    start_of = world(control.world).episode_start
    jobs, takes = [], {}
    for cell in data.cells[protocol.shots[0]]:
        if cell.task not in todo or cell.draw != 0:
            continue
        found = few_shot.adapted_at(arm, adapt, choices, cell, data, protocol, [films["steps"]])
        thetas = {step: theta for step, theta, _, _ in found}
        take = Rollout(
            (cell.task, "before"), cell.condition or Condition(), start_of(cell.task, cell.draw, protocol.first_episode)
        )
        takes[cell.task] = take
        jobs.append(Job(cell.task, (), None, (take,)))
        jobs.append(Job(cell.task, arm.placement, thetas[films["steps"]], (take._replace(key=(cell.task, "after")),)))
    base_directory = Path(config["base"]) if config["base"] else None
    outcomes = {o.key: o for o in rollout.run(jobs, base_directory, control, config["workers"])}
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
    return write(path, panels(control, task, [("frozen base", take, before), ("adapted", take, after)]))


def panels(control: Control, task: str, takes: Sequence[tuple[str, Rollout, np.ndarray]]) -> list[np.ndarray]:
    """Episodes of one task, replayed with a larger picture and captioned.

    Args:
      control: how they were run.
      task: of all of them.
      takes: a caption, the episode, and its commands (T, action_dim), for each.

    Returns:
      For each, frames (n, SIZE, SIZE, 3) uint8, one in EVERY control steps.
    """
    return [
        captioned(rollout.replay(control, task, take, commands, "agentview", SIZE, EVERY), text)
        for text, take, commands in takes
    ]


def captioned(frames: np.ndarray, text: str) -> np.ndarray:
    """The same frames (n, SIZE, SIZE, 3) uint8 with `text` in their upper left corner."""
    from PIL import Image, ImageDraw

    caption = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(caption).text((8, 8), text, fill=255, font_size=16)
    return np.where(np.asarray(caption)[..., None] > 127, np.uint8(255), frames)


def beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Films (n, H, W, 3) of several lengths side by side: each holds its last picture until half a second after all."""
    length = max(len(part) for part in parts) + RATE // 2
    held = [np.concatenate([part, np.repeat(part[-1:], length - len(part), axis=0)]) for part in parts]
    return np.concatenate(held, axis=2)


def write(path: Path, parts: Sequence[np.ndarray]) -> Path:
    """Writes films (n, H, W, 3) uint8 side by side as an MP4.

    The encoder forks: call this in a process in which JAX runs no threads.
    """
    import imageio.v3 as iio

    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_file(path) as staging:
        staging.write_bytes(iio.imwrite("<bytes>", beside(parts), extension=".mp4", fps=RATE, codec="libx264"))
    return path


def write_gif(path: Path, parts: Sequence[np.ndarray], limit: int = GIF_BYTES) -> Path:
    """Writes films (n, H, W, 3) uint8 side by side as a GIF that repeats, for pages that play no MP4.

    It has half of the pictures at the same pace, and is made smaller until it fits.

    Args:
      path: the file.
      parts: the films.
      limit: its largest size [bytes].

    Raises:
      ValueError: no size fits.
    """
    from PIL import Image

    pictures = [Image.fromarray(picture) for picture in beside(parts)[::GIF_EVERY]]
    width, height = pictures[0].size
    for scale in GIF_SCALES:
        size = round(width * scale), round(height * scale)
        # One palette for all pictures, and no dithering: what does not move is the same in each, and costs nothing.
        palette = pictures[0].resize(size).quantize(GIF_COLOURS)
        small = [picture.resize(size).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
        memory = io.BytesIO()
        small[0].save(memory, "gif", save_all=True, append_images=small[1:], duration=1000 * GIF_EVERY // RATE, loop=0)
        if memory.tell() <= limit:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_file(path) as staging:
                staging.write_bytes(memory.getvalue())
            return path
    raise ValueError(f"{path} would have {memory.tell()} bytes at its smallest, allowed are {limit}; film less")
