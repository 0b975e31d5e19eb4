"""SmolVLA to the rest of the package, see `policies.policy`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from metalora_jax.adapters.placement import Placement
from metalora_jax.policies.policy import Checkpoint, Family, Progress
from metalora_jax.policies.smolvla import convert, preprocess, presets


class SmolVLAFamily(Family):
    """Neither the prompt nor the tokens depend on the state, which has a token of its own in the prefix."""

    type: ClassVar[str] = "smolvla"

    def load(self, directory: Path, tokenizer: str | Path | None, progress: Progress, **overrides: Any) -> Checkpoint:
        """See `convert.load`."""
        return convert.load(directory, tokenizer, progress, **overrides)

    def save(self, directory: Path, model: Any, tokenizer: Tokenizer) -> None:
        """See `convert.save`."""
        convert.save(directory, model, tokenizer)

    def prepare_images(self, images: np.ndarray, size: int) -> np.ndarray:
        """See `preprocess.prepare_frames`."""
        return preprocess.prepare_frames(images, size)

    def tokenize(
        self, config: Any, tokenizer: Tokenizer, instruction: str, states: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same tokens for all states."""
        tokens, mask = preprocess.prepare_text(tokenizer, [instruction], config)
        shape = len(states), config.max_tokens
        return np.broadcast_to(tokens, shape), np.broadcast_to(mask, shape)

    def preset(self, name: str, *, rank: int | None = None, b_std: float = 0.0) -> Placement:
        """See `presets.preset`."""
        return presets.preset(name, rank=rank, b_std=b_std)

    @property
    def presets(self) -> tuple[str, ...]:
        """See `presets.preset`."""
        return presets.NAMES

    def module_names(self, config: Any) -> Mapping[str, tuple[tuple[str, ...], int | None]]:
        """lerobot's names."""
        return convert.module_names(config)

    def without_effect(self, paths: Iterable[str]) -> list[str]:
        """See `presets.dead`."""
        return presets.dead(paths)


FAMILY = SmolVLAFamily()
