"""ANIL (Raghu et al. 2020): the inner loop moves the head's adapters only, the outer loop all of them."""

from collections.abc import Callable, Sequence
from typing import Any

import optax

from metalora_jax.meta.base import LossFn, MetaMethod
from metalora_jax.meta.fomaml import fomaml


def anil(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    head: Sequence[str],
    over: Callable[..., MetaMethod] = fomaml,
    **options: Any,
) -> MetaMethod:
    """The method `over` with a mask: `head` lists regular expressions that match theta's full leaf paths."""
    return over(loss_fn, optimizer, fast=head, **options)
