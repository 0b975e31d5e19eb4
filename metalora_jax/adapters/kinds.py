"""The kinds of adapters by name. A new kind is a file of its own, and a line here."""

from metalora_jax.adapters.adapter import Kind
from metalora_jax.adapters.dense import Dense
from metalora_jax.adapters.lora import LoRA
from metalora_jax.adapters.scale_shift import ScaleShift

KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (LoRA, Dense, ScaleShift)}
