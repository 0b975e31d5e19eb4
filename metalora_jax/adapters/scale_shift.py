"""A scale and a shift for each output of a linear map (SSF, Lian et al. 2022, arXiv:2210.08823).

The scale alone is IA3 (Liu et al. 2022, arXiv:2205.05638), so this is IA3 with a bias. On the projection of visual
tokens it is feature token modulation (FTM, Li et al. 2025, arXiv:2512.02902).
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from metalora_jax.adapters.adapter import Adapter, AdapterParam, Kind, add


@dataclasses.dataclass(frozen=True)
class ScaleShift(Kind):
    """A scale and a shift for each output; it has no settings."""

    name: ClassVar[str] = "scale_shift"

    def adapt(self, base: nnx.Linear, key: jax.Array) -> "ScaleShiftLinear":
        """Starts equal to `base`, whatever the key."""
        return ScaleShiftLinear(base)

    def scaled(self, parts: Mapping[str, jax.Array], factor: float) -> dict[str, jax.Array]:
        """Scale, which is its difference from 1, and shift."""
        return {name: leaf * factor for name, leaf in parts.items()}

    def __str__(self) -> str:
        return self.name


class ScaleShiftLinear(Adapter):
    """y = base(x) * (1 + scale) + shift, whether or not the base has a bias."""

    def __init__(self, base: nnx.Linear):
        """Starts equal to `base`: scale and shift are zero, (*layers, 1, out), float32."""
        *layers, _, width = base.kernel.shape
        self.base = base
        self.scale = AdapterParam(jnp.zeros((*layers, 1, width)))
        self.shift = AdapterParam(jnp.zeros((*layers, 1, width)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., in) -> (..., out), in the dtype of the base map's output."""
        y = self.base(x)
        scale, shift = (part[...].reshape((1,) * (y.ndim - 1) + (-1,)) for part in (self.scale, self.shift))
        return (y * (1 + scale) + shift).astype(y.dtype)

    def parts(self) -> dict[str, AdapterParam]:
        """Scale, as its difference from 1, and shift."""
        return {"scale": self.scale, "shift": self.shift}

    def fused(self) -> nnx.Linear | None:
        """The map with kernel and bias scaled and the shift in the bias, see `add`; None where there is no bias."""
        fused = nnx.clone(self.base)
        if fused.bias is None:
            return None
        kernel, bias, scale, shift = fused.kernel[...], fused.bias[...], self.scale[...], self.shift[...]
        fused.kernel.set_value(add(kernel, kernel * scale))
        fused.bias.set_value(add(bias, bias * scale.squeeze(-2) + shift.squeeze(-2)))
        return fused
