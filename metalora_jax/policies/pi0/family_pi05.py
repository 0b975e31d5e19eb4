"""pi0.5 to the rest of the package, see `policies.policy`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx

from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.family import Pi0Family
from metalora_jax.policies.pi0.model import Pi05
from metalora_jax.policies.policy import Policy


class Pi05Family(Pi0Family):
    """The state is in the prompt, unless the config's `discrete_state_input` is False: then it reaches nothing."""

    type: ClassVar[str] = "pi05"

    @property
    def modes(self) -> Mapping[str, str]:
        """Quantiles: the prompt holds numbers in [-1, 1]."""
        return {"STATE": "QUANTILES", "ACTION": "QUANTILES"}

    def create(self, fields: Mapping[str, Any], rngs: nnx.Rngs) -> Policy:
        """The nano size, but for the fields that are given."""
        return Pi05(Pi0Config.pi05_nano(**fields), rngs=rngs)


FAMILY = Pi05Family()
