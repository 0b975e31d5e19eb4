"""First-order MAML (Finn et al. 2017, section 5.2): the plain query gradient at the adapted point."""

from typing import Any

import optax

from metalora_jax.meta.base import LossFn, MetaMethod
from metalora_jax.meta.maml import maml


def fomaml(loss_fn: LossFn, optimizer: optax.GradientTransformation, **options: Any) -> MetaMethod:
    """MAML with the inner gradients treated as constants, so that d theta_K / d theta = 1; options as for `maml`."""
    return maml(loss_fn, optimizer, first_order=True, **options)
