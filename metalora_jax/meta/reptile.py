"""Reptile (Nichol et al. 2018): moves the start towards the tasks' adapted parameters."""

from typing import Any

import jax
import optax

from metalora_jax import trees
from metalora_jax.meta.base import LossFn, MetaMethod, MetaParams, Metrics, over_tasks, task_metrics
from metalora_jax.meta.fomaml import fomaml
from metalora_jax.types import PyTree


def reptile(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, *, micro_batch: int | None = None, **options: Any
) -> MetaMethod:
    """The pseudo-gradient theta - theta_K: SGD at rate beta on it is theta += beta mean(theta_K - theta).

    The query batch is used only for the metric, never for the gradient. Options as for `fomaml`.
    """
    base = fomaml(loss_fn, optimizer, **options)

    def one_task(meta_params: MetaParams, support: PyTree, query: PyTree, key: jax.Array) -> tuple[MetaParams, Metrics]:
        support_key, query_key = jax.random.split(key)
        result = base.adapt(meta_params, support, support_key)
        theta = meta_params["theta"]
        metrics = task_metrics(theta, result, loss_fn(result.theta, query, query_key))
        return {"theta": trees.sub(theta, result.theta)}, metrics

    return base._replace(gradient=over_tasks(one_task, micro_batch))
