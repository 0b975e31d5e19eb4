import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalora_jax import trees

TREE = {"q_proj": {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}, "empty": {}}


def test_algebra():
    ones = jax.tree.map(jnp.ones_like, TREE)
    np.testing.assert_array_equal(trees.sub(TREE, ones)["q_proj"]["b"], np.zeros(3))
    np.testing.assert_array_equal(trees.scale(3.0, TREE)["q_proj"]["b"], 3 * np.ones(3))
    np.testing.assert_allclose(trees.global_norm(TREE), np.sqrt(55 + 3))
    assert trees.global_norm({}) == 0
    assert trees.count(TREE) == 9
    np.testing.assert_array_equal(trees.index(TREE, 1)["q_proj"]["b"], 1.0)


def test_clip():
    clipped = trees.clip_by_global_norm(TREE, 0.5)
    np.testing.assert_allclose(trees.global_norm(clipped), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(trees.clip_by_global_norm(TREE, 100.0)["q_proj"]["a"], TREE["q_proj"]["a"])


@pytest.mark.parametrize("fn", [trees.global_norm, lambda t: trees.clip_by_global_norm(t, 1.0)["x"].sum()])
def test_gradient_at_zero_is_finite(fn):
    zero = {"x": jnp.zeros(3)}
    for transform in (jax.grad(fn), jax.jacfwd(jax.grad(fn))):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(transform(zero)))


def test_paths():
    assert [path for path, _ in trees.named_leaves(TREE)] == ["q_proj/a", "q_proj/b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": TREE["q_proj"]["a"]}, r"theta: missing 'q_proj/b', expected float32\[3\]"),
        ({**TREE["q_proj"], "c": jnp.ones(())}, r"theta: unknown 'q_proj/c' of float32\[\]"),
        ({**TREE["q_proj"], "b": jnp.ones(4)}, r"theta: 'q_proj/b' is float32\[4\], expected float32\[3\]"),
        ({**TREE["q_proj"], "b": jnp.ones(3, jnp.int32)}, r"theta: 'q_proj/b' is int32\[3\], expected float32\[3\]"),
    ],
)
def test_check_names_the_first_difference(change, message):
    with pytest.raises(ValueError, match=message):
        trees.check_same({**TREE, "q_proj": change}, TREE, "theta")


def test_check_accepts_shapes_for_arrays_and_refuses_other_containers():
    trees.check_same(TREE, jax.eval_shape(lambda: TREE))
    trees.check_same({"x": np.ones(2, np.float16)}, {"x": jnp.ones(2)}, dtypes=False)
    with pytest.raises(ValueError, match="other containers"):
        trees.check_same([jnp.ones(2)], (jnp.ones(2),))
    with pytest.raises(ValueError, match="other containers"):
        trees.check_same({"q_proj": TREE["q_proj"]}, TREE)


def test_digest_is_of_the_content():
    digest = trees.digest(TREE)
    assert digest == trees.digest(jax.tree.map(np.asarray, dict(reversed(TREE.items()))))
    flipped = TREE["q_proj"]["b"].at[1].set(jnp.nextafter(jnp.float32(1), jnp.float32(2)))
    others = [
        {"q_proj": {**TREE["q_proj"], "b": flipped}},
        {"q_proj": {**TREE["q_proj"], "b": jnp.ones(3, jnp.float16)}},
        {"q_proj": {**TREE["q_proj"], "a": TREE["q_proj"]["a"].reshape(3, 2)}},
        {"k_proj": TREE["q_proj"]},
    ]
    assert len({digest, *map(trees.digest, others)}) == 5
    # The same bytes, of another type.
    assert trees.digest({"x": np.zeros(3, np.float32)}) != trees.digest({"x": np.zeros(3, np.int32)})
