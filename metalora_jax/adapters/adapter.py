"""What every kind of adapter has in common.

A kind is two classes in one file: a frozen dataclass, the kind's settings, which a placement rule holds, and a module,
which stands in for the linear map. See `lora` for the model of both, and `kinds` for the list of them.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
from flax import nnx

LINEAR_MAPS: tuple[type[nnx.Module], ...] = (nnx.Linear,)
"""What an adapter can be put on: modules with a `kernel` (*layers, in, out) that are called like `nnx.Linear`."""


class AdapterParam(nnx.Variable):
    """A piece of theta. Not an `nnx.Param`, so that a filter for the one never catches the other."""


class Adapter(nnx.Module, abc.ABC):
    """A linear map with a trained part; called like the map, `base`, that it wraps."""

    base: nnx.Linear

    @abc.abstractmethod
    def parts(self) -> dict[str, AdapterParam]:
        """The trained parameters by attribute name, each (*layers, m, n) with the base's leading layer axes.

        They are what theta holds, and so what is learned, counted and saved.
        """

    def with_key(self, key: jax.Array) -> None:
        """Turns on what is random in training; no effect for kinds that have nothing random."""

    def fused(self) -> nnx.Linear | None:
        """The plain linear map that computes the same; None where there is none, as for input-dependent updates."""
        return None

    def penalty(self) -> jax.Array | None:
        """A scalar that is added to the training loss, with its weight included; None for kinds that have none."""
        return None


@dataclasses.dataclass(frozen=True)
class Kind(abc.ABC):
    """Settings of one kind of adapter; the fields are those of a placement rule in a config or manifest."""

    name: ClassVar[str]  # in configs and manifests

    @abc.abstractmethod
    def adapt(self, base: nnx.Linear, key: jax.Array) -> Adapter:
        """A fresh adapter on `base`, single or stacked; its start is a function of `key` alone."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """A few words for reports, such as "lora r=4 scale=2"."""

    @property
    def random(self) -> bool:
        """Whether adapters of this kind need a key in training, as dropout does."""
        return False

    def scaled(self, parts: Mapping[str, jax.Array], factor: float) -> dict[str, jax.Array] | None:
        """`Adapter.parts` with what they change in the map multiplied by `factor`: with 0 nothing is left but the base.

        None, the default, is for kinds whose change is no multiple of any parameter.
        """
        return None

    def _require(self, field: str, good: bool, expected: str) -> None:
        """Raises ValueError naming `field` unless `good`."""
        if not good:
            raise ValueError(f"{self.name}: {field} must be {expected}, not {getattr(self, field)!r}")


def add(kernel: jax.Array, update: jax.Array) -> jax.Array:
    """kernel + update, in float32 where the kernel is stored in less: there a small update would be rounded away.

    Raises:
      ValueError: the kernel is not floating point, so that the update would be truncated without a word.
    """
    if not jax.numpy.issubdtype(kernel.dtype, jax.numpy.floating):
        raise ValueError(f"an adapter cannot be folded into a kernel of {kernel.dtype}; act with it unfused")
    wide = jax.numpy.promote_types(kernel.dtype, jax.numpy.float32)
    return (kernel.astype(wide) + update).astype(wide)
