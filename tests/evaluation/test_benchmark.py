"""The benchmark: it does the work it names, counts operations as the compiler does, and never invents a figure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from metalora_jax import adapters
from metalora_jax.adaptation.agent import Agent
from metalora_jax.evaluation.benchmarks import benchmark, peer, scaling, table
from metalora_jax.policies.smolvla.family import FAMILY
from metalora_jax.policies.stages import advance
from metalora_jax.training.pretrain import train_tokenizer
from metalora_jax.types import Observation
from tests.policies.tiny_smolvla import build

TINY = dict(layers=2, vision_layers=1)  # every loop runs once: the compiler counts a loop's body once
BATCH = 2 * benchmark.FRAMES * benchmark.TASKS


class FakePeer:
    """Answers at once, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def timed(self, **request):
        self.asked.append(request)
        return {"wall": 1.0, "cpu": 2.0, "peak_gib": 3.0}

    def cache_vision(self):
        self.asked.append("cache")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A policy alone, without statistics, as lerobot/smolvla_base comes."""
    directory = tmp_path_factory.mktemp("policy")
    FAMILY.save(directory, build(**TINY), train_tokenizer(["push"], 40))
    return benchmark.load(str(directory))


@pytest.fixture(scope="module")
def work(base):
    return benchmark.Work(base, FAMILY.preset("plan"), benchmark.batch_arrays(base.sizes, BATCH))


@pytest.fixture(scope="module")
def raw(work):
    found = [
        dict(placement="", side=side, work="matmul", size=64, dtype="float32", cpu=1e9, wall=2e9)
        for side in ("ours", "peer")
    ]

    def record(placement, side, name, figures):
        found.append({"placement": placement, "side": side, "work": name, **figures})

    fake = FakePeer()
    peer.alternate("plan", work, fake, record, repeats=2, meta_repeats=1, peer_tasks=1)
    assert "cache" in fake.asked
    return found


def test_the_step_is_one_of_sgd_on_the_flow_loss(work):
    """Against a gradient through the whole policy, written out."""
    model = build(**TINY)
    graph, theta, phi = adapters.split(adapters.attach(model, FAMILY.preset("plan"), jax.random.key(0)))
    rows = slice(0, benchmark.FRAMES)
    seen = jax.tree.map(lambda x: x[rows], work.observation)
    actions, noise, t = (x[rows] for x in work.target)
    x_t = t[:, None, None] * noise + (1 - t[:, None, None]) * actions

    @jax.jit
    def stepped(theta):
        def loss(theta):
            policy = adapters.join(graph, theta, phi)
            return jnp.square(policy.velocity(policy.context(seen), x_t, t) - (noise - actions)).mean()

        return jax.tree.map(lambda p, g: p - benchmark.RATE * g, theta, jax.grad(loss)(theta))

    warm = jax.tree.map(lambda x: x[rows], work.warm)
    have = work._step(work.theta, work.phi, benchmark.Example(warm, jax.tree.map(lambda x: x[rows], work.target)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), have, stepped(theta))


def test_operations_are_those_of_the_compiled_program():
    model = build(**TINY)
    ops = FAMILY.operations(model.config, benchmark.CAMERAS)
    graph, phi = nnx.split(model)
    arrays = benchmark.batch_arrays(model.sizes, 1)
    seen = (np.moveaxis(arrays["images"], 2, -1), *(arrays[x] for x in ("image_mask", "tokens", "token_mask", "state")))
    one = Observation(*map(jnp.asarray, seen))
    features = advance(model, one, "features")
    context = advance(model, one, "context")

    def count(function, *args):
        return jax.jit(function).lower(phi, *args).compile().cost_analysis()["flops"]

    compiled = (
        count(lambda phi, seen: nnx.merge(graph, phi).encode(seen.images), one),
        count(lambda phi, f: nnx.merge(graph, phi).condition(*f), features),
        count(
            lambda phi, c, x: nnx.merge(graph, phi).velocity(c, x, jnp.zeros(1)), context, jnp.asarray(arrays["noise"])
        ),
    )
    # Norms, softmax and rotary positions are a large part at this size; none is in the floor.
    for counted, known in zip((ops.encode, ops.condition, ops.velocity), compiled, strict=True):
        assert 0.6 * known < counted < known


def test_every_piece_of_work_is_timed_by_turns(raw):
    names = [(r["side"], r["work"]) for r in raw if r["work"] in ("step", "step_cold")]
    assert names == 2 * [("ours", "step"), ("peer", "step"), ("ours", "step_cold")]
    assert all(r["cpu"] > 0 and r["wall"] > 0 for r in raw)


def test_the_table_holds_medians_ratios_and_what_is_missing(raw):
    text = table.table(raw, FAMILY.operations(build(**TINY).config, benchmark.CAMERAS))
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "not measured" in lines["LoRA step, expert only, warm"]
    cells = [cell.strip() for cell in lines["FOMAML meta-step, warm"].split("|")]
    assert cells[4:6] == ["8.00", "4.00"]  # a quarter of its tasks, scaled
    assert "run for 1 of its 4 tasks, and scaled up" in text
    (ours,) = (r["cpu"] for r in raw if r["side"] == "ours" and r["work"] == "meta_step")
    assert cells[2] == f"{ours:.2f}"
    assert cells[6] == f"{8 / ours:.1f}"


def test_ours_alone(work):
    found = []
    peer.alternate("expert", work, None, lambda *a: found.append(a), repeats=1, meta_repeats=0, peer_tasks=1)
    assert [(side, name) for _, side, name, _ in found] == [("ours", "step"), ("ours", "step_cold")]


def test_the_chunk_is_sampled_by_the_agent(work, monkeypatch):
    seen = []
    monkeypatch.setattr(Agent, "sample", lambda self, observation, key: seen.append(observation))
    work.run_sample()
    [observation] = seen
    np.testing.assert_array_equal(observation.state, work.observation.state[:1])


def test_frames_have_no_more_cameras_than_the_policy():
    for own, shown in ((1, 1), (2, 2), (3, 2)):
        sizes = build(cameras=own).sizes
        assert benchmark.batch_arrays(sizes, 1)["images"].shape[1] == benchmark.cameras(sizes) == shown


def test_the_largest_power_of_two_that_fits():
    assert [benchmark.largest(lambda size, most=most: size <= most) for most in (0, 1, 2, 3, 4, 100)] == [
        *(0, 1, 2, 2, 4, 64)
    ]


def test_a_meta_steps_bytes_hold_the_policy_at_least(work):
    assert work.meta_step_bytes(1) > sum(leaf.nbytes for leaf in jax.tree.leaves(work.phi))


def test_straight_lines():
    slope, intercept, r2 = scaling.straight_line([1, 2, 4], [3.0, 5.0, 9.0])
    assert (slope, intercept, r2) == pytest.approx((2.0, 1.0, 1.0))
    assert scaling.straight_line([1, 2, 3, 4], [1.0, 2.0, 1.0, 2.0])[2] < 0.5
