"""How the cost of a meta-step grows with each of its sizes: processor time and memory, one size varied at a time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metalora_jax import meta
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.learner import Learner, loss_fn
from metalora_jax.evaluation.reports.figures import COLOURS, INK, REFERENCE, STYLE
from metalora_jax.machine.memory import sparing
from metalora_jax.machine.progress import progress
from metalora_jax.policies.stages import advance
from metalora_jax.types import ActionChunk, Batch, Observation, PyTree, TaskBatch


class Size(NamedTuple):
    """The size of a meta-step."""

    tasks: int = 2
    steps: int = 2  # inner steps
    frames: int = 8  # of each inner step, and of the query
    draws: int = 1  # noise draws of each frame


VARIED: dict[str, Sequence[int]] = {
    "tasks": (1, 2, 4, 8),
    "steps": (1, 2, 4, 8),
    "frames": (4, 8, 16, 32),
    "draws": (1, 2, 4, 8),
}
MEMORY_STEPS = (1, 2, 4, 8, 16)


def time_points(base: Base, learner: Learner, repeats: int) -> Iterator[dict[str, Any]]:
    """First-order MAML with each entry of VARIED: median and quartiles of the processor time of a meta-step [s]."""
    points = [(name, Size()._replace(**{name: value})) for name, values in VARIED.items() for value in values]
    sizes = list(dict.fromkeys(size for _, size in points))
    programs = {
        size: _program(base, learner, size, first_order=True, remat=True)
        for size in progress(sizes, description="compiling, sizes")
    }
    seconds: dict[Size, list[float]] = {size: [] for size in programs}
    for _ in progress(range(repeats), description="timing, rounds"):  # alternating, so that a slow minute affects all
        for size, (compiled, arguments) in programs.items():
            start = time.process_time()
            jax.block_until_ready(compiled(*arguments))
            seconds[size].append(time.process_time() - start)
    for name, size in points:
        low, middle, high = np.percentile(seconds[size], (25, 50, 75)).tolist()
        yield dict(varied=name, value=getattr(size, name), cpu_seconds=middle, quartiles=[low, high], repeats=repeats)


def memory_points(base: Base, learner: Learner) -> Iterator[dict[str, Any]]:
    """MAML, second order, for one task and MEMORY_STEPS inner steps: bytes of temporaries of the compiled program."""
    points = [(remat, steps) for remat in (True, False) for steps in MEMORY_STEPS]
    for remat, steps in progress(points, description="compiling for memory, sizes"):
        compiled, _ = _program(base, learner, Size(tasks=1, steps=steps), first_order=False, remat=remat)
        size = compiled.memory_analysis().temp_size_in_bytes
        yield dict(varied="memory", value=steps, remat=remat, bytes=size)


def _program(base: Base, learner: Learner, size: Size, first_order: bool, remat: bool) -> tuple[Any, tuple]:
    """A compiled meta-gradient, and arguments for it."""

    def gradient(start: Learner, tasks: TaskBatch) -> PyTree:
        loss = loss_fn(start, draws=size.draws)
        method = meta.maml(loss, optax.sgd(1e-3), first_order=first_order, remat=remat)
        return method.gradient({"theta": start.theta}, tasks, jax.random.key(0))[0]

    batch = _made_up(base, learner, size.frames)

    def repeated(*leading: int) -> Batch:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*leading, *x.shape)), batch)

    arguments = (learner, TaskBatch(repeated(size.tasks, size.steps), repeated(size.tasks)))
    return jax.jit(gradient, compiler_options=sparing()).lower(*arguments).compile(), arguments


def _made_up(base: Base, learner: Learner, frames: int) -> Batch:
    sizes, rng = base.sizes, np.random.default_rng(0)
    observation = Observation(
        rng.uniform(-1, 1, (frames, sizes.cameras, sizes.image, sizes.image, 3)).astype(np.float32),
        np.ones((frames, sizes.cameras), bool),
        rng.integers(0, sizes.vocabulary, (frames, sizes.tokens)).astype(np.int32),
        np.ones((frames, sizes.tokens), bool),
        rng.normal(size=(frames, sizes.state)).astype(np.float32),
    )
    actions = rng.normal(size=(frames, sizes.chunk, sizes.action)).astype(np.float32)
    front = jax.jit(lambda seen: advance(base.model, seen, learner.stage))(observation)
    return Batch(front, ActionChunk(jnp.asarray(actions), jnp.zeros(actions.shape[:2], bool)))


def figure(points: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel for each size, with a straight line through the points, and one for MAML's memory."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(12, 2.9), layout="constrained")
        panels = made.subplots(1, len(VARIED) + 1)
        for axes, name in zip(panels, VARIED, strict=False):
            _time_panel(axes, name, [point for point in points if point["varied"] == name])
        panels[0].set_ylabel("CPU-s of a meta-step")
        _memory_panel(panels[-1], [point for point in points if point["varied"] == "memory"])
        return made


def straight_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Slope, intercept and coefficient of determination of the least-squares line."""
    slope, intercept = map(float, np.polyfit(x, y, 1))
    values = np.asarray(y)
    rest = np.square(values - (slope * np.asarray(x) + intercept)).sum()
    return slope, intercept, float(1 - rest / np.square(values - values.mean()).sum())


def _time_panel(axes: Axes, name: str, points: Sequence[Mapping[str, Any]]) -> None:
    x, y = [point["value"] for point in points], [point["cpu_seconds"] for point in points]
    slope, intercept, r2 = straight_line(x, y)
    spread = np.abs(np.asarray([point["quartiles"] for point in points]) - np.asarray(y)[:, None]).T
    axes.plot([0, max(x)], [intercept, intercept + slope * max(x)], color=INK, linewidth=0.8)
    axes.errorbar(x, y, yerr=spread, fmt="o", color=REFERENCE, markersize=5, capsize=2)
    axes.set(title=f"{name}: R² = {r2:.3f}", xlabel=name, xlim=(0, None), ylim=(0, None))


def _memory_panel(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    for remat, label, colour in ((True, "recomputed", REFERENCE), (False, "kept", COLOURS[0])):
        chosen = [point for point in points if point["remat"] is remat]
        x, y = [point["value"] for point in chosen], [point["bytes"] / 2**20 for point in chosen]
        axes.plot(x, y, "o-", color=colour, markersize=5, label=label)
    axes.set(title="MAML, second order", xlabel="inner steps", ylabel="MiB of temporaries", ylim=(0, None))
    axes.legend(frameon=False)
