"""SmolVLA (Shukor et al., arXiv:2506.01844): `smolvla.load("lerobot/smolvla_base")`."""

from metalora_jax.policies.smolvla.convert import Checkpoint, load

__all__ = ["Checkpoint", "load"]
