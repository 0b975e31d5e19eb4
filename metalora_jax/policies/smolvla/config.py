"""Sizes and switches of a SmolVLA policy (Shukor et al., "SmolVLA", arXiv:2506.01844)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from metalora_jax.fields import check_types

_MODES = ("cross_attn", "self_attn")
_DTYPES = ("float32", "bfloat16", "float16")
_ANY_INTEGER = (  # every other integer is a size, and positive
    "pad_token_id",
    "fake_image_token_id",
    "global_image_token_id",
    "prefix_length",
    "self_attn_every_n_layers",
)


@dataclasses.dataclass(frozen=True)
class SmolVLAConfig:
    """Everything that fixes the shapes and the arithmetic of a SmolVLA; hashable, so it may be a static argument.

    Defaults are those of the public smolvla_base checkpoint, see `base`. Widths and counts without a unit are numbers
    of elements.
    """

    # Vision tower (SigLIP) and connector.
    image_size: int = 512  # [px], square
    patch_size: int = 16  # [px]
    vision_hidden: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vision_mlp: int = 3072
    layer_norm_eps: float = 1e-6
    pixel_shuffle: int = 4  # side of the square of patches that is folded into one token
    # Language model (Llama layers). The expert has as many layers, and the same heads.
    vocab_size: int = 49280
    text_hidden: int = 960
    layers: int = 16
    heads: int = 15
    kv_heads: int = 5
    head_dim: int = 64
    text_mlp: int = 2560
    rms_norm_eps: float = 1e-5
    # Action expert.
    expert_width_multiplier: float = 0.75
    attention_mode: str = "cross_attn"  # or "self_attn": every expert layer is a self-attention layer
    self_attn_every_n_layers: int = 2  # in cross_attn mode: layers 0, n, 2n, ... are self-attention; 0 means none
    min_period: float = 4e-3  # of the flow-time embedding
    max_period: float = 4.0
    # Inputs and outputs.
    cameras: int = 3
    max_tokens: int = 48  # instruction tokens, newline included
    pad_token_id: int = 2
    max_state_dim: int = 32
    max_action_dim: int = 32
    chunk_size: int = 50  # control steps
    num_steps: int = 10  # Euler steps of the sampler
    prefix_length: int = 0  # pads a shorter prefix up to this many tokens; 0 or less pads nothing
    add_image_special_tokens: bool = False
    fake_image_token_id: int = 49189
    global_image_token_id: int = 49152
    # Arithmetic.
    dtype: str = "float32"  # of the backbone's and the expert's activations; the action heads stay in float32
    param_dtype: str = "float32"  # of the stored weights

    def __post_init__(self) -> None:
        check_types(type(self), dataclasses.asdict(self), "SmolVLAConfig: ")
        for field in dataclasses.fields(self):
            if type(field.default) is int and field.name not in _ANY_INTEGER:
                value = getattr(self, field.name)
                self._require(value > 0, field.name, rule="must be a positive integer")
        self._require(self.image_size % self.patch_size == 0, "patch_size", "image_size", rule="must divide")
        self._require(self.grid % self.pixel_shuffle == 0, "pixel_shuffle", "grid", rule="must divide")
        self._require(self.vision_hidden % self.vision_heads == 0, "vision_heads", "vision_hidden", rule="must divide")
        self._require(self.heads % self.kv_heads == 0, "kv_heads", "heads", rule="must divide")
        self._require(self.head_dim % 2 == 0, "head_dim", rule="must be even, for the rotary positions")
        even = self.expert_hidden >= 4 and self.expert_hidden % 2 == 0
        self._require(even, "expert_hidden", "expert_width_multiplier", rule="must be even and at least 4, set by")
        self._require(self.attention_mode in _MODES, "attention_mode", rule=f"must be one of {_MODES}")
        self._require(self.self_attn_every_n_layers >= 0, "self_attn_every_n_layers", rule="must not be negative")
        self._require(0 < self.min_period < self.max_period, "min_period", "max_period", rule="must be positive, below")
        for name in ("dtype", "param_dtype"):
            self._require(getattr(self, name) in _DTYPES, name, rule=f"must be one of {_DTYPES}")
        ids = ["pad_token_id"]
        if self.add_image_special_tokens:
            ids += ["fake_image_token_id", "global_image_token_id"]
        for name in ids:
            self._require(0 <= getattr(self, name) < self.vocab_size, name, "vocab_size", rule="must be in [0, n) of")

    def _require(self, condition: bool, name: str, other: str = "", *, rule: str) -> None:
        if not condition:
            end = f" {other}={getattr(self, other)!r}" if other else ""
            raise ValueError(f"SmolVLAConfig: {name}={getattr(self, name)!r} {rule}{end}")

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        """Prefix tokens of one camera, special tokens not counted."""
        return (self.grid // self.pixel_shuffle) ** 2

    @property
    def expert_hidden(self) -> int:
        """Width of the action expert."""
        return int(self.text_hidden * self.expert_width_multiplier)

    @property
    def expert_mlp(self) -> int:
        """Width of the expert's MLP: Llama's rule, 8/3 of the hidden width rounded up to a multiple of 256."""
        width = 4 * int(2 * self.expert_hidden / 3)
        return 256 * -(-width // 256)

    @property
    def kv_width(self) -> int:
        """Width of the keys (or values) of all heads together."""
        return self.kv_heads * self.head_dim

    @property
    def group(self) -> int:
        """Expert layers repeat with this period: one self-attention layer, then `group - 1` cross-attention layers."""
        return 1 if self.attention_mode == "self_attn" else self.self_attn_every_n_layers

    @property
    def self_layers(self) -> tuple[int, ...]:
        """Indices of the expert layers that attend to the prefix and, causally, to the actions."""
        return tuple(range(0, self.layers, self.group)) if self.group else ()

    @property
    def cross_layers(self) -> tuple[int, ...]:
        """Indices of the expert layers that attend to the prefix alone."""
        return tuple(i for i in range(self.layers) if i not in self.self_layers)

    @classmethod
    def base(cls, **overrides: Any) -> "SmolVLAConfig":
        """The size of the public checkpoint smolvla_base: 450 M parameters, of which the expert has 98 M."""
        return cls(**overrides)

    @classmethod
    def nano(cls, **overrides: Any) -> "SmolVLAConfig":
        """The same classes at a size that trains on a laptop's CPU: one 64 px camera, four layers."""
        small: dict[str, Any] = dict(
            image_size=64,
            patch_size=8,
            vision_hidden=96,
            vision_layers=3,
            vision_heads=4,
            vision_mlp=192,
            pixel_shuffle=2,
            vocab_size=512,
            text_hidden=96,
            layers=4,
            heads=6,
            kv_heads=2,
            head_dim=16,
            text_mlp=256,
            expert_width_multiplier=1.0,
            cameras=1,
            max_tokens=16,
            max_state_dim=4,
            max_action_dim=4,
            chunk_size=10,
            fake_image_token_id=510,
            global_image_token_id=511,
        )
        return cls(**(small | overrides))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict, the exact inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SmolVLAConfig":
        """Reads what `to_dict` wrote.

        Raises:
          ValueError: if a key is unknown or missing. A default must not replace a missing size.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"SmolVLAConfig: unknown keys {unknown}; was the file written by a newer version?")
        if missing := sorted(known - set(values)):
            raise ValueError(f"SmolVLAConfig: missing keys {missing}; write the file with to_dict()")
        return cls(**values)
