"""Sizes and switches of pi0 (Black et al., arXiv:2410.24164) and pi0.5 (arXiv:2504.16054), as openpi defines them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from metalora_jax.fields import check_types

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
"""openpi's names of the cameras, in the order of the prefix."""

OPENPI, LEROBOT, LEROBOT_0_4 = STYLES = ("openpi", "lerobot", "lerobot_0.4")
"""How pictures are resized and prompts are written; see `preprocess`."""
_LATER = {"style": OPENPI, "cut_prompts": False}  # fields that older files do not have, and what these mean

_DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Pi0Config:
    """Everything that fixes the shapes and the arithmetic of a pi0 or pi0.5; hashable, so it may be a static argument.

    Defaults are those of openpi's pi0 and, with `pi05`, but for `max_tokens` those of pi0.5: see `pi0_base` and
    `pi05_base`. Widths and counts without a unit are numbers of elements.
    """

    pi05: bool = False
    # Whether the prompt holds the state; None is openpi's rule: in pi0.5 it does. In pi0 the state is a token.
    discrete_state_input: bool | None = None
    # Vision tower (SigLIP So400m/14).
    image_size: int = 224  # [px], square
    patch_size: int = 14  # [px]
    vision_hidden: int = 1152
    vision_layers: int = 27
    vision_heads: int = 16
    vision_mlp: int = 4304
    layer_norm_eps: float = 1e-6
    # Decoder (Gemma 2B). The expert has as many layers, and the same heads.
    vocab_size: int = 257152
    text_hidden: int = 2048
    text_mlp: int = 16384
    layers: int = 18
    heads: int = 8
    kv_heads: int = 1
    head_dim: int = 256
    rms_norm_eps: float = 1e-6
    # Action expert (Gemma 300M).
    expert_hidden: int = 1024
    expert_mlp: int = 4096
    min_period: float = 4e-3  # of the flow-time embedding
    max_period: float = 4.0
    # Inputs and outputs.
    cameras: int = 3  # the first ones of `CAMERAS`
    max_tokens: int = 48  # of the prompt
    # What a longer prompt does: it is an error, or is cut, as openpi does.
    cut_prompts: bool = False
    bos_token_id: int | None = 2  # begins every prompt; None for tokenizers that have no such token
    action_dim: int = 32  # of the state, too
    horizon: int = 50  # control steps in a chunk
    num_steps: int = 10  # Euler steps of the sampler
    # Arithmetic.
    dtype: str = "float32"  # of activations; the projections of state, actions and time stay in float32
    param_dtype: str = "float32"  # of the stored weights
    style: str = OPENPI  # one of STYLES: by whose rules it was trained

    def __post_init__(self) -> None:
        check_types(type(self), dataclasses.asdict(self), "Pi0Config: ")
        for field in dataclasses.fields(self):
            if type(field.default) is int and field.name != "bos_token_id":
                self._require(getattr(self, field.name) > 0, field.name, rule="must be a positive integer")
        self._require(self.image_size % self.patch_size == 0, "patch_size", "image_size", rule="must divide")
        self._require(self.vision_hidden % self.vision_heads == 0, "vision_heads", "vision_hidden", rule="must divide")
        self._require(self.heads % self.kv_heads == 0, "kv_heads", "heads", rule="must divide")
        self._require(self.head_dim % 2 == 0, "head_dim", rule="must be even, for the rotary positions")
        even = self.expert_hidden >= 4 and self.expert_hidden % 2 == 0
        self._require(even, "expert_hidden", rule="must be even and at least 4, for the embedding of the flow time")
        self._require(self.cameras <= len(CAMERAS), "cameras", rule=f"must be at most {len(CAMERAS)}: {CAMERAS}")
        self._require(0 < self.min_period < self.max_period, "min_period", "max_period", rule="must be positive, below")
        for name in ("dtype", "param_dtype"):
            self._require(getattr(self, name) in _DTYPES, name, rule=f"must be one of {_DTYPES}")
        self._require(self.style in STYLES, "style", rule=f"must be one of {STYLES}")
        known = self.bos_token_id is None or 0 <= self.bos_token_id < self.vocab_size
        self._require(known, "bos_token_id", "vocab_size", rule="must be None or in [0, n) of")
        allowed = self.pi05 or not self.discrete_state_input
        self._require(allowed, "discrete_state_input", "pi05", rule="is for pi0.5, whose state is no token, but")

    def _require(self, condition: bool, name: str, other: str = "", *, rule: str) -> None:
        if not condition:
            end = f" {other}={getattr(self, other)!r}" if other else ""
            raise ValueError(f"Pi0Config: {name}={getattr(self, name)!r} {rule}{end}")

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        """Prefix tokens of one camera."""
        return self.grid**2

    @property
    def state_in_prompt(self) -> bool:
        """What `discrete_state_input` says, or its default."""
        return self.pi05 if self.discrete_state_input is None else self.discrete_state_input

    @classmethod
    def pi0_base(cls, **overrides: Any) -> "Pi0Config":
        """The size of openpi's pi0: 3.24 billion parameters, of which the expert has 315 million."""
        return cls(**overrides)

    @classmethod
    def pi05_base(cls, **overrides: Any) -> "Pi0Config":
        """The size of openpi's pi0.5: 3.35 billion parameters."""
        return cls(**({"pi05": True, "max_tokens": 200} | overrides))

    @classmethod
    def pi0_nano(cls, **overrides: Any) -> "Pi0Config":
        """The same classes at a size that trains on a laptop's CPU: one 64 px camera, four layers."""
        small: dict[str, Any] = dict(
            image_size=64,
            patch_size=16,
            vision_hidden=96,
            vision_layers=3,
            vision_heads=4,
            vision_mlp=192,
            vocab_size=512,
            text_hidden=96,
            text_mlp=256,
            layers=4,
            heads=6,
            kv_heads=1,
            head_dim=16,
            expert_hidden=96,
            expert_mlp=256,
            cameras=1,
            max_tokens=16,
            bos_token_id=None,
            action_dim=4,
            horizon=10,
        )
        return cls(**(small | overrides))

    @classmethod
    def pi05_nano(cls, **overrides: Any) -> "Pi0Config":
        """`pi0_nano` as a pi0.5; the prompt has room for a state of a few numbers."""
        return cls.pi0_nano(**({"pi05": True, "max_tokens": 96} | overrides))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict, the exact inverse of `from_dict`. A later field is there where it differs from before."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if (name, value) not in _LATER.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Pi0Config":
        """Reads what `to_dict` wrote.

        Raises:
          ValueError: if a key is unknown or missing. A default must not replace a missing size.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"Pi0Config: unknown keys {unknown}; was the file written by a newer version?")
        if missing := sorted(known - set(values) - set(_LATER)):
            raise ValueError(f"Pi0Config: missing keys {missing}; write the file with to_dict()")
        return cls(**values)
