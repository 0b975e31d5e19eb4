"""The interface of every meta-method: a NamedTuple of three pure functions, independent of robot and model."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from metalora_jax import trees
from metalora_jax.types import PyTree, TaskBatch

LossFn = Callable[[PyTree, PyTree, jax.Array], jax.Array]
"""(theta, batch, key) -> scalar loss of one minibatch; the frozen weights and the model are closed over."""

MetaParams = dict[str, PyTree]
"""What the outer optimiser updates: {"theta": ...}, and for learned rates {"log_rates": ...} as well."""

Metrics = dict[str, jax.Array]


class AdaptResult(NamedTuple):
    """The result of K inner steps."""

    theta: PyTree  # after the last step
    losses: jax.Array  # (K,), each before its step
    kept: PyTree  # theta after the requested steps, leaves (len(keep), ...)
    state: PyTree = None  # the inner optimiser's, after the last step


class AdaptFn(Protocol):
    """K inner steps, from the meta-parameters to one task."""

    def __call__(
        self, meta_params: MetaParams, support: PyTree, key: jax.Array, keep: tuple[int, ...] = ()
    ) -> AdaptResult:
        """Adapts.

        Args:
          meta_params: the start, as `init` or the outer optimiser gives it.
          support: minibatches, leaves (K, ...), one for each step. K may exceed the K of meta-training.
          key: for the noise of all steps; step j draws the same noise for every K.
          keep: step counts in 0..K at which to return theta as well: one long run gives a whole curve.
        """


class MetaMethod(NamedTuple):
    """A meta-learner over `LossFn`. All functions are pure and may be jitted."""

    init: Callable[[PyTree], MetaParams]  # theta -> what the outer optimiser updates
    adapt: AdaptFn
    gradient: Callable[[MetaParams, TaskBatch, jax.Array], tuple[MetaParams, Metrics]]
    """(meta_params, tasks, key) -> a (pseudo-)gradient to descend, and metrics: query_loss, a scalar after adaptation;
    support_losses, (K,) on the way there; distance, the norm of the mean task's movement; all means over tasks."""


TaskGradient = Callable[[MetaParams, PyTree, PyTree, jax.Array], tuple[MetaParams, Metrics]]
"""(meta_params, support, query, key) -> gradient and metrics of one task."""


def over_tasks(one_task: TaskGradient, micro_batch: int | None = None) -> Callable[..., tuple[MetaParams, Metrics]]:
    """Lifts a gradient from one task to the mean over a TaskBatch.

    Args:
      one_task: gradient and metrics of one task.
      micro_batch: how many tasks are computed at a time; limits memory without changing the result. None: all at once.

    Raises:
      ValueError: if micro_batch does not divide the number of tasks.
    """

    def gradient(meta_params: MetaParams, tasks: TaskBatch, key: jax.Array) -> tuple[MetaParams, Metrics]:
        count = jax.tree.leaves(tasks.query)[0].shape[0]
        size = micro_batch or count
        if size < 1 or count % size:
            raise ValueError(
                f"micro_batch={micro_batch} does not divide the {count} tasks of the meta-batch; change one of them"
            )

        def group_mean(group: tuple[PyTree, PyTree, jax.Array]) -> tuple[MetaParams, Metrics]:
            results = jax.vmap(lambda task: one_task(meta_params, *task))(group)
            return jax.tree.map(lambda x: jnp.mean(x, axis=0), results)

        each = (tasks.support, tasks.query, jax.random.split(key, count))
        if size == count:
            return group_mean(each)
        groups = jax.tree.map(lambda x: x.reshape(count // size, size, *x.shape[1:]), each)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.lax.map(group_mean, groups))

    return gradient


def task_metrics(theta: PyTree, result: AdaptResult, query_loss: jax.Array) -> Metrics:
    """The metrics that all methods report for one task."""
    distance = trees.global_norm(trees.sub(result.theta, theta))
    return {"query_loss": query_loss, "support_losses": result.losses, "distance": distance}
