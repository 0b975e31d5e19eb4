"""LoRA (Hu et al. 2021): a frozen linear map plus a trained one of low rank."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from metalora_jax.adapters.adapter import Adapter, AdapterParam, Kind, add


@dataclasses.dataclass(frozen=True)
class LoRA(Kind):
    """Settings of LoRA.

    Attributes:
      rank: inner width r of the update, at least 1.
      alpha: the update is scaled by alpha / rank, or alpha / sqrt(rank) with `rslora` (Kalajdzievski 2023).
      dropout: probability in [0, 1) with which an input of the adapter (not of the base map) is zeroed in training.
      rslora: see alpha.
      b_std: standard deviation of B's start. 0 is LoRA's standard, where the adapted map starts equal to the base; but
        A then has no gradient, so a meta-learned start wants a small positive value.
    """

    name: ClassVar[str] = "lora"

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rslora: bool = False
    b_std: float = 0.0

    def __post_init__(self) -> None:
        self._require("rank", self.rank >= 1, "at least 1")
        self._require("alpha", self.alpha > 0, "positive")
        self._require("dropout", 0 <= self.dropout < 1, "in [0, 1)")
        self._require("b_std", self.b_std >= 0, "at least 0")

    @property
    def scale(self) -> float:
        """The factor before A B."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    @property
    def random(self) -> bool:
        """Where there is dropout."""
        return self.dropout > 0

    def adapt(self, base: nnx.Linear, key: jax.Array) -> "LoRALinear":
        """A ~ U(+-1/sqrt(in)), as in peft; B is zero, or normal with standard deviation `b_std`. Both float32."""
        *layers, width_in, width_out = base.kernel.shape
        a_key, b_key = jax.random.split(key)
        bound = width_in**-0.5
        a = jax.random.uniform(a_key, (*layers, width_in, self.rank), minval=-bound, maxval=bound)
        b = jnp.zeros((*layers, self.rank, width_out))
        if self.b_std:
            b = self.b_std * jax.random.normal(b_key, b.shape)
        return LoRALinear(base, a, b, scale=self.scale, dropout=self.dropout)

    def scaled(self, parts: Mapping[str, jax.Array], factor: float) -> dict[str, jax.Array]:
        """B alone is multiplied: the change of the kernel is linear in it."""
        return {"a": parts["a"], "b": parts["b"] * factor}

    def __str__(self) -> str:
        return f"{self.name} r={self.rank} scale={self.scale:g}"


class DropoutKey(nnx.Variable):
    """The random key of one adapted map: present while a model is joined for training, absent otherwise."""


class LoRALinear(Adapter):
    """y = base(x) + scale * (dropout(x) @ a) @ b.

    The base may be a stack of maps (kernel (*layers, in, out), as `nnx.vmap` makes it); a and b then have the same
    leading axes, and the module is called one layer at a time, inside the scan over the layers.
    """

    def __init__(self, base: nnx.Linear, a: jax.Array, b: jax.Array, *, scale: float, dropout: float = 0.0):
        """Wraps `base`; a: (*layers, in, rank), b: (*layers, rank, out)."""
        self.base = base
        self.a = AdapterParam(a)
        self.b = AdapterParam(b)
        self.scale = scale
        self.dropout = dropout
        self.dropout_key: DropoutKey | None = nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., in) -> (..., out), in the dtype of the base map's output; deterministic without a dropout key."""
        y = self.base(x)
        if self.dropout_key is not None:
            keep = jax.random.bernoulli(self.dropout_key[...], 1 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1 - self.dropout), 0)
        update = self.scale * _low_rank(x, self.a[...], self.b[...])
        return y + update.astype(y.dtype)

    def parts(self) -> dict[str, AdapterParam]:
        """A and B."""
        return {"a": self.a, "b": self.b}

    def with_key(self, key: jax.Array) -> None:
        """Turns dropout on, with a key of its own for every layer of a stack. No effect where the rate is 0."""
        if self.dropout:
            layers = self.a.shape[:-2]
            self.dropout_key = DropoutKey(jax.random.split(key, layers) if layers else key)

    def fused(self) -> nnx.Linear:
        """The plain linear map equal to this one without dropout: kernel + scale * a @ b, see `add`."""
        fused = nnx.clone(self.base)
        update = self.scale * (self.a[...] @ self.b[...])
        fused.kernel.set_value(add(fused.kernel[...], update))
        return fused


@jax.custom_vjp
def _low_rank(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """(x @ a) @ b with its gradient written out.

    The products are those of the chain rule. Their order is what matters: left to itself, XLA turns the gradients of a
    and b into products with the transposes of x and of y's gradient, the two largest arrays here, and copies them.
    """
    return (x @ a) @ b


def _forward(x: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    low = x @ a
    return low @ b, (x, low, a, b)


def _backward(kept: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, low, a, b = kept
    d_low = dy @ b.T
    dx = (d_low @ a.T).astype(x.dtype)
    x, low, dy, d_low = (each.reshape(-1, each.shape[-1]) for each in (x, low, dy, d_low))
    return dx, (d_low.T @ x).T.astype(a.dtype), (low.T @ dy).astype(b.dtype)


_low_rank.defvjp(_forward, _backward)
