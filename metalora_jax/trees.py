"""Small pytree algebra: arithmetic leaf by leaf, leaf names, a strict structure check and a content digest."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalora_jax.types import Array, PyTree

_PIECE = 2**24  # [bytes] digested at a time


def sub(x: PyTree, y: PyTree) -> PyTree:
    """x - y, leaf by leaf."""
    return jax.tree.map(lambda a, b: a - b, x, y)


def scale(factor: float | jax.Array, x: PyTree) -> PyTree:
    """factor * x, leaf by leaf."""
    return jax.tree.map(lambda a: factor * a, x)


def global_norm(x: PyTree) -> jax.Array:
    """Euclidean norm of all leaves together, a scalar; its gradient at x = 0 is zero, where a bare sqrt's is NaN."""
    squares = jnp.stack([jnp.zeros(()), *(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(x))])
    square = jnp.dot(squares, jnp.ones_like(squares))
    # Both branches of a `where` are differentiated: the sqrt must never see the 0 whose slope is infinite.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def clip_by_global_norm(x: PyTree, max_norm: float) -> PyTree:
    """x, scaled down to `global_norm(x) == max_norm` where it is longer; differentiable everywhere, at 0 too."""
    factor = jnp.minimum(1.0, max_norm / jnp.maximum(global_norm(x), max_norm))
    return scale(factor, x)


def index(x: PyTree, i: int | slice | Array) -> PyTree:
    """x[i] of every leaf."""
    return jax.tree.map(lambda a: a[i], x)


def named_leaves(tree: PyTree) -> Iterator[tuple[str, jax.Array]]:
    """(path, leaf) pairs in tree order; a path is the keys joined by "/", such as "expert/q_proj/a"."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def count(tree: PyTree) -> int:
    """Number of array elements."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def check_same(tree: PyTree, expected: PyTree, name: str = "tree", dtypes: bool = True) -> None:
    """Raises unless `tree` has exactly the paths, shapes and (with `dtypes`) dtypes of `expected`.

    Args:
      tree: arrays.
      expected: arrays or ShapeDtypeStructs.
      name: what to call `tree` in the message.
      dtypes: False accepts any dtype.

    Raises:
      ValueError: one line that names the first path, in sorted order, that is missing, unknown, misshapen or mistyped.
    """
    have, want = dict(named_leaves(tree)), dict(named_leaves(expected))
    for path in sorted(have.keys() | want.keys()):
        if path not in have:
            raise ValueError(f"{name}: missing {path!r}, expected {_describe(want[path])}")
        if path not in want:
            raise ValueError(f"{name}: unknown {path!r} of {_describe(have[path])}")
        fits = have[path].shape == want[path].shape and (not dtypes or have[path].dtype == want[path].dtype)
        if not fits:
            raise ValueError(f"{name}: {path!r} is {_describe(have[path])}, expected {_describe(want[path])}")
    # Paths can agree where containers do not: a tuple and a list, or a module left without leaves.
    have_structure, want_structure = str(jax.tree.structure(tree)), str(jax.tree.structure(expected))
    if have_structure != want_structure:
        raise ValueError(f"{name}: same leaves in other containers: {have_structure}, expected {want_structure}")


def digest(tree: PyTree) -> str:
    """SHA-256 (hex) over every leaf's path, dtype, shape and bytes: equal if and only if the content is bit-equal.

    Independent of insertion order, of the device and of whether a leaf is a NumPy or a JAX array.
    """
    sha = hashlib.sha256()
    for path, leaf in sorted(named_leaves(tree), key=lambda item: item[0]):
        array = leaf if getattr(leaf, "ndim", 0) and not isinstance(leaf, jax.Array) else np.asarray(leaf)
        sha.update(f"{path}\0{np.dtype(array.dtype).name}\0{tuple(array.shape)}\0".encode())
        for piece in _pieces(array):
            sha.update(np.ascontiguousarray(piece).tobytes())
    return sha.hexdigest()


def _pieces(array: Any) -> Iterator[Any]:
    """The array, some rows at a time where it is long: it may lie in a file."""
    if not array.ndim or not len(array):
        yield array
        return
    rows = max(1, _PIECE // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
    for first in range(0, len(array), rows):
        yield array[first : first + rows]


def _describe(leaf: jax.Array | jax.ShapeDtypeStruct) -> str:
    return f"{leaf.dtype.name}{list(leaf.shape)}"
