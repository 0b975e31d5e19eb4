"""One contract over all meta-methods, on a loss that is not quadratic, and closed forms on one that is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalora_jax import meta, trees
from metalora_jax.types import TaskBatch
from tests.algebra import axpy

KEY = jax.random.key(0)
RATE = 0.1
SGD = optax.sgd(RATE)
THETA = {"head": {"a": jnp.array([0.3, -0.2, 0.5])}, "body": {"a": jnp.array([[0.4, 0.1], [-0.3, 0.2], [0.6, -0.5]])}}

METHODS = {
    "multitask": lambda loss, **o: meta.multitask(loss, SGD, **o),
    "fomaml": lambda loss, **o: meta.fomaml(loss, SGD, **o),
    "maml": lambda loss, **o: meta.maml(loss, SGD, **o),
    "anil": lambda loss, **o: meta.anil(loss, SGD, ["head/.*"], **o),
    "reptile": lambda loss, **o: meta.reptile(loss, SGD, **o),
    "learned_rates": lambda loss, **o: meta.learned_rates(loss, start=RATE, **o),
    "learned_rates_each": lambda loss, **o: meta.learned_rates(loss, start=RATE, shared="element", **o),
    "learned_rates_fo": lambda loss, **o: meta.learned_rates(loss, start=RATE, first_order=True, **o),
    "maml_adam": lambda loss, **o: meta.maml(loss, optax.adam(0.05, eps_root=1e-8), **o),
}
EVERY = tuple(METHODS)
METHODS["anil_maml"] = lambda loss, **o: meta.anil(loss, SGD, ["head/.*"], over=meta.maml, **o)
every_method = pytest.mark.parametrize("name", EVERY)


def loss_fn(theta, batch, key):
    """A small nonlinear regression; batch: (B, 3) inputs, (B, 2) targets. The noise stands in for flow matching's."""
    x, y = batch
    x = x * (1 + 0.1 * jax.random.uniform(key))
    return jnp.mean(jnp.square(jnp.tanh(x * theta["head"]["a"][None]) @ theta["body"]["a"] - y))


def tasks_of(steps, tasks=4, seed=1):
    keys = jax.random.split(jax.random.key(seed), 4)
    return TaskBatch(
        (jax.random.normal(keys[0], (tasks, steps, 4, 3)), jax.random.normal(keys[1], (tasks, steps, 4, 2))),
        (jax.random.normal(keys[2], (tasks, 4, 3)), jax.random.normal(keys[3], (tasks, 4, 2))),
    )


# These programs are tiny and run once: half the time goes if XLA does not optimise them.
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def run(method, tasks, theta=THETA, key=KEY):
    return jit(method.gradient)(method.init(theta), tasks, key)


@functools.cache
def standard(name):
    """The method over `loss_fn`, made once so that what is compiled once serves all tests."""
    return METHODS[name](loss_fn)


def close(tree, other, rtol=1e-5, atol=1e-6):
    trees.check_same(tree, other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), tree, other)


@every_method
def test_contract(name):
    """Shapes, seeds, finiteness; without inner steps the multi-task gradient; micro-batches change nothing."""
    method, tasks = standard(name), tasks_of(2)
    gradient, metrics = run(method, tasks)
    trees.check_same(gradient, method.init(THETA), "gradient")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert {k: v.shape for k, v in metrics.items()} == {
        "query_loss": (), "distance": (), "support_losses": (0 if name == "multitask" else 2,),
    }  # fmt: skip
    assert trees.digest(run(method, tasks)[0]) == trees.digest(gradient)
    assert trees.digest(run(method, tasks, key=jax.random.key(9))[0]) != trees.digest(gradient)

    close(run(METHODS[name](loss_fn, micro_batch=2), tasks)[0], gradient)

    no_steps, _ = run(method, tasks_of(0))
    plain, _ = run(standard("multitask"), tasks_of(2))
    expected = jax.tree.map(jnp.zeros_like, THETA) if name == "reptile" else plain["theta"]
    close(no_steps["theta"], expected)


@every_method
def test_descending_the_gradient_lowers_the_loss_after_adaptation(name):
    method, tasks = standard(name), tasks_of(2)
    # Reptile descends the support loss only; give it the query as support.
    if name == "reptile":
        tasks = TaskBatch(jax.tree.map(lambda x: jnp.stack([x, x], axis=1), tasks.query), tasks.query)
    params = method.init(THETA)
    gradient, before = run(method, tasks)
    moved = axpy(-0.1, gradient, params)
    _, after = jit(method.gradient)(moved, tasks, KEY)
    assert after["query_loss"] < before["query_loss"]


@every_method
def test_one_long_adaptation_gives_every_shorter_one(name):
    method = standard(name)
    params = method.init(THETA)
    support = jax.tree.map(lambda x: x[0], tasks_of(4).support)
    adapt = jit(method.adapt, static_argnames="keep")
    long = adapt(params, support, KEY, keep=(0, 2, 4))
    short = adapt(params, jax.tree.map(lambda x: x[:2], support), KEY)
    close(jax.tree.map(lambda x: x[0], long.kept), THETA)
    close(jax.tree.map(lambda x: x[1], long.kept), short.theta)
    close(jax.tree.map(lambda x: x[2], long.kept), long.theta)
    close(long.losses[:2], short.losses)


def test_kept_steps_must_exist():
    support = jax.tree.map(lambda x: x[0], tasks_of(2).support)
    with pytest.raises(ValueError, match=r"keep=\(5,\).* 0\.\.2 only"):
        standard("fomaml").adapt({"theta": THETA}, support, KEY, keep=(5,))


def test_fomaml_is_the_plain_gradient_at_the_adapted_point():
    method, tasks = standard("fomaml"), tasks_of(3, tasks=1)
    support, query = jax.tree.map(lambda x: x[0], tuple(tasks))
    support_key, query_key = jax.random.split(jax.random.split(KEY, 1)[0])
    adapted = method.adapt(method.init(THETA), support, support_key).theta
    expected = jax.grad(loss_fn)(adapted, query, query_key)
    close(run(method, tasks)[0]["theta"], expected)


def test_learned_rates_at_their_start_are_sgd():
    for maml, rates in (("fomaml", "learned_rates_fo"), ("maml", "learned_rates")):
        close(run(standard(maml), tasks_of(2))[0]["theta"], run(standard(rates), tasks_of(2))[0]["theta"])


def test_query_loss_depends_on_the_inner_rate():
    losses = [run(meta.fomaml(loss_fn, optax.sgd(rate)), tasks_of(2))[1]["query_loss"] for rate in (0.0, 0.1, 0.5)]
    assert len(set(map(float, losses))) == 3


@pytest.mark.parametrize("name", ["anil", "anil_maml"])
def test_anil_adapts_the_head_alone_and_trains_all(name):
    method, tasks = standard(name), tasks_of(2)
    adapted = method.adapt(method.init(THETA), jax.tree.map(lambda x: x[0], tasks.support), KEY).theta
    np.testing.assert_array_equal(adapted["body"]["a"], THETA["body"]["a"])
    assert (adapted["head"]["a"] != THETA["head"]["a"]).all()
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(run(method, tasks)[0]["theta"]))


def test_masked_leaves_have_no_rates_and_a_mask_must_match():
    rates = meta.learned_rates(loss_fn, fast=["head/.*"]).init(THETA)["log_rates"]
    assert rates["body"]["a"] is None
    with pytest.raises(ValueError, match=r"'heads/\.\*' matches no leaf"):
        meta.anil(loss_fn, SGD, ["heads/.*"]).adapt({"theta": THETA}, tasks_of(1).support, KEY)


@pytest.mark.parametrize("name", ["maml", "learned_rates"])
def test_recomputing_equals_storing(name):
    stored, again = (run(METHODS[name](loss_fn, remat=remat), tasks_of(3))[0] for remat in (False, True))
    close(stored, again)


def test_recomputing_saves_memory():
    def temporaries(remat):
        method = METHODS["maml"](loss_fn, remat=remat)
        args = (method.init(THETA), tasks_of(20), KEY)
        return jax.jit(method.gradient).lower(*args).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(True) < temporaries(False)


def test_clipping_bounds_each_step():
    method = meta.fomaml(loss_fn, optax.sgd(1.0), max_norm=0.01)
    support = jax.tree.map(lambda x: x[0], tasks_of(1).support)
    moved = trees.sub(method.adapt({"theta": THETA}, support, KEY).theta, THETA)
    np.testing.assert_allclose(trees.global_norm(moved), 0.01, rtol=1e-4)


def test_clipping_at_a_zero_gradient_is_finite():
    def flat(theta, batch, key):
        return 0.0 * loss_fn(theta, batch, key)

    gradient, _ = run(meta.maml(flat, SGD, max_norm=1.0), tasks_of(2))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_same_draws_make_losses_comparable():
    """At rate 0 and on one repeated batch, every step's loss is the same if and only if the noise is."""
    support = jax.tree.map(lambda x: jnp.stack([x[0]] * 3), tasks_of(0).query)
    for same in (True, False):
        losses = meta.fomaml(loss_fn, optax.sgd(0.0), same_draws=same).adapt({"theta": THETA}, support, KEY).losses
        assert len(np.unique(losses)) == (1 if same else 3)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="micro_batch=3 does not divide the 4 tasks"):
        run(meta.fomaml(loss_fn, SGD, micro_batch=3), tasks_of(1))
    with pytest.raises(ValueError, match="start"):
        meta.learned_rates(loss_fn, start=0.0)
    with pytest.raises(ValueError, match="'row'; choose from tensor, layer, element"):
        meta.learned_rates(loss_fn, shared="row")
    with pytest.raises(TypeError, match="fats"):
        meta.fomaml(loss_fn, SGD, fats=["head/.*"])


@pytest.mark.parametrize(
    ("shared", "shapes"), [("tensor", [(), ()]), ("layer", [(), (3, 1, 1)]), ("element", [(4, 2), (3, 4, 2)])]
)
def test_what_shares_a_learned_rate(shared, shapes):
    theta = {"head": {"a": jnp.ones((4, 2))}, "layers": {"a": jnp.ones((3, 4, 2))}}
    rates = meta.learned_rates(loss_fn, shared=shared).init(theta)["log_rates"]
    assert [rate.shape for rate in jax.tree.leaves(rates)] == shapes


# Closed forms: L(theta; (c, H)) = (theta - c)' H (theta - c) / 2, so that the gradient is H (theta - c).

H = jnp.array([[2.0, 0.5], [0.5, 1.0]])
START = {"x": jnp.array([1.0, -2.0])}


def quadratic(theta, center, key):
    d = theta["x"] - center
    return 0.5 * d @ H @ d


def centers(steps):
    keys = jax.random.split(jax.random.key(4))
    support = jnp.broadcast_to(jax.random.normal(keys[0], (3, 1, 2)), (3, steps, 2))
    return TaskBatch(support, jax.random.normal(keys[1], (3, 2)))


def expected_adapted(tasks, steps):
    x = jnp.broadcast_to(START["x"][None], (3, 2))
    for j in range(steps):
        x = x - RATE * (x - tasks.support[:, j]) @ H
    return x


@pytest.mark.parametrize("steps", [1, 3])
def test_closed_forms(steps):
    tasks = centers(steps)
    x = expected_adapted(tasks, steps)
    query_gradient = (x - tasks.query) @ H
    shrink = jnp.linalg.matrix_power(jnp.eye(2) - RATE * H, steps)
    forms = {
        "fomaml": query_gradient.mean(0),
        "maml": (query_gradient @ shrink).mean(0),
        "reptile": (START["x"][None] - x).mean(0),
        "multitask": ((START["x"][None] - tasks.query) @ H).mean(0),
    }
    for name, form in forms.items():
        gradient, metrics = run(METHODS[name](quadratic), tasks, START)
        np.testing.assert_allclose(gradient["theta"]["x"], form, rtol=1e-5, err_msg=name)
        if name != "multitask":
            np.testing.assert_allclose(
                metrics["distance"], jnp.linalg.norm(x - START["x"][None], axis=1).mean(), rtol=1e-5
            )


def test_reptile_with_one_step_is_the_joint_gradient():
    tasks = centers(1)
    reptile, _ = run(METHODS["reptile"](quadratic), tasks, START)
    joint, _ = run(METHODS["multitask"](quadratic), TaskBatch(tasks.support, tasks.support[:, 0]), START)
    close(reptile["theta"], trees.scale(RATE, joint["theta"]))


def test_first_order_rate_gradient_closed_form():
    """With one step, d L / d log_rate = -rate (query gradient at the adapted point) . (support gradient)."""
    tasks = centers(1)
    gradient, _ = run(METHODS["learned_rates_fo"](quadratic), tasks, START)
    support_gradient = (START["x"][None] - tasks.support[:, 0]) @ H
    query_gradient = (expected_adapted(tasks, 1) - tasks.query) @ H
    expected = -RATE * jnp.sum(query_gradient * support_gradient, axis=1).mean()
    np.testing.assert_allclose(gradient["log_rates"]["x"], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["maml", "anil_maml", "learned_rates", "learned_rates_each", "maml_adam", "clipped"])
def test_finite_differences(name):
    """The whole meta-gradient, of theta and of the rates, against central differences of the query loss."""
    build = {**METHODS, "clipped": lambda loss: meta.maml(loss, SGD, max_norm=0.2)}[name]
    with jax.enable_x64(True):
        theta = jax.tree.map(lambda x: np.asarray(x, np.float64), THETA)
        tasks = jax.tree.map(lambda x: np.asarray(x, np.float64), tasks_of(3))
        method = build(loss_fn)
        params = jax.tree.map(jnp.asarray, method.init(theta))
        gradient, _ = run(method, tasks, theta)
        value = jit(lambda p: method.gradient(p, tasks, KEY)[1]["query_loss"])
        leaves, structure = jax.tree.flatten(params)
        random = [jax.random.normal(jax.random.key(i), leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
        direction = jax.tree.unflatten(structure, random)
        slope = (value(axpy(1e-5, direction, params)) - value(axpy(-1e-5, direction, params))) / 2e-5
        inner_product = sum(jnp.sum(g * d) for g, d in zip(jax.tree.leaves(gradient), random, strict=True))
        np.testing.assert_allclose(inner_product, slope, rtol=1e-6)


def test_memory_of_maml_is_flat_in_steps_with_rematerialisation():
    """Bytes of temporaries of the compiled gradient: without it, every step keeps its activations."""

    def temporaries(steps: int, remat: bool) -> int:
        def loss(theta, batch, key):
            hidden = batch
            for _ in range(4):
                hidden = jnp.tanh(hidden @ theta["w"])
            return jnp.square(hidden).mean()

        method = meta.maml(loss, optax.sgd(0.1), remat=remat)
        tasks = TaskBatch(jnp.ones((1, steps, 256, 16)), jnp.ones((1, 256, 16)))
        theta, key = {"w": jnp.eye(16)}, jax.random.key(0)
        compiled = jax.jit(method.gradient).lower({"theta": theta}, tasks, key).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    given = 4 * (256 * 16 + 16 * 16)  # a step's minibatch and theta
    assert temporaries(32, remat=True) - temporaries(2, remat=True) < 1.2 * 30 * given
    assert temporaries(32, remat=False) - temporaries(2, remat=False) > 4 * 30 * given
