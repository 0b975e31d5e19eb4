"""SmolVLA to the rest of the package, see `policies.policy`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from tokenizers import Tokenizer

from metalora_jax.adapters.attach import Theta
from metalora_jax.adapters.placement import Placement
from metalora_jax.policies.policy import Checkpoint, ExportDtype, Family, Operations, Policy, Progress
from metalora_jax.policies.smolvla import convert, export, operations, preprocess, presets
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA


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

    def create(self, fields: Mapping[str, Any], rngs: nnx.Rngs) -> Policy:
        """The nano size, but for the fields that are given."""
        return SmolVLA(SmolVLAConfig.nano(**fields), rngs=rngs)

    def prepare_float_images(self, images: jax.Array, size: int) -> jax.Array:
        """See `preprocess.prepare_image`."""
        if images.shape[-3:-1] == (size, size):
            return images * 2 - 1
        return preprocess.prepare_image(images, size)

    def export_merged(
        self,
        directory: Path,
        model: Any,
        source: Path,
        statistics: Mapping[str, np.ndarray],
        dtype: ExportDtype,
        cameras: Sequence[str] | None = None,
        data_set: str = "",
    ) -> None:
        """See `export.merged`."""
        if data_set:
            raise ValueError(f"lerobot's format has one set of statistics, without a name; leave out {data_set!r}")
        export.merged(directory, model, source, statistics, dtype, cameras)

    def export_peft(
        self,
        directory: Path,
        placement: Placement,
        theta: Theta,
        model: Any,
        source_name: str,
        source: Path,
        statistics: Mapping[str, np.ndarray],
        manifest: Mapping[str, Any] | None,
        cameras: Sequence[str] | None = None,
    ) -> None:
        """See `export.peft`."""
        export.peft(directory, placement, theta, model, source_name, source, statistics, manifest, cameras)

    def operations(self, config: Any, cameras: int) -> Operations:
        """See `operations.operations`."""
        return operations.operations(config, cameras)


FAMILY = SmolVLAFamily()
