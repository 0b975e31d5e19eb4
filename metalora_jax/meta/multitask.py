"""Multi-task training: the fair control, which sees the same data but never adapts during training."""

from typing import Any

import jax
import optax

from metalora_jax.meta.base import LossFn, MetaMethod, MetaParams, Metrics
from metalora_jax.meta.fomaml import fomaml
from metalora_jax.types import TaskBatch


def multitask(loss_fn: LossFn, optimizer: optax.GradientTransformation, **options: Any) -> MetaMethod:
    """The gradient of the mean query loss at theta itself: FOMAML without inner steps.

    `optimizer` and the options are for `adapt`, the ordinary fine-tuning that follows at test time.
    """
    base = fomaml(loss_fn, optimizer, **options)

    def gradient(meta_params: MetaParams, tasks: TaskBatch, key: jax.Array) -> tuple[MetaParams, Metrics]:
        no_steps = jax.tree.map(lambda x: x[:, :0], tasks.support)
        return base.gradient(meta_params, tasks._replace(support=no_steps), key)

    return base._replace(gradient=gradient)
