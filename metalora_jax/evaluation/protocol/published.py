"""The test cells of a comparison as problems that other code can be put to, see `envs.problems`."""

from pathlib import Path

from metalora_jax.data import libero_hdf5, sources
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.problems import Problem, Problems
from metalora_jax.envs.world import World, world
from metalora_jax.evaluation.protocol import few_shot, recorded
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.protocol.few_shot import Cell


def problems(comparison: Comparison) -> Problems:
    """What every arm of the comparison adapts to and is judged by: the same demonstrations and the same starts.

    Raises:
      ValueError: the comparison has no simulator; or it relabels demonstrations, which as they are recorded show
        another robot than the episodes run on; or demonstrations are missing.
    """
    control, protocol, data = comparison.closed_loop, comparison.protocol, comparison.test
    if comparison.conditions is not None:
        raise ValueError(
            "this comparison relabels its demonstrations for the conditions that it draws, and a file of problems "
            "names them as they were recorded: record them under their conditions, with `robots` in the parts of "
            "metalora collect, and set `recorded`"
        )
    where = world(control.world)
    counts = sources.counts(data.open(pictures=False), data.tasks, data.demos)
    counted = {task: _whole(task, count) for task, count in counts.items()}
    known = recorded.conditions(data) if comparison.recorded else None
    made = {
        f"{cell.task}/{shots}" + (f"/{cell.draw}" if protocol.demonstration_draws > 1 else ""): _problem(
            cell, comparison, where
        )
        for shots in protocol.shots
        for cell in few_shot.cells(protocol, "test", counted, None, shots, comparison.seed, known)
    }
    return Problems(
        comparison.report.title,
        control.world,
        control.cameras,
        control.image_size,
        dict(control.simulator or {}),
        made,
    )


def _whole(task: str, count: int | None) -> int:
    if count is None:
        raise ValueError(f"test.demos says nothing of {task}, and its problems depend on how many there are: set it")
    return count


def _problem(cell: Cell, comparison: Comparison, where: World) -> Problem:
    control, protocol = comparison.closed_loop, comparison.protocol
    return Problem(
        cell.plays,
        where.instruction(cell.plays),
        str(Path(comparison.test.directory, f"{cell.task}{libero_hdf5.SUFFIX}")),
        cell.demos,
        cell.condition or Condition(),
        tuple(few_shot.starts(cell, cell.plays, cell.draw, protocol.episodes, protocol, where)),
        control.cap(cell.plays),
    )
