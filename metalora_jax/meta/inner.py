"""The inner loop: K gradient steps on one task, as one `lax.scan`."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalora_jax import trees
from metalora_jax.meta.base import AdaptResult, LossFn
from metalora_jax.types import PyTree


class InnerOptions(NamedTuple):
    """How an inner loop runs, in all methods."""

    fast: Sequence[str] | None = None  # regexes over whole leaf paths ("expert/q_proj/a"); None adapts all of theta
    max_norm: float | None = None  # clips every step's gradient to this global norm
    same_draws: bool = False  # every step sees the same random key, so that losses along the way can be compared


DEFAULT = InnerOptions()


def adapt(
    loss_fn: LossFn,
    theta: PyTree,
    batches: PyTree,
    key: jax.Array,
    optimizer: optax.GradientTransformation,
    options: InnerOptions = DEFAULT,
    *,
    first_order: bool = True,
    remat: bool = False,
    keep: tuple[int, ...] = (),
    first: int | jax.Array = 0,
    state: optax.OptState | None = None,
) -> AdaptResult:
    """Runs one optimiser step for each minibatch.

    Args:
      loss_fn: (theta, batch, key) -> scalar.
      theta: the start; leaves that the mask excludes are neither updated nor differentiated.
      batches: leaves (K, ...).
      key: step j draws from fold_in(key, first + j).
      optimizer: any optax transform. It may close over traced values (learned rates).
      options: mask, clipping and noise.
      first_order: treats the gradients as constants when the result is differentiated (FOMAML); False keeps their
        derivative (MAML).
      remat: stores only theta of a differentiated step and recomputes the rest, see `_value_and_grad`.
      keep: step counts in 0..K at which theta is returned as well.
      first, state: to go on where another call ended: the steps before it, and the optimiser's state that it returned
        (`initial_state` before the first). None starts the optimiser afresh.

    Returns:
      theta after K steps, the K losses, the kept thetas, and the optimiser's state.
    """
    steps = jax.tree.leaves(batches)[0].shape[0]
    if not all(0 <= step <= steps for step in keep):
        raise ValueError(f"keep={keep}: the support set has minibatches for steps 0..{steps} only")
    fast, slow = partition(theta, options.fast)
    wanted = jnp.asarray(keep, jnp.int32)
    value_and_grad = _value_and_grad(loss_fn, remat and not first_order)

    def one_step(carry: tuple[PyTree, optax.OptState, PyTree], step: tuple[jax.Array, PyTree]) -> tuple:
        fast, state, kept = carry
        j, batch = step
        # Stopping theta, rather than its gradient, saves the derivative of the whole loss and its memory.
        at, rest = jax.lax.stop_gradient((fast, slow)) if first_order else (fast, slow)
        step_key = key if options.same_draws else jax.random.fold_in(key, first + j)
        loss, gradient = value_and_grad(at, rest, batch, step_key)
        if options.max_norm is not None:
            gradient = trees.clip_by_global_norm(gradient, options.max_norm)
        updates, state = optimizer.update(gradient, state, at)
        fast = optax.apply_updates(fast, updates)
        return (fast, state, _put_where(kept, fast, wanted == j + 1)), loss

    def start(leaf: jax.Array) -> jax.Array:
        return jnp.broadcast_to(leaf[None], (len(keep), *leaf.shape))

    carry = (fast, optimizer.init(fast) if state is None else state, jax.tree.map(start, fast))
    losses: jax.Array
    (fast, state, kept), losses = jax.lax.scan(one_step, carry, (jnp.arange(steps), batches))
    return AdaptResult(combine(fast, slow), losses, combine(kept, jax.tree.map(start, slow)), state)


def initial_state(theta: PyTree, optimizer: optax.GradientTransformation, options: InnerOptions = DEFAULT) -> PyTree:
    """The optimiser's state before the first step, for an `adapt` that is run in parts."""
    return optimizer.init(partition(theta, options.fast)[0])


def _value_and_grad(loss_fn: LossFn, remat: bool) -> Callable[[PyTree, PyTree, PyTree, jax.Array], tuple]:
    """(fast, slow, batch, key) -> the loss and its gradient with respect to `fast`.

    With `remat` its derivative is taken forward over reverse: the Hessian is symmetric, so the product that the chain
    rule asks for is the gradient's derivative along the cotangent. That recomputes the step from its theta, so memory
    does not grow with K times the activations, and avoids the transpose of a backward pass, which is what makes
    reverse over reverse slow (Kemaev et al. 2025, "MixFlow-MG", arXiv:2505.00793). What `loss_fn` closes over is
    constant: no derivative reaches it.
    """

    def loss(fast: PyTree, slow: PyTree, batch: PyTree, key: jax.Array) -> jax.Array:
        return loss_fn(combine(fast, slow), batch, key)

    if not remat:
        return jax.value_and_grad(loss)

    def value_and_grad(*args: PyTree) -> tuple:
        pure, closed_over = jax.closure_convert(loss, *args)  # a function with a rule may not close over traced values
        return _with_forward_over_reverse(pure)(*args, *closed_over)

    return value_and_grad


def _with_forward_over_reverse(loss: Callable[..., jax.Array]) -> Callable[..., tuple]:
    value_and_grad = jax.custom_vjp(jax.value_and_grad(loss))

    def forward(*args: PyTree) -> tuple:
        return value_and_grad(*args), args

    def backward(args: tuple, cotangents: tuple[jax.Array, PyTree]) -> tuple:
        fast, *others = args
        loss_cotangent, direction = cotangents
        gradients, products = jax.jvp(lambda f: jax.grad(loss, argnums=(0, 1))(f, *others), (fast,), (direction,))
        for_theta = jax.tree.map(lambda g, p: loss_cotangent * g + p, gradients, products)
        return *for_theta, *(None for _ in others[1:])

    value_and_grad.defvjp(forward, backward)
    return value_and_grad


def partition(theta: PyTree, fast: Sequence[str] | None) -> tuple[PyTree, PyTree]:
    """(fast, slow): both of theta's structure, with None in place of leaves that belong to the other.

    Args:
      theta: the tree.
      fast: regular expressions; a leaf is fast if one matches its full path. None: all are fast.

    Raises:
      ValueError: if an expression matches no leaf.
    """
    if fast is None:
        return theta, jax.tree.map(lambda _: None, theta)
    paths = [path for path, _ in trees.named_leaves(theta)]
    for pattern in fast:
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise ValueError(
                f"fast pattern {pattern!r} matches no leaf of theta, such as {paths[0] if paths else None!r}"
            )
    structure = jax.tree.structure(theta)
    is_fast = jax.tree.unflatten(structure, [any(re.fullmatch(pattern, path) for pattern in fast) for path in paths])
    return (
        jax.tree.map(lambda yes, leaf: leaf if yes else None, is_fast, theta),
        jax.tree.map(lambda yes, leaf: None if yes else leaf, is_fast, theta),
    )


def combine(fast: PyTree, slow: PyTree) -> PyTree:
    """The inverse of `partition`."""
    return jax.tree.map(lambda f, s: s if f is None else f, fast, slow, is_leaf=lambda x: x is None)


def _put_where(kept: PyTree, theta: PyTree, hit: jax.Array) -> PyTree:
    """`kept`, leaves (len(hit), ...), with theta in the rows where `hit` is True."""
    return jax.tree.map(lambda k, t: jnp.where(hit.reshape((-1,) + (1,) * t.ndim), t[None], k), kept, theta)
