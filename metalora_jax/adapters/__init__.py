"""What theta is: adapters placed on a frozen model by rules, and the ways in and out of the model and of files."""

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
from metalora_jax.adapters.lora import AdapterParam, LoRALinear
from metalora_jax.adapters.placement import Placement, Rule

__all__ = [
    "AdapterParam",
    "Count",
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
