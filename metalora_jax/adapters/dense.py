"""Full fine-tuning of chosen maps, written as an adapter: the frozen weights plus a trained difference of full size.

Not parameter-efficient, and not meant to be: it is the baseline that adapters are measured against.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from metalora_jax.adapters.adapter import Adapter, AdapterParam, Kind, add


@dataclasses.dataclass(frozen=True)
class Dense(Kind):
    """Full fine-tuning of a map; it has no settings."""

    name: ClassVar[str] = "dense"

    def adapt(self, base: nnx.Linear, key: jax.Array) -> "DenseLinear":
        """Starts equal to `base`, whatever the key."""
        return DenseLinear(base)

    def scaled(self, parts: Mapping[str, jax.Array], factor: float) -> dict[str, jax.Array]:
        """The difference from the frozen weights."""
        return {name: leaf * factor for name, leaf in parts.items()}

    def __str__(self) -> str:
        return self.name


class DenseLinear(Adapter):
    """y = base(x) + x @ delta + shift; `shift` exists where the base has a bias."""

    def __init__(self, base: nnx.Linear):
        """Starts equal to `base`."""
        *layers, _, width = base.kernel.shape
        self.base = base
        self.delta = AdapterParam(jnp.zeros(base.kernel.shape))
        self.shift = None if base.bias is None else AdapterParam(jnp.zeros((*layers, 1, width)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., in) -> (..., out), in the dtype of the base map's output."""
        y = self.base(x)
        update = x @ self.delta[...]
        if self.shift is not None:
            update = update + self.shift[...].reshape((1,) * (x.ndim - 1) + (-1,))
        return y + update.astype(y.dtype)

    def parts(self) -> dict[str, AdapterParam]:
        """The differences."""
        return {"delta": self.delta} if self.shift is None else {"delta": self.delta, "shift": self.shift}

    def fused(self) -> nnx.Linear:
        """The map with the differences added in, see `add`."""
        fused = nnx.clone(self.base)
        fused.kernel.set_value(add(fused.kernel[...], self.delta[...]))
        if self.shift is not None and fused.bias is not None:
            fused.bias.set_value(add(fused.bias[...], self.shift[...].squeeze(-2)))
        return fused
