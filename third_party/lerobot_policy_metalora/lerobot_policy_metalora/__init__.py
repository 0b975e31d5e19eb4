"""A policy of metalora_jax inside lerobot: a frozen base and an adapter, run in JAX."""

from lerobot_policy_metalora.configuration_metalora import MetaloraConfig

__all__ = ["MetaloraConfig"]
