"""What every kind of adapter has in common."""

import abc

import jax
from flax import nnx


class AdapterParam(nnx.Variable):
    """A piece of theta. Not an `nnx.Param`, so that a filter for the one never catches the other."""


class Adapter(nnx.Module, abc.ABC):
    """A linear map with a trained part; called like the map, `base`, that it wraps."""

    base: nnx.Linear

    @abc.abstractmethod
    def parts(self) -> dict[str, AdapterParam]:
        """The trained parameters by attribute name, each (*layers, m, n) with the base's leading layer axes."""

    @abc.abstractmethod
    def with_key(self, key: jax.Array) -> None:
        """Turns on what is random in training; no effect for kinds that have nothing random."""

    @abc.abstractmethod
    def fused(self) -> nnx.Linear:
        """The plain linear map that computes the same."""
