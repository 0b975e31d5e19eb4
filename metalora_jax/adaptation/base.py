"""A base: the frozen policy with all that must travel with it, as one directory.

config.json  model.safetensors  tokenizer.json     the policy, as its family writes it
normalization.json                                 statistics of the tasks it was trained on
README.md                                          its card
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from tokenizers import Tokenizer

from metalora_jax import trees
from metalora_jax.data import normalize
from metalora_jax.data.normalize import Statistics
from metalora_jax.data.preprocessor import Preprocessor
from metalora_jax.machine import files
from metalora_jax.machine.progress import progress
from metalora_jax.policies import hub, registry
from metalora_jax.policies.policy import Checkpoint, Family, Policy
from metalora_jax.types import Sizes

NANO = Path(__file__).parents[1] / "policies" / "smolvla" / "nano"
_STATISTICS = "normalization.json"
_LARGE = 50_000_000  # parameters


class Base(NamedTuple):
    """A frozen policy and its conventions."""

    model: Policy
    tokenizer: Tokenizer
    statistics: Statistics
    fingerprint: str  # of weights, config and statistics; adapters name the base that they fit by it

    @property
    def family(self) -> Family:
        """How policies of this type are read, written and fed."""
        return registry.of_model(self.model)

    @property
    def config(self) -> Any:
        """Sizes and switches of the policy; the fields depend on its family."""
        return self.model.config

    @property
    def large(self) -> bool:
        """Whether a frame takes seconds on a CPU, so that work on frames is kept, or kept short."""
        return trees.count(nnx.to_pure_dict(nnx.state(self.model, nnx.Param))) > _LARGE

    @property
    def sizes(self) -> Sizes:
        """Widths and sizes that demonstrations are brought to."""
        return self.model.sizes

    @property
    def preprocessor(self) -> Preprocessor:
        """From the robot's own units to what the policy reads, and back."""
        return preprocessor(self.family, self.model, self.tokenizer, self.statistics)

    def encode_text(self, instruction: str, state: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The prompt of one frame: token ids (L,) and their mask (L,).

        Args:
          instruction: what the robot is told.
          state: (state_dim,) in the robot's units, for prompts that hold it; None is the mean of the statistics.

        Raises:
          ValueError: the prompt is too long.
        """
        known = self.statistics.state_mean if state is None else state
        tokens, mask = self.preprocessor.text(instruction, self.preprocessor.normalize_state(known)[None])
        return tokens[0], mask[0]


def preprocessor(family: Family, model: Policy, tokenizer: Tokenizer, statistics: Statistics) -> Preprocessor:
    """What a policy asks of its inputs."""
    sizes = model.sizes
    return Preprocessor(
        statistics,
        sizes,
        lambda images: family.prepare_images(images, sizes.image),
        partial(family.tokenize, model.config, tokenizer),
    )


def make(model: Policy, tokenizer: Tokenizer, statistics: Statistics) -> Base:
    """Puts a base together and fingerprints it."""
    _, params = nnx.split(model)
    parts = (
        trees.digest(nnx.to_pure_dict(params)),
        json.dumps(model.config.to_dict(), sort_keys=True),
        statistics.digest(),
    )
    return Base(model, tokenizer, statistics, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16])


def load(
    directory: str | Path | None = None,
    statistics: Statistics | None = None,
    tokenizer: str | Path | None = None,
    **overrides: Any,
) -> Base:
    """Reads a base: a directory that `save` wrote, or a lerobot policy by directory or name on the hub.

    Its family is that of the `type` in config.json, see `policies.registry`.

    Args:
      directory: where it is; None or "" is the nano SmolVLA that ships with the package.
      statistics: to normalise by, in place of those that come with the policy.
      tokenizer: see `Family.load`.
      overrides: of the policy's config, such as param_dtype="bfloat16".

    Raises:
      ValueError: a file is missing or damaged, see `Family.load`; or the policy comes without statistics.
    """
    source = hub.local_directory(directory or NANO)
    family = registry.of_directory(source)
    found = family.load(source, tokenizer, partial(progress, description="reading weights, arrays"), **overrides)
    if found.tokenizer is None:
        raise ValueError(f"{source}/tokenizer.json is missing; a base needs the tokenizer it was trained with")
    if statistics is None:
        statistics = _statistics(source) if found.lerobot_config is None else _of_lerobot(directory or source, found)
    return make(found.model, found.tokenizer, statistics)


def _statistics(directory: Path) -> Statistics:
    file = directory / _STATISTICS
    if not file.is_file():
        raise ValueError(
            f"{file} is missing; a base needs the statistics it was trained with, never those of your demos"
        )
    return Statistics.from_json(files.read_json(file))


def _of_lerobot(source: str | Path, found: Checkpoint) -> Statistics:
    """The statistics of a lerobot policy, which are those that lerobot itself would use: the set without a name."""
    assert found.lerobot_config is not None
    modes = found.lerobot_config.get("normalization_mapping", {})
    sets = found.statistics
    scales = {}
    for kind, feature in (("STATE", "observation.state"), ("ACTION", "action")):
        stats = sets.get("", {}).get(feature)
        if stats is None:
            named = ", ".join(f"{name} ({' and '.join(each)})" for name, each in sets.items() if name)
            raise ValueError(
                f"{source} has no statistics of {feature} that are in force"
                + (f", only of the data sets {named}" if named else "")
                + "; give those of your training tasks"
            )
        scales[kind] = normalize.shift_and_scale(stats, modes.get(kind, "MEAN_STD"))
    return Statistics(*scales["STATE"], *scales["ACTION"])


def save(directory: str | Path, base: Base) -> None:
    """Writes a base directory (without its card)."""
    base.family.save(Path(directory), base.model, base.tokenizer)
    files.write_json(Path(directory) / _STATISTICS, base.statistics.to_json())
