"""What theta is: adapters placed on a frozen model by rules, and the ways in and out of the model and of files."""

from metalora_jax.adapters.adapter import Adapter, AdapterParam
from metalora_jax.adapters.attach import (
    Count,
    Graph,
    Split,
    Theta,
    attach,
    count,
    dead_adapters,
    fuse,
    join,
    linear_maps,
    split,
)
from metalora_jax.adapters.dense import DenseLinear
from metalora_jax.adapters.lora import LoRALinear
from metalora_jax.adapters.placement import Placement, Rule

__all__ = [
    "Adapter",
    "AdapterParam",
    "Count",
    "DenseLinear",
    "Graph",
    "LoRALinear",
    "Placement",
    "Rule",
    "Split",
    "Theta",
    "attach",
    "count",
    "dead_adapters",
    "fuse",
    "join",
    "linear_maps",
    "split",
]
