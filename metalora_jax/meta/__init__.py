"""How theta is learned: meta-methods over any `loss_fn(theta, batch, key)`, as NamedTuples of pure functions."""

from metalora_jax.meta.anil import anil
from metalora_jax.meta.base import AdaptResult, LossFn, MetaMethod, MetaParams
from metalora_jax.meta.fomaml import fomaml
from metalora_jax.meta.inner import InnerOptions, adapt, initial_state
from metalora_jax.meta.learned_rates import descend, learned_rates
from metalora_jax.meta.maml import maml
from metalora_jax.meta.multitask import multitask
from metalora_jax.meta.reptile import reptile

__all__ = [
    "AdaptResult",
    "InnerOptions",
    "LossFn",
    "MetaMethod",
    "MetaParams",
    "adapt",
    "anil",
    "descend",
    "fomaml",
    "initial_state",
    "learned_rates",
    "maml",
    "multitask",
    "reptile",
]
