"""What a step costs, read off the compiled program: no gradient below the lowest adapter, no second compilation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from metalora_jax import meta
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.learner import learner, loss_fn
from metalora_jax.adapters import LoRA, Rule, placement
from metalora_jax.data.frames import rows_and_labels
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice
from metalora_jax.machine.memory import sparing
from metalora_jax.policies.smolvla.presets import preset
from metalora_jax.policies.stages import advance
from metalora_jax.training.task_batches import TaskRows, fill, fill_tasks, query_rows, support_rows
from metalora_jax.types import ActionChunk, Batch, TaskBatch
from tests.policies.tiny_smolvla import build
from tests.tiny_base import EXPERT, SIZES, make_base, make_frames

EXPERT_ONLY = preset("expert")


def operations(function, *args) -> float:
    """Floating-point operations of the compiled program; the body of a loop counts once."""
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


@functools.cache
def deep():
    """Towers of comparable cost, so that a needless backward pass through any of them shows."""
    base = make_base()
    return bases.make(build(**SIZES, layers=4, text_mlp=96, vision_mlp=96), base.tokenizer, base.statistics)


@functools.cache
def inputs(stage):
    """The output of a stage for two frames, and their labels."""
    base, frames = deep(), make_frames()
    rows, labels = rows_and_labels(frames, "push", (0,))
    observation = jax.tree.map(jnp.asarray, frames.observe(rows[:2]))
    front = jax.jit(lambda seen: advance(base.model, seen, stage))(observation)
    return front, ActionChunk(*(x[:2] for x in labels))


@functools.cache
def step_operations(rules, stage) -> float:
    """Of one gradient of theta that starts at the output of `stage`."""
    learn = learner(deep(), rules, jax.random.key(0))
    front, target = inputs(stage)

    def gradient(theta, phi, front):
        return jax.grad(loss_fn(learn.replace(phi=phi), draws=1))(theta, Batch(front, target), jax.random.key(0))

    return operations(gradient, learn.theta, learn.phi, front)


@functools.cache
def front_operations(start, end) -> float:
    """Of the forward pass from the output of one stage to that of a later one."""
    graph, phi = nnx.split(deep().model)
    front, _ = inputs(start)

    def forward(phi, front):
        model = nnx.merge(graph, phi)
        features = advance(model, front, "features") if start == "observation" else front
        return features if end == "features" else model.condition(*features)

    return operations(forward, phi, front)


@pytest.mark.parametrize(
    ("rules", "above"),
    [(EXPERT_ONLY, "context"), (preset("plan"), "features")],
    ids=["expert: vision and decoder", "plan: vision"],
)
def test_frozen_stages_run_forward_only(rules, above):
    extra = step_operations(rules, "observation") - step_operations(rules, above)
    assert extra == pytest.approx(front_operations("observation", above), rel=0.02)


def test_adapters_in_the_decoder_do_cost_a_backward_pass():
    """The measure of the test above sees one where there is one."""
    extra = step_operations(preset("plan"), "features") - step_operations(EXPERT_ONLY, "context")
    assert extra > 1.7 * front_operations("features", "context")


def test_an_adapter_on_the_output_leaves_the_expert_forward_only():
    model = deep().model
    front, _ = inputs("context")
    graph, phi = nnx.split(model)
    x_t = jnp.zeros((2, model.config.chunk_size, model.config.max_action_dim))
    alone = operations(lambda phi, front: nnx.merge(graph, phi).velocity(front, x_t, jnp.zeros(2)), phi, front)
    assert step_operations((Rule(r"action_out_proj", LoRA(rank=2, b_std=0.1)),), "context") < 1.15 * alone
    assert step_operations(EXPERT_ONLY, "context") > 1.7 * alone


def temporaries(compiled) -> int:
    return compiled.memory_analysis().temp_size_in_bytes


def test_the_query_s_activations_take_the_place_of_the_inner_loop_s():
    learn = learner(deep(), EXPERT_ONLY, jax.random.key(0))
    front, target = inputs("context")
    batch = jax.tree.map(jnp.asarray, Batch(front, target))
    tasks = TaskBatch(jax.tree.map(lambda x: x[None, None], batch), jax.tree.map(lambda x: x[None], batch))

    def gradient(theta, phi, batch):
        return jax.grad(loss_fn(learn.replace(phi=phi), draws=1))(theta, batch, jax.random.key(0))

    def meta_gradient(theta, phi, tasks):
        method = meta.fomaml(loss_fn(learn.replace(phi=phi), draws=1), optax.sgd(0.1))
        return method.gradient({"theta": theta}, tasks, jax.random.key(0))[0]

    one = jax.jit(gradient, compiler_options=sparing()).lower(learn.theta, learn.phi, batch).compile()
    whole = jax.jit(meta_gradient, compiler_options=sparing()).lower(learn.theta, learn.phi, tasks).compile()
    assert temporaries(whole) < 2 * temporaries(one), (temporaries(whole), temporaries(one))  # 2.7 as XLA would have it


def compilations(events: list[str]) -> int:
    return sum("backend_compile" in name for name in events)


@pytest.fixture
def events():
    """Names of what JAX times, compilations among them."""
    seen: list[str] = []

    def listen(name, duration, **_):
        seen.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_other_shots_and_tasks_adapt_without_a_compilation(events):
    frames = make_frames()
    learn = learner(make_base(), placement.from_json([EXPERT]), jax.random.key(0))
    frozen = jax.tree.map(np.asarray, frames.observe(np.arange(len(frames.state))))
    arm = Arm("fomaml", 0, learn, placement.from_json([EXPERT]), {"theta": learn.theta}, 1.0)
    adapt = Adaptation(draws=2)

    def run(task, shots):
        rng = np.random.default_rng(shots)
        support = fill(support_rows(frames, task, tuple(range(shots)), None, 2, 4, rng), frozen)
        return adapt(arm, Choice("sgd", 0.1), support, 0, (1, 2))

    run("reach", 1)
    assert compilations(events)
    events.clear()
    for task, shots in (("reach", 3), ("push", 1), ("push", 3)):
        run(task, shots)
    assert not compilations(events)


def test_other_shots_and_tasks_take_a_meta_step_without_a_compilation(events):
    frames = make_frames()
    learn = learner(make_base(), placement.from_json([EXPERT]), jax.random.key(0))
    frozen = jax.tree.map(jnp.asarray, frames.observe(np.arange(len(frames.state))))

    @jax.jit
    def step(theta, phi, rows, frozen, key):
        method = meta.fomaml(loss_fn(learn.replace(phi=phi), draws=1), optax.sgd(0.1))
        return method.gradient({"theta": theta}, fill_tasks(rows, frozen), key)[0]

    def run(tasks, shots):
        rng = np.random.default_rng(shots)
        parts = [
            TaskRows(
                support_rows(frames, task, range(shots), None, 2, 4, rng), query_rows(frames, task, (3,), None, 4, rng)
            )
            for task in tasks
        ]
        rows = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
        return jax.block_until_ready(step(learn.theta, learn.phi, rows, frozen, jax.random.key(0)))

    run(("reach", "push"), 1)
    assert compilations(events)
    events.clear()
    run(("push", "push"), 3)
    run(("reach", "push"), 2)
    assert not compilations(events)
