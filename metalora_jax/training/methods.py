"""Builds a meta-method from the names in a config."""

from collections.abc import Sequence
from typing import Any

import optax

from metalora_jax import meta
from metalora_jax.meta import LossFn, MetaMethod

LEARNED = {"learned": "tensor", "learned_each": "element"}  # what shares a learned rate
OPTIMIZERS = {"sgd": optax.sgd, "adam": lambda rate: optax.adam(rate, eps_root=1e-8)}


def build(
    loss: LossFn,
    method: str,
    optimizer: str,
    rate: float,
    max_norm: float | None,
    same_draws: bool,
    micro_batch: int | None,
    head: Sequence[str] | None,
) -> MetaMethod:
    """A meta-method by name.

    Args:
      loss: (theta, batch, key) -> scalar.
      method: "maml", "fomaml", "reptile", "anil" or "multitask".
      optimizer: of the inner loop: "sgd", "adam", or learned rates (Meta-SGD): "learned" for one per tensor,
        "learned_each" for one per parameter.
      rate: the inner rate; its initial value if it is learned.
      max_norm: clips each inner gradient to this norm; None does not clip.
      same_draws: one set of flow noise for all inner steps.
      micro_batch: tasks computed at a time; None: the whole meta-batch.
      head: leaf paths that ANIL adapts; must be None for the other methods.

    Raises:
      ValueError: if a name is unknown, or an option would have no effect in this combination.
    """
    if (method == "anil") != (head is not None):
        raise ValueError(
            f"meta.head selects what method 'anil' adapts: it must be set for 'anil' only, not for {method!r}"
        )
    options: dict[str, Any] = {"max_norm": max_norm, "same_draws": same_draws, "micro_batch": micro_batch}
    if optimizer in LEARNED:
        if method not in ("maml", "fomaml", "anil"):
            raise ValueError(f"meta.optimizer {optimizer!r} has no effect with method {method!r}; choose sgd or adam")
        options |= {"shared": LEARNED[optimizer], "fast": head}
        return meta.learned_rates(loss, start=rate, first_order=method != "maml", **options)
    if optimizer not in OPTIMIZERS:
        known = ", ".join((*LEARNED, *OPTIMIZERS))
        raise ValueError(f"no inner optimizer named {optimizer!r}; choose {known}")
    inner = OPTIMIZERS[optimizer](rate)
    if method == "anil":
        return meta.anil(loss, inner, list(head or ()), **options)
    plain = {"maml": meta.maml, "fomaml": meta.fomaml, "reptile": meta.reptile, "multitask": meta.multitask}
    if method not in plain:
        raise ValueError(f"no meta-method named {method!r}; choose anil, {', '.join(plain)}")
    return plain[method](loss, inner, **options)
