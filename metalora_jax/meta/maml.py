"""MAML (Finn et al. 2017): the gradient of the query loss after adaptation, through the adaptation."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from metalora_jax.meta import inner
from metalora_jax.meta.base import AdaptResult, LossFn, MetaMethod, MetaParams, Metrics, over_tasks, task_metrics
from metalora_jax.types import PyTree


def maml(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    first_order: bool = False,
    remat: bool = True,
    micro_batch: int | None = None,
    **options: Any,
) -> MetaMethod:
    """Minimises the mean of L(theta_K; query) over theta, where theta_K results from K steps on the support.

    At an inner rate too large for the curvature, many steps are a chaotic map and their derivative explodes, where
    FOMAML still learns: if the gradient's norm is far above `fomaml`'s before the first update, lower the rate.

    Args:
      loss_fn: (theta, batch, key) -> scalar.
      optimizer: of the inner loop. To differentiate twice through Adam give it an `eps_root` > 0: the slope of
        sqrt(v) is infinite where an adapter has no gradient yet.
      first_order: drops the derivative of the inner gradients; see `fomaml`.
      remat: recomputes inner steps in the backward pass, see `inner.adapt`; faster, with constant memory.
      micro_batch: tasks computed at a time.
      **options: of the inner loop, see `inner.InnerOptions`.
    """
    return bilevel(loss_fn, lambda _: optimizer, first_order, remat, micro_batch, inner.InnerOptions(**options))


def bilevel(
    loss_fn: LossFn,
    optimizer_of: Callable[[MetaParams], optax.GradientTransformation],
    first_order: bool,
    remat: bool,
    micro_batch: int | None,
    options: inner.InnerOptions,
) -> MetaMethod:
    """The gradient of the query loss after adaptation, with respect to all meta-parameters.

    Args:
      loss_fn: (theta, batch, key) -> scalar.
      optimizer_of: meta_params -> the inner optimiser, which may depend on them (learned rates).
      first_order, remat, micro_batch, options: as in `maml`.
    """

    def adapt(meta_params: MetaParams, support: PyTree, key: jax.Array, keep: tuple[int, ...] = ()) -> AdaptResult:
        return inner.adapt(
            loss_fn,
            meta_params["theta"],
            support,
            key,
            optimizer_of(meta_params),
            options,
            first_order=first_order,
            remat=remat,
            keep=keep,
        )

    def one_task(meta_params: MetaParams, support: PyTree, query: PyTree, key: jax.Array) -> tuple[MetaParams, Metrics]:
        support_key, query_key = jax.random.split(key)

        def objective(meta_params: MetaParams) -> tuple[jax.Array, AdaptResult]:
            result = adapt(meta_params, support, support_key)
            return loss_fn(result.theta, query, query_key), result

        (loss, result), gradient = jax.value_and_grad(objective, has_aux=True)(meta_params)
        return gradient, task_metrics(meta_params["theta"], result, loss)

    return MetaMethod(lambda theta: {"theta": theta}, adapt, over_tasks(one_task, micro_batch))
