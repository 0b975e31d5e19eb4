"""One contract over single and stacked, scanned maps: attach, split, join, fuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from metalora_jax import adapters, trees
from metalora_jax.adapters import Dense, LoRA, Rule, ScaleShift
from tests.algebra import axpy

KEY = jax.random.key(0)
LAYERS = 3


class Block(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(4, 5, rngs=rngs)
        self.down = nnx.Linear(5, 4, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return x + self.down(jnp.tanh(self.up(x)))


class Toy(nnx.Module):
    """Linear maps in every place a policy may have them: an attribute, a list, a scanned stack."""

    def __init__(self, rngs):
        self.head = nnx.Linear(4, 2, bias_init=nnx.initializers.normal(0.5), rngs=rngs)
        self.list = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.layers = nnx.vmap(Block)(rngs.split(LAYERS))

    def __call__(self, x):
        for layer in self.list:
            x = layer(x)
        graph, state = nnx.split(self.layers)
        x, _ = jax.lax.scan(lambda x, layer: (nnx.merge(graph, layer)(x), None), x, state)
        return self.head(x)


PLACEMENTS = {
    "single": (Rule("head", LoRA(rank=2, alpha=3.0, b_std=0.5)),),
    "list": (Rule(r"list/\d", LoRA(rank=3, alpha=1.0, b_std=0.5)),),
    "stacked": (Rule("layers/.*", LoRA(rank=2, alpha=5.0, b_std=0.5)),),
    "all": (
        Rule("list/1", kind=None),
        Rule("layers/up", LoRA(rank=2, alpha=5.0, b_std=0.5)),
        Rule(".*", LoRA(rank=3, alpha=2.0, b_std=0.3, rslora=True)),
    ),
    "dense": (Rule("list/1", LoRA(rank=2, b_std=0.3)), Rule(".*", kind=Dense())),
    # layers/down has no bias to fold the shift into.
    "scale_shift": (Rule(r"head|list/\d|layers/up", kind=ScaleShift()),),
    "none": (),
}
X = jax.random.normal(jax.random.key(1), (6, 4))


@pytest.fixture(scope="module")
def plain():
    return Toy(nnx.Rngs(0))


@pytest.fixture(params=PLACEMENTS, scope="module")
def adapted(request, plain):
    return adapters.attach(plain, PLACEMENTS[request.param], KEY)


def apply(model, x=X):
    return nnx.jit(lambda m, x: m(x))(model, x)


def equal(tree, other):
    trees.check_same(tree, other)
    return trees.digest(tree) == trees.digest(other)


def loss_of(graph, phi, key=None):
    return lambda theta: jnp.mean(jnp.square(adapters.join(graph, theta, phi, key)(X)))


def test_paths_and_shapes(plain):
    assert adapters.linear_maps(plain) == {
        "head": (4, 2),
        "layers/down": (LAYERS, 5, 4),
        "layers/up": (LAYERS, 4, 5),
        "list/0": (4, 4),
        "list/1": (4, 4),
    }


def moved(model):
    """The adapted model with theta away from its start, which may equal the base."""
    graph, theta, phi = adapters.split(model)
    leaves, structure = jax.tree.flatten(theta)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    steps = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return adapters.join(graph, jax.tree.unflatten(structure, steps), phi)


def test_fused_equals_adapted(plain, adapted):
    adapted = moved(adapted) if adapters.split(adapted).theta else adapted
    fused = adapters.fuse(adapted)
    np.testing.assert_allclose(apply(fused), apply(adapted), rtol=1e-5, atol=1e-6)
    assert adapters.linear_maps(fused) == adapters.linear_maps(plain)
    assert jax.tree.structure(nnx.state(fused)) == jax.tree.structure(nnx.state(plain))
    if adapters.split(adapted).theta:
        assert np.abs(apply(adapted) - apply(plain)).max() > 1e-2


def test_update_is_alpha_over_rank_times_a_b(plain):
    model = adapters.attach(plain, PLACEMENTS["all"], KEY)
    theta = adapters.split(model).theta
    for path, scale in (("layers/up", 5 / 2), ("head", 2 / 3**0.5)):
        before, after = (nnx.to_pure_dict(nnx.state(m)) for m in (plain, adapters.fuse(model)))
        for part in path.split("/"):
            before, after = before[part], after[part]
        update = scale * np.asarray(theta[path]["a"]) @ np.asarray(theta[path]["b"])
        np.testing.assert_allclose(after["kernel"] - before["kernel"], update, atol=1e-6)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_a_scaled_adapter_lies_on_the_line_between_the_base_and_itself(plain, name):
    graph, theta, phi = adapters.split(moved(adapters.attach(plain, PLACEMENTS[name], KEY)))

    def at(factor):
        return adapters.join(graph, adapters.scaled(theta, PLACEMENTS[name], factor), phi)

    assert equal(adapters.split(at(1)).theta, theta)
    np.testing.assert_array_equal(apply(at(0)), apply(plain))
    half = adapters.fuse(at(0.5))
    np.testing.assert_allclose(apply(half), apply(at(0.5)), rtol=1e-5, atol=1e-6)
    weights = [nnx.to_pure_dict(nnx.state(model)) for model in (plain, half, adapters.fuse(at(1)))]
    for none, some, all_ in zip(*map(jax.tree.leaves, weights), strict=True):
        np.testing.assert_allclose(some, (none + all_) / 2, atol=1e-6)


def test_what_cannot_be_scaled_is_refused(plain):
    rules = (Rule("head", Gate()),)
    theta = adapters.split(adapters.attach(plain, rules, KEY)).theta
    with pytest.raises(ValueError, match="head: an adapter of kind 'gate' cannot be scaled"):
        adapters.scaled(theta, rules, 0.5)
    with pytest.raises(ValueError, match="theta has 'head', which no rule of the placement adapts"):
        adapters.scaled(theta, PLACEMENTS["list"], 0.5)
    with pytest.raises(ValueError, match=r"factor is 1\.5; it must lie between 0"):
        adapters.scaled(theta, rules, 1.5)


def test_split_and_join_are_inverse(adapted):
    graph, theta, phi = adapters.split(adapted)
    model = adapters.join(graph, theta, phi)
    again = adapters.split(model)
    assert again.graph == graph
    assert hash(again.graph) == hash(graph)
    assert equal(again.theta, theta)
    assert equal(again.phi, phi)
    np.testing.assert_array_equal(apply(model), apply(adapted))


def test_the_parts_hold_what_they_should(plain, adapted):
    _, theta, phi = adapters.split(adapted)
    assert trees.count(phi) == trees.count(nnx.to_pure_dict(nnx.state(plain)))
    count = adapters.count(theta)
    assert count.total == sum(count.per_module.values()) == trees.count(theta)
    # A filter for ordinary parameters must not catch theta.
    assert trees.count(nnx.state(adapted, nnx.Param)) == trees.count(phi)


def test_scale_and_shift_are_of_each_output(plain):
    graph, theta, phi = adapters.split(adapters.attach(plain, (Rule("head|layers/.*", ScaleShift()),), KEY))
    assert adapters.count(theta) == (58, {"head": 4, "layers/down": LAYERS * 2 * 4, "layers/up": LAYERS * 2 * 5})
    np.testing.assert_array_equal(apply(adapters.join(graph, theta, phi)), apply(plain))
    theta["head"] = {"scale": jnp.array([[-0.5, 2.0]]), "shift": jnp.array([[3.0, 0.0]])}
    expected = apply(plain) * jnp.array([[0.5, 3.0]]) + jnp.array([[3.0, 0.0]])
    np.testing.assert_allclose(apply(adapters.join(graph, theta, phi)), expected, rtol=1e-6)


def test_a_shift_is_not_folded_into_a_map_without_a_bias(plain):
    model = adapters.attach(plain, (Rule("layers/.*", ScaleShift()),), KEY)
    with pytest.raises(ValueError, match="layers/down: ScaleShiftLinear cannot be fused; act with it unfused"):
        adapters.fuse(model)


def test_count(plain):
    theta = adapters.split(adapters.attach(plain, PLACEMENTS["stacked"], KEY)).theta
    assert adapters.count(theta) == (LAYERS * 2 * 2 * (4 + 5), {"layers/down": 54, "layers/up": 54})


def test_zero_b_starts_at_the_base(plain):
    model = adapters.attach(plain, (Rule(".*"),), KEY)
    np.testing.assert_array_equal(apply(model), apply(plain))


def test_attach_leaves_its_argument_alone_and_is_seeded(plain):
    before = trees.digest(nnx.to_pure_dict(nnx.state(plain)))
    first, second, other = (adapters.split(adapters.attach(plain, PLACEMENTS["all"], k)).theta for k in
                            (KEY, KEY, jax.random.key(7)))  # fmt: skip
    assert trees.digest(nnx.to_pure_dict(nnx.state(plain))) == before
    assert equal(first, second)
    assert not equal(first, other)
    alone = adapters.split(adapters.attach(plain, PLACEMENTS["all"][1:2], KEY)).theta
    assert equal(alone["layers/up"], first["layers/up"])
    bound = 4**-0.5
    a = np.asarray(first["layers/up"]["a"])
    assert bound * 0.8 < np.abs(a).max() <= bound
    assert not np.allclose(a[0], a[1])


def test_training_moves_theta_and_never_phi(adapted):
    graph, theta, phi = adapters.split(adapted)
    before = trees.digest(phi)
    optimizer = optax.adam(0.1)

    @jax.jit
    def step(theta, state, phi):
        gradient = jax.grad(loss_of(graph, phi))(theta)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(theta, updates), state, phi

    state, moved = optimizer.init(theta), theta
    for _ in range(3):
        moved, state, phi = step(moved, state, phi)
    assert trees.digest(adapters.split(adapters.join(graph, moved, phi)).phi) == before
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), moved, theta)
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize("name", ["all", "scale_shift"])
def test_composes_with_vmap_over_tasks_and_second_order_gradients(plain, name):
    graph, theta, phi = adapters.split(moved(adapters.attach(plain, PLACEMENTS[name], KEY)))
    loss = loss_of(graph, phi)
    tasks = jax.tree.map(lambda x: jnp.stack([x, x / 2]), theta)

    def after_a_step(theta):
        return loss(axpy(-0.01, jax.grad(jax.checkpoint(loss))(theta), theta))

    batched = jax.jit(jax.vmap(jax.grad(after_a_step)))(tasks)
    one = jax.jit(jax.grad(after_a_step))(jax.tree.map(lambda x: x[1], tasks))
    jax.tree.map(lambda b, o: np.testing.assert_allclose(b[1], o, rtol=1e-4, atol=1e-5), batched, one)


def test_graph_is_static_under_jit(adapted):
    parts = adapters.split(adapted)
    out = jax.jit(lambda parts: adapters.join(*parts)(X))(parts)
    np.testing.assert_allclose(out, apply(adapted), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def parts(plain):
    rules = (Rule("head", LoRA(dropout=0.5, b_std=1.0)), Rule("layers/up", LoRA(dropout=0.5, b_std=1.0)))
    return adapters.split(adapters.attach(plain, rules, KEY))


def test_dropout_key_decides(parts):
    def out(key):
        return jax.jit(lambda theta: adapters.join(parts.graph, theta, parts.phi, key)(X))(parts.theta)

    np.testing.assert_array_equal(out(KEY), out(KEY))
    np.testing.assert_array_equal(out(None), out(None))
    assert np.abs(out(KEY) - out(None)).max() > 1e-3
    assert np.abs(out(KEY) - out(jax.random.key(5))).max() > 1e-3


def test_dropout_expectation_is_the_deterministic_map(parts):
    """The head is linear, so with layers' dropout off the mean over keys is the output without dropout."""
    head = adapters.attach(Toy(nnx.Rngs(0)), (Rule("head", LoRA(dropout=0.3, b_std=1.0)),), KEY)
    graph, theta, phi = adapters.split(head)
    keys = jax.random.split(KEY, 4000)
    outs = jax.jit(jax.vmap(lambda k: adapters.join(graph, theta, phi, k)(X)))(keys)
    error = np.asarray(outs.std(0) / len(keys) ** 0.5)
    assert (np.abs(outs.mean(0) - apply(head)) < 5 * error + 1e-5).all()


def test_dropout_every_layer_of_a_stack_drops_its_own(parts):
    model = adapters.join(*parts, dropout_key=KEY)
    keys = jax.random.key_data(model.layers.up.dropout_key[...])
    assert len(np.unique(np.asarray(keys), axis=0)) == LAYERS


def test_dropout_gradient_under_vmap_over_tasks(parts):
    keys = jax.random.split(KEY, 2)
    gradient = jax.vmap(lambda key: jax.grad(loss_of(parts.graph, parts.phi, key))(parts.theta))(keys)
    assert not np.allclose(gradient["head"]["b"][0], gradient["head"]["b"][1])


def test_split_refuses_a_model_with_keys(parts):
    with pytest.raises(ValueError, match="dropout keys"):
        adapters.split(adapters.join(*parts, dropout_key=KEY))


@pytest.mark.parametrize("b_std", [0.0, 0.5])
def test_dead_adapters_are_found_layer_by_layer(plain, b_std):
    graph, theta, phi = adapters.split(adapters.attach(plain, (Rule("head|layers/.*", LoRA(b_std=b_std)),), KEY))

    def loss(theta):
        """Reads the first layer alone: neither the others nor the head."""
        graph_of_layers, state = nnx.split(adapters.join(graph, theta, phi).layers)
        return jnp.sum(nnx.merge(graph_of_layers, jax.tree.map(lambda x: x[0], state))(X))

    dead = ["head", "layers/down[1]", "layers/down[2]", "layers/up[1]", "layers/up[2]"]
    assert adapters.dead_adapters(jax.jit(jax.grad(loss))(theta)) == dead


def test_bad_theta_is_refused_by_name(plain):
    graph, theta, phi = adapters.split(adapters.attach(plain, PLACEMENTS["stacked"], KEY))
    with pytest.raises(ValueError, match="theta: missing 'layers/up/a'"):
        adapters.join(graph, {"layers/down": theta["layers/down"]}, phi)
    with pytest.raises(ValueError, match=r"theta: 'layers/up/a' is float32\[4, 2\], expected float32\[3, 4, 2\]"):
        adapters.join(graph, {**theta, "layers/up": jax.tree.map(lambda x: x[0], theta["layers/up"])}, phi)


def test_attaching_twice_or_to_a_shared_map_is_refused(plain):
    with pytest.raises(ValueError, match="adapters already"):
        adapters.attach(adapters.attach(plain, PLACEMENTS["single"], KEY), PLACEMENTS["single"], KEY)
    shared = Toy(nnx.Rngs(0))
    shared.list[1] = shared.list[0]
    with pytest.raises(ValueError, match="list/0: this map is used in 2 places"):
        adapters.attach(shared, (Rule("list/0"),), KEY)


def test_bfloat16_base_keeps_its_dtype_and_float32_adapters():
    base = nnx.Linear(4, 4, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    model = adapters.attach(nnx.Sequential(base), (Rule(".*", LoRA(b_std=0.5)),), KEY)
    theta = adapters.split(model).theta
    assert {leaf.dtype.name for leaf in jax.tree.leaves(theta)} == {"float32"}
    assert model(X).dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", [LoRA(b_std=1e-4), Dense(), ScaleShift()])
def test_a_small_update_is_folded_into_a_bfloat16_kernel_whole(kind):
    base = nnx.Linear(4, 4, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))  # activations are float32
    model = adapters.attach(nnx.Sequential(base), (Rule(".*", kind),), KEY)
    graph, theta, phi = adapters.split(model)
    theta = jax.tree.map(lambda leaf: leaf + 1e-4, theta)
    model = adapters.join(graph, theta, phi)
    fused = adapters.fuse(model)
    assert fused.layers[0].kernel.dtype == jnp.float32
    change = model(X) - base(X)
    assert 0 < np.abs(change).max() < 1e-2
    np.testing.assert_allclose(fused(X) - base(X), change, atol=1e-2 * float(np.abs(change).max()))


@pytest.mark.parametrize("kind", [LoRA(b_std=0.5), Dense(), ScaleShift()])
def test_fusing_into_an_integer_kernel_is_refused(plain, kind):
    model = adapters.attach(plain, (Rule("head", kind),), KEY)
    model.head.base.kernel = nnx.Param(jnp.ones((4, 2), jnp.int8))
    with pytest.raises(ValueError, match="head: an adapter cannot be folded into a kernel of int8"):
        adapters.fuse(model)


class Gated(adapters.Adapter):
    """An adapter that depends on its input, and that has a loss term of its own."""

    def __init__(self, base, start):
        self.base, self.gate = base, adapters.AdapterParam(jnp.full((*base.kernel.shape[:-2], 1, 1), start))

    def __call__(self, x):
        return self.base(x) * (1 + jnp.tanh(self.gate[...].squeeze() * x.mean()))

    def parts(self):
        return {"gate": self.gate}

    def penalty(self):
        return jnp.sum(jnp.square(self.gate[...]))


@dataclasses.dataclass(frozen=True)
class Gate(adapters.Kind):
    name = "gate"
    start: float = 0.5

    def adapt(self, base, key):
        return Gated(base, self.start)

    def __str__(self):
        return self.name


def test_a_kind_of_ones_own_needs_no_other_file(plain):
    model = adapters.attach(plain, (Rule("head|layers/up", Gate()),), KEY)
    graph, theta, phi = adapters.split(model)
    np.testing.assert_array_equal(apply(adapters.join(graph, theta, phi)), apply(model))
    assert np.abs(apply(model) - apply(plain)).max() > 1e-3
    with pytest.raises(ValueError, match="head: Gated cannot be fused; act with it unfused"):
        adapters.fuse(model)
    np.testing.assert_allclose(adapters.penalty(model), 0.25 * (1 + LAYERS))
    assert adapters.penalty(adapters.attach(plain, PLACEMENTS["all"], KEY)) is None
