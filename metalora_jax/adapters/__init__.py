"""What theta is: adapters placed on a frozen model by rules, and the ways in and out of the model and of files."""

from metalora_jax.adapters.adapter import Adapter, AdapterParam, Kind
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
    penalty,
    scaled,
    split,
)
from metalora_jax.adapters.dense import Dense, DenseLinear
from metalora_jax.adapters.lora import LoRA, LoRALinear
from metalora_jax.adapters.placement import Placement, Rule
from metalora_jax.adapters.scale_shift import ScaleShift, ScaleShiftLinear

__all__ = [
    "Adapter",
    "AdapterParam",
    "Count",
    "Dense",
    "DenseLinear",
    "Graph",
    "Kind",
    "LoRA",
    "LoRALinear",
    "Placement",
    "Rule",
    "ScaleShift",
    "ScaleShiftLinear",
    "Split",
    "Theta",
    "attach",
    "count",
    "dead_adapters",
    "fuse",
    "join",
    "linear_maps",
    "penalty",
    "scaled",
    "split",
]
