"""The cost of gradient steps on SmolVLA: the timed work, and the arithmetic that it requires."""

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

from metalora_jax import adapters
from metalora_jax.adapters import Placement
from metalora_jax.memory import give_back_memory, sparing
from metalora_jax.meta import fomaml
from metalora_jax.policies import flow
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA
from metalora_jax.policies.stages import advance, context_of, sample
from metalora_jax.types import Observation, PyTree, TaskBatch

FRAMES, CAMERAS, TASKS, STEPS = 4, 2, 4, 5  # frames of a step; tasks and inner steps of a meta-step
RATE = 1e-4


class Seconds(NamedTuple):
    """The time and memory of one piece of work."""

    wall: float
    cpu: float  # of all threads
    peak_gib: float  # on a CPU resident memory, at its highest since the last `forget_peak`; else the device's, ever


def batch_arrays(config: SmolVLAConfig, frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Made-up inputs, with images channels first as torch has them; the peer reads the same file."""
    rng = np.random.default_rng(seed)
    chunk = (frames, config.chunk_size, config.max_action_dim)
    size = (frames, CAMERAS, 3, config.image_size, config.image_size)
    return dict(
        images=rng.uniform(-1, 1, size).astype(np.float32),
        image_mask=np.ones((frames, CAMERAS), bool),
        tokens=rng.integers(0, config.vocab_size, (frames, config.max_tokens)).astype(np.int32),
        token_mask=np.ones((frames, config.max_tokens), bool),
        state=rng.normal(size=(frames, config.max_state_dim)).astype(np.float32),
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

    def __init__(self, model: SmolVLA, placement: Placement, arrays: Mapping[str, np.ndarray]):
        graph, self.theta, self.phi = adapters.split(adapters.attach(model, placement, jax.random.key(0)))
        self.stage = model.stage_of(self.theta)
        rest = (jnp.asarray(arrays[name]) for name in ("image_mask", "tokens", "token_mask", "state"))
        self.observation = Observation(jnp.moveaxis(jnp.asarray(arrays["images"]), 2, -1), *rest)
        self.target = Flow(*(jnp.asarray(arrays[name]) for name in Flow._fields))

        def model_of(theta: PyTree, phi: PyTree) -> Any:
            return adapters.join(graph, theta, phi)

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

        def act(theta: PyTree, phi: PyTree, observation: Observation, noise: jax.Array) -> jax.Array:
            return sample(model_of(theta, phi), observation, noise)

        self._front = jax.jit(lambda theta, phi, seen: advance(model_of(theta, phi), seen, self.stage))
        self._step, self._sample, self._loss = jax.jit(step), jax.jit(act), jax.jit(jax.value_and_grad(loss))
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
        """A chunk of actions for a new frame."""
        one = slice(0, 1)
        jax.block_until_ready(self._sample(self.theta, self.phi, _rows(self.observation, one), self.target.noise[one]))


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


_ATTENTION_AND_MLP = r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
_EXPERT = rf"model\.vlm_with_expert\.lm_expert\.layers\.\d+\.{_ATTENTION_AND_MLP}"
_TEXT = rf"model\.vlm_with_expert\.vlm\.model\.text_model\.layers\.\d+\.{_ATTENTION_AND_MLP}"
_HEADS = r"model\.action_(in_proj|out_proj|time_mlp_in|time_mlp_out)"
PEFT = {  # the same placements for peft
    "plan": {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": f"({_TEXT}|{_EXPERT}|{_HEADS})",
        "rank_pattern": {r".*text_model.*": 4},
        "alpha_pattern": {r".*text_model.*": 8},
    },
    "expert": {"r": 8, "lora_alpha": 16, "target_modules": _EXPERT},
}


def alternate(
    placement: str,
    work: Work,
    peer: Any | None,
    record: Callable[..., None],
    repeats: int,
    meta_repeats: int,
    peer_tasks: int,
) -> None:
    """Times all pieces of work of a placement, alternating with the peer.

    Args:
      placement: its name, for the records.
      work, peer: the two sides; None measures ours alone.
      record: called with placement, side, name of the work, and seconds.
      repeats: of each; `meta_repeats` of the meta-step.
      peer_tasks: of the peer's meta-step; its time is scaled up to TASKS (its tasks are one loop, each alike).
    """

    def ours(name: str) -> None:
        record(placement, "ours", name, timed(getattr(work, f"run_{name}"))._asdict())

    def theirs(name: str, label: str | None = None) -> None:
        if peer is not None:
            record(placement, "peer", label or name, peer.timed(work=name))

    for name in ("step", "step_cold"):  # compiles, and touches all memory
        getattr(work, f"run_{name}")()
    if peer is not None:
        peer.timed(work="step")
    give_back_memory()  # compilation leaves hundreds of megabytes behind
    work.run_step()
    for _ in range(repeats):
        ours("step")
        theirs("step")
        ours("step_cold")
    if placement == "expert":
        return
    work.run_sample()
    for _ in range(repeats):
        ours("sample")
        theirs("sample")
    if meta_repeats:
        work.compile_meta_step()
        give_back_memory()
    for _ in range(meta_repeats):
        ours("meta_step")
        if peer is not None:
            part, scale = peer.timed(work="meta_step", tasks=peer_tasks), TASKS / peer_tasks
            whole = part | {"cpu": scale * part["cpu"], "wall": scale * part["wall"], "scaled": scale}
            record(placement, "peer", "meta_step", whole)
        ours("meta_step_cold")
    if peer is not None:
        peer.cache_vision()
        peer.timed(work="step")
    for _ in range(repeats):
        theirs("step", "step_cached_vision")
