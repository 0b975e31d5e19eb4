"""The cost of gradient steps on a policy of any family: the timed pieces of work, and their clock."""

import contextlib
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Agent
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.learner import learner
from metalora_jax.adapters import Placement
from metalora_jax.data.normalize import Statistics
from metalora_jax.machine.memory import sparing
from metalora_jax.meta import fomaml
from metalora_jax.policies import flow, hub, registry
from metalora_jax.policies.stages import advance, context_of
from metalora_jax.types import Observation, PyTree, Sizes, TaskBatch

FRAMES, TASKS, STEPS = 4, 4, 5  # frames of a step; tasks and inner steps of a meta-step
CAMERAS = 2  # at most
RATE = 1e-4


class Seconds(NamedTuple):
    """The time and memory of one piece of work."""

    wall: float
    cpu: float  # of all threads
    peak_gib: float  # on a CPU resident memory, at its highest since the last `forget_peak`; else the device's, ever


def load(policy: str, **overrides: Any) -> Base:
    """A policy to be measured; nothing is normalised, since the inputs are made up, so it needs no statistics.

    Args:
      policy: a directory, or a name on the hub.
      overrides: of its config.

    Raises:
      ValueError: see `Family.load`.
    """
    source = hub.local_directory(policy)
    found = registry.of_directory(source).load(source, None, iter, **overrides)
    if found.tokenizer is None:
        raise ValueError(f"{source}/{hub.TOKENIZER} is missing; put that of the policy there")
    state, action = np.zeros(found.model.sizes.state, np.float32), np.zeros(found.model.sizes.action, np.float32)
    unit = Statistics(state, state + 1, action, action + 1)
    return bases.make(found.model, found.tokenizer, unit)


def cameras(sizes: Sizes) -> int:
    """Cameras of the made-up frames."""
    return min(CAMERAS, sizes.cameras)


def batch_arrays(sizes: Sizes, frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Made-up inputs, with images channels first as torch has them; the peer reads the same file."""
    rng = np.random.default_rng(seed)
    chunk = (frames, sizes.chunk, sizes.action)
    images = (frames, cameras(sizes), 3, sizes.image, sizes.image)
    return dict(
        images=rng.uniform(-1, 1, images).astype(np.float32),
        image_mask=np.ones(images[:2], bool),
        tokens=rng.integers(0, sizes.vocabulary, (frames, sizes.tokens)).astype(np.int32),
        token_mask=np.ones((frames, sizes.tokens), bool),
        state=rng.normal(size=(frames, sizes.state)).astype(np.float32),
        actions=rng.normal(size=chunk).astype(np.float32),
        noise=rng.normal(size=chunk).astype(np.float32),
        t=rng.uniform(0.1, 0.9, frames).astype(np.float32),
    )


class Flow(NamedTuple):
    """A flow sample without randomness."""

    actions: jax.Array
    noise: jax.Array
    t: jax.Array


class Example(NamedTuple):
    """Some frames: the frozen front's output, or what comes before it; and the flow."""

    inputs: PyTree
    target: Flow


class Work:
    """Compiled pieces of work on one policy with one placement; each `run_*` runs one once and waits for the end."""

    def __init__(self, base: Base, placement: Placement, arrays: Mapping[str, np.ndarray]):
        learn = learner(base, placement, jax.random.key(0))
        self.theta, self.phi, self.stage = learn.theta, learn.phi, learn.stage
        self.agent = Agent(base, learn)
        rest = (jnp.asarray(arrays[name]) for name in ("image_mask", "tokens", "token_mask", "state"))
        self.observation = Observation(jnp.moveaxis(jnp.asarray(arrays["images"]), 2, -1), *rest)
        self.target = Flow(*(jnp.asarray(arrays[name]) for name in Flow._fields))

        def model_of(theta: PyTree, phi: PyTree) -> Any:
            return learn.replace(phi=phi).model(theta)

        def loss(theta: PyTree, phi: PyTree, batch: Example) -> jax.Array:
            policy, (actions, noise, t) = model_of(theta, phi), batch.target
            context = context_of(policy, batch.inputs)
            x_t, u = flow.interpolate(actions, noise, t)
            return flow.squared_error(policy.velocity(context, x_t, t), u).mean()

        def step(theta: PyTree, phi: PyTree, batch: Example) -> PyTree:
            gradient = jax.grad(loss)(theta, phi, batch)
            return jax.tree.map(lambda p, g: p - RATE * g, theta, gradient)

        def meta_step(theta: PyTree, phi: PyTree, tasks: TaskBatch) -> PyTree:
            at_once = 1 if jax.default_backend() == "cpu" else None
            method = fomaml(lambda theta, batch, _: loss(theta, phi, batch), optax.sgd(RATE), micro_batch=at_once)
            return method.gradient({"theta": theta}, tasks, jax.random.key(0))[0]

        self._front = jax.jit(lambda theta, phi, seen: advance(model_of(theta, phi), seen, self.stage))
        self._step, self._loss = jax.jit(step), jax.jit(jax.value_and_grad(loss))
        self._meta_step = jax.jit(meta_step, compiler_options=sparing())
        self._compiled_meta_step: Any = None
        self.warm: Any = None
        self.fill_cache()

    def fill_cache(self) -> None:
        """The frozen front of all frames, FRAMES at a time."""
        count = len(self.observation.state)
        parts = [
            jax.block_until_ready(self._front(self.theta, self.phi, _rows(self.observation, slice(i, i + FRAMES))))
            for i in range(0, count, FRAMES)
        ]
        self.warm = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    def loss_and_gradient(self) -> tuple[float, PyTree]:
        """Of the first FRAMES frames."""
        rows = slice(0, FRAMES)
        value, gradient = self._loss(self.theta, self.phi, Example(_rows(self.warm, rows), _rows(self.target, rows)))
        return float(value), gradient

    def run_step(self) -> None:
        """One LoRA step on the first FRAMES frames, with a warm cache."""
        rows = slice(0, FRAMES)
        jax.block_until_ready(
            self._step(self.theta, self.phi, Example(_rows(self.warm, rows), _rows(self.target, rows)))
        )

    def run_step_cold(self) -> None:
        """The same, the frozen front computed first."""
        rows = slice(0, FRAMES)
        front = self._front(self.theta, self.phi, _rows(self.observation, rows))
        jax.block_until_ready(self._step(self.theta, self.phi, Example(front, _rows(self.target, rows))))

    def run_meta_step(self) -> None:
        """First-order MAML: TASKS tasks, STEPS steps on each one's support frames, then its query frames."""
        run = self._compiled_meta_step or self._meta_step
        jax.block_until_ready(run(self.theta, self.phi, self._tasks()))

    def _tasks(self) -> TaskBatch:
        each = Example(self.warm, self.target)
        tasks = jax.tree.map(lambda leaf: leaf.reshape(TASKS, 2, FRAMES, *leaf.shape[1:]), each)
        support = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:, :1], (TASKS, STEPS, *leaf.shape[2:])), tasks)
        query = jax.tree.map(lambda leaf: leaf[:, 1], tasks)
        return TaskBatch(support, query)

    def compile_meta_step(self) -> None:
        """Compiles without running, since running takes long."""
        self._compiled_meta_step = self._meta_step.lower(self.theta, self.phi, self._tasks()).compile()

    def meta_step_bytes(self, tasks: int) -> int:
        """Device memory of a meta-step of `tasks` tasks, as reported by the compiler."""

        def resized(leaf: jax.Array) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((tasks, *leaf.shape[1:]), leaf.dtype)

        batch = jax.tree.map(resized, jax.eval_shape(self._tasks))
        memory: Any = self._meta_step.lower(self.theta, self.phi, batch).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes

    def run_meta_step_cold(self) -> None:
        """The same, the frozen front of its frames computed first, each frame once."""
        self.fill_cache()
        self.run_meta_step()

    def run_sample(self) -> None:
        """A chunk of actions for a new frame, by the agent that acts everywhere else; the peer gets the same frame."""
        jax.block_until_ready(self.agent.sample(_rows(self.observation, slice(0, 1)), jax.random.key(0)))


def timed(work: Callable[[], Any]) -> Seconds:
    """Runs `work` once."""
    forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu, peak_gib())


def forget_peak() -> None:
    """Makes `peak_gib` count from now on, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib() -> float:
    """Highest resident memory of this process, or highest memory of its accelerator."""
    if jax.default_backend() != "cpu":
        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 2**30
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def matmul_rate(size: int, dtype: str, repeats: int = 8) -> dict[str, float]:
    """The device's ceiling: operations of a large matrix product per second on the wall, and of the processor."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    seconds = timed(lambda: [jax.block_until_ready(product(a)) for _ in range(repeats)])
    return {"wall": 2 * size**3 * repeats / seconds.wall, "cpu": 2 * size**3 * repeats / seconds.cpu}


def largest(fits: Callable[[int], bool]) -> int:
    """The largest power of two that fits; 0 where not even 1 does."""
    size = 1
    while fits(size):
        size *= 2
    return size // 2


def _rows(tree: PyTree, rows: slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)
