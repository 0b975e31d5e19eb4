"""pi0 to the rest of the package, see `policies.policy`; pi0.5's family is in `family_pi05`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from tokenizers import Tokenizer

from metalora_jax.adapters.attach import Theta
from metalora_jax.adapters.placement import Placement
from metalora_jax.policies.pi0 import directory as directories
from metalora_jax.policies.pi0 import (
    export,
    lerobot_export,
    openpi_factors,
    operations,
    peft_names,
    preprocess,
    presets,
)
from metalora_jax.policies.pi0.config import CAMERAS, Pi0Config
from metalora_jax.policies.pi0.model import Pi0
from metalora_jax.policies.policy import Checkpoint, ExportDtype, Family, Operations, Policy, Progress


class Pi0Family(Family):
    """The state is a token of the suffix; all frames of a task have one prompt."""

    type: ClassVar[str] = "pi0"
    served_dtype: ClassVar[str | None] = "bfloat16"
    cameras: ClassVar[tuple[str, ...]] = CAMERAS
    relative_by_config: ClassVar[bool] = True

    def load(self, directory: Path, tokenizer: str | Path | None, progress: Progress, **overrides: Any) -> Checkpoint:
        """See `directory.load`."""
        return directories.load(directory, tokenizer, progress, **overrides)

    def save(self, directory: Path, model: Any, tokenizer: Tokenizer) -> None:
        """See `directory.save`."""
        directories.save(directory, model, tokenizer)

    def prepare_images(self, images: np.ndarray, size: int) -> np.ndarray:
        """See `preprocess.prepare_frames`."""
        return preprocess.prepare_frames(images, size)

    def prepare_images_for(self, config: Any, images: np.ndarray, size: int) -> np.ndarray:
        """See `preprocess.prepare_frames`."""
        return preprocess.prepare_frames(images, size, config.style)

    def tokenize(
        self, config: Any, tokenizer: Tokenizer, instruction: str, states: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `preprocess.tokenize`."""
        return preprocess.tokenize(config, tokenizer, instruction, states)

    def excess(self, config: Any, tokenizer: Tokenizer, instruction: str, states: np.ndarray) -> np.ndarray:
        """See `preprocess.excess`."""
        return preprocess.excess(config, tokenizer, instruction, states)

    def preset(self, name: str, *, rank: int | None = None, b_std: float = 0.0) -> Placement:
        """See `presets.preset`."""
        return presets.preset(name, rank=rank, b_std=b_std)

    @property
    def presets(self) -> tuple[str, ...]:
        """See `presets.preset`."""
        return presets.NAMES

    def module_names(self, config: Any) -> Mapping[str, tuple[tuple[str, ...], int | None]]:
        """lerobot's names."""
        return peft_names.module_names(config)

    def without_effect(self, paths: Iterable[str]) -> list[str]:
        """See `presets.dead`."""
        return presets.dead(paths)

    def create(self, fields: Mapping[str, Any], rngs: nnx.Rngs) -> Policy:
        """The nano size, but for the fields that are given."""
        return Pi0(Pi0Config.pi0_nano(**fields), rngs=rngs)

    def prepare_float_images(self, images: jax.Array, size: int) -> jax.Array:
        """See `preprocess.prepare_image`."""
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
        """See `export.merged`, whose cameras openpi's configs name; or `lerobot_export.merged`, by what `source` is."""
        if lerobot_export.is_policy(source):
            if data_set:
                raise ValueError(f"lerobot's format has one set of statistics, without a name; leave out {data_set!r}")
            lerobot_export.merged(directory, model, source, statistics, dtype, cameras)
            return
        export.merged(directory, model, source, statistics, dtype, data_set)

    def served_as(self, directory: Path) -> str | None:
        """openpi rounds to bfloat16, lerobot where config.json says so."""
        return lerobot_export.served_dtype(directory) if lerobot_export.is_policy(directory) else self.served_dtype

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
        """See `lerobot_export.peft`."""
        lerobot_export.peft(directory, placement, theta, model, source_name, source, statistics, manifest, cameras)

    def export_lora(
        self,
        directory: Path,
        placement: Placement,
        theta: Theta,
        model: Any,
        source: Path,
        statistics: Mapping[str, np.ndarray],
        dtype: ExportDtype,
        data_set: str = "",
    ) -> None:
        """See `openpi_factors.factors` and `export.merged`."""
        factors = openpi_factors.factors(model.config, placement, theta)
        export.merged(directory, model, source, statistics, dtype, data_set, factors)

    def untold(self, config: Any) -> Mapping[str, Any]:
        """See `export.untold`."""
        return export.untold(config)

    def serve_command(self, directory: Path, config: Any) -> str | None:
        """See `export.serve_command`; None for lerobot's format."""
        if lerobot_export.is_policy(directory):
            return None
        return export.serve_command(directory, config)

    def operations(self, config: Any, cameras: int) -> Operations:
        """See `operations.operations`."""
        return operations.operations(config, cameras)


FAMILY = Pi0Family()
