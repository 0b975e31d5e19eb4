"""Builds a meta-method from the names in a config."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax

from metalora_jax import meta as metas
from metalora_jax.fields import check_positive, from_fields
from metalora_jax.meta import LossFn, MetaMethod

LEARNED = {"learned": "tensor", "learned_each": "element"}  # what shares a learned rate
OPTIMIZERS = {"sgd": optax.sgd, "adam": lambda rate: optax.adam(rate, eps_root=1e-8)}


class MetaConfig(NamedTuple):
    """A meta-learner and its inner loop."""

    method: str  # "maml", "fomaml", "reptile", "anil" or "multitask"
    inner_steps: int
    optimizer: str  # of the inner loop: "sgd", "adam", or learned rates, a name in LEARNED
    inner_learning_rate: float  # its initial value where rates are learned
    max_norm: float | None  # clips each inner gradient to this norm; None does not clip
    same_draws: bool  # one set of noise draws for all inner steps
    micro_batch: int | None  # tasks computed at a time; None: the whole meta-batch
    head: tuple[str, ...] | None  # leaf paths that ANIL adapts; None for the other methods

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "MetaConfig":
        """Reads the section `meta`; see `fields.from_fields`. Raises ValueError if a number is not positive."""
        self = from_fields(cls, fields, "meta")
        check_positive(self, "meta", ("inner_steps", "inner_learning_rate", "max_norm", "micro_batch"))
        return self


def build(loss: LossFn, meta: MetaConfig) -> MetaMethod:
    """The meta-method that a config names, for a loss (theta, batch, key) -> scalar.

    Learned rates are those of Meta-SGD (Li et al. 2017, arXiv:1707.09835): "learned" shares one among the parameters of
    a tensor, "learned_each" has one for each.

    Raises:
      ValueError: if a name is unknown, or an option would have no effect in this combination.
    """
    if (meta.method == "anil") != (meta.head is not None):
        raise ValueError(
            f"meta.head selects what method 'anil' adapts: it must be set for 'anil' only, not for {meta.method!r}"
        )
    options: dict[str, Any] = {name: getattr(meta, name) for name in ("max_norm", "same_draws", "micro_batch")}
    if meta.optimizer in LEARNED:
        if meta.method not in ("maml", "fomaml", "anil"):
            raise ValueError(
                f"meta.optimizer {meta.optimizer!r} has no effect with method {meta.method!r}; choose sgd or adam"
            )
        options |= {"shared": LEARNED[meta.optimizer], "fast": meta.head}
        return metas.learned_rates(loss, start=meta.inner_learning_rate, first_order=meta.method != "maml", **options)
    if meta.optimizer not in OPTIMIZERS:
        known = ", ".join((*LEARNED, *OPTIMIZERS))
        raise ValueError(f"no inner optimizer named {meta.optimizer!r}; choose {known}")
    inner = OPTIMIZERS[meta.optimizer](meta.inner_learning_rate)
    if meta.method == "anil":
        return metas.anil(loss, inner, list(meta.head or ()), **options)
    plain = {"maml": metas.maml, "fomaml": metas.fomaml, "reptile": metas.reptile, "multitask": metas.multitask}
    if meta.method not in plain:
        raise ValueError(f"no meta-method named {meta.method!r}; choose anil, {', '.join(plain)}")
    return plain[meta.method](loss, inner, **options)
