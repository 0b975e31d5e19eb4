"""Meta-SGD (Li et al. 2017): the outer loop learns the start and the learning rate of each part of it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metalora_jax.meta import inner
from metalora_jax.meta.base import LossFn, MetaMethod, MetaParams
from metalora_jax.meta.maml import bilevel
from metalora_jax.types import PyTree

SHARED = ("tensor", "layer", "element")


def learned_rates(
    loss_fn: LossFn,
    direction: optax.GradientTransformation | None = None,
    *,
    start: float = 0.1,
    shared: str = "tensor",
    first_order: bool = False,
    remat: bool = True,
    micro_batch: int | None = None,
    **options: Any,
) -> MetaMethod:
    """theta_{j+1} = theta_j - exp(log_rate) * direction, with log_rate learned: rates stay positive.

    Args:
      loss_fn: (theta, batch, key) -> scalar.
      direction: optax transform of the gradient without a rate of its own, such as
        `optax.scale_by_adam(eps_root=1e-8)`; None is the gradient itself.
      start: the initial value of every rate, positive.
      shared: what shares one rate: a whole "tensor"; each matrix, "layer", of a stacked tensor (*layers, m, n);
        or nothing, "element", as in Li et al. (where a rate may also be negative).
      first_order: drop second derivatives of the loss; the rates still get their exact gradient for given directions.
      remat, micro_batch, **options: as for `maml`.
    """
    if not start > 0:
        raise ValueError(f"start must be a positive learning rate, not {start}")
    if shared not in SHARED:
        raise ValueError(f"a rate cannot be shared by {shared!r}; choose from {', '.join(SHARED)}")
    direction = optax.identity() if direction is None else direction
    inner_options = inner.InnerOptions(**options)

    def optimizer_of(meta_params: MetaParams) -> optax.GradientTransformation:
        return optax.chain(direction, descend(meta_params["log_rates"]))

    def init(theta: PyTree) -> MetaParams:
        fast, _ = inner.partition(theta, inner_options.fast)

        def log_rate(leaf: jax.Array) -> jax.Array:
            matrices = (*leaf.shape[:-2], 1, 1) if leaf.ndim > 2 else ()
            shape = {"tensor": (), "layer": matrices, "element": leaf.shape}[shared]
            return jnp.full(shape, math.log(start), leaf.dtype)

        return {"theta": theta, "log_rates": jax.tree.map(log_rate, fast)}

    method = bilevel(loss_fn, optimizer_of, first_order, remat, micro_batch, inner_options)
    return method._replace(init=init)


def descend(log_rates: PyTree) -> optax.GradientTransformation:
    """The inner optimiser of learned rates: -exp(log_rates) * update, leaf by leaf."""

    def update(updates: PyTree, state: optax.OptState, params: PyTree = None) -> tuple[PyTree, optax.OptState]:
        return jax.tree.map(lambda u, r: -jnp.exp(r) * u, updates, log_rates), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)
