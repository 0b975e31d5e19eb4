"""A base: the frozen policy with all that must travel with it, as one directory.

config.json  model.safetensors  tokenizer.json     the policy, as its family writes it
normalization.json                                 statistics of the tasks it was trained on
embodiment.json                                    names of cameras and joints, rate and units, where they are known
README.md                                          its card
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from flax import nnx
from tokenizers import Tokenizer

from metalora_jax import trees
from metalora_jax.adaptation import scaling
from metalora_jax.adapters import Placement, Theta
from metalora_jax.data import relative as relatives
from metalora_jax.data.normalize import Statistics
from metalora_jax.data.preprocessor import Preprocessor
from metalora_jax.data.sources import embodiment as embodiments
from metalora_jax.data.sources.embodiment import UNKNOWN, Embodiment
from metalora_jax.machine import files
from metalora_jax.machine.progress import progress
from metalora_jax.policies import hub, registry
from metalora_jax.policies.policy import Checkpoint, Family, Policy
from metalora_jax.types import Demo, Sizes

NANO = Path(__file__).parents[1] / "policies" / "smolvla" / "nano"
_STATISTICS, _EMBODIMENT = "normalization.json", "embodiment.json"
_LARGE = 50_000_000  # parameters


class Base(NamedTuple):
    """A frozen policy and its conventions."""

    model: Policy
    tokenizer: Tokenizer
    statistics: Statistics
    fingerprint: str  # of weights, config and statistics; adapters name the base that they fit by it
    embodiment: Embodiment = UNKNOWN  # of the robot whose data it was trained on; no part of the fingerprint

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
        lambda images: family.prepare_images_for(model.config, images, sizes.image),
        partial(family.tokenize, model.config, tokenizer),
        partial(family.excess, model.config, tokenizer),
    )


def make(model: Policy, tokenizer: Tokenizer, statistics: Statistics, embodiment: Embodiment = UNKNOWN) -> Base:
    """Puts a base together and fingerprints it.

    Raises:
      ValueError: the statistics are not sound, see `Statistics.checked`, or wider than the policy.
    """
    statistics.checked()
    for kind, width in (("state", model.sizes.state), ("action", model.sizes.action)):
        if (there := len(getattr(statistics, f"{kind}_mean"))) > width:
            raise ValueError(
                f"the statistics have {there} {kind} dimensions, the policy takes {width} at most; take a wider policy"
            )
    _, params = nnx.split(model)
    parts = (
        trees.digest(nnx.to_pure_dict(params)),
        json.dumps(model.config.to_dict(), sort_keys=True),
        statistics.digest(),
    )
    fingerprint = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return Base(model, tokenizer, statistics, fingerprint, embodiment)


def load(
    directory: str | Path | None = None,
    statistics: Statistics | None = None,
    tokenizer: str | Path | None = None,
    **overrides: Any,
) -> Base:
    """Reads a base: a directory that `save` wrote, a checkpoint of openpi's, or a lerobot policy by directory or name.

    Its family is that of the `type` in config.json, see `policies.registry`. What is doubtful about a public policy's
    statistics is logged.

    Args:
      directory: where it is; None or "" is the nano SmolVLA that ships with the package.
      statistics: to normalise by, in place of those that come with the policy.
      tokenizer: see `Family.load`.
      overrides: of the policy's config, such as param_dtype="bfloat16".

    Raises:
      ValueError: a file is missing or damaged, see `Family.load`; or the policy comes without statistics, or with some
        that contradict each other.
    """
    source, found = _found(directory, tokenizer, overrides)
    _refuse_adapter(directory or source, found)
    if statistics is None and found.normalization is not None:
        return _made(
            directory or source, found, scaling.of_policy(directory or source, found), _embodiment(source, found)
        )
    known = statistics or _statistics(source)
    return make(found.model, _tokenizer(source, found), known, _embodiment(source, found))


def convert(
    policy: str | Path,
    demos: Sequence[Demo] = (),
    tokenizer: str | Path | None = None,
    embodiment: Embodiment = UNKNOWN,
    absolute: bool = False,
    data_set: str = "",
    widths: tuple[int, int] | None = None,
    relative: Sequence[int | str] = (),
    of_differences: bool = False,
    **overrides: Any,
) -> tuple[Base, str]:
    """A base of a public policy, and where its statistics came from, in words. Doubts about them are logged.

    Args:
      policy: a directory, lerobot's or openpi's, or a name on the hub; a base directory is taken to normalise by its
        family's modes.
      demos: of training tasks; statistics are computed of them in the policy's own modes. None keeps the policy's own.
      tokenizer: see `Family.load`.
      embodiment: of the robot that recorded `demos`.
      absolute: the policy was trained on absolute actions, whatever its own statistics look like.
      data_set: whose statistics to take, of a policy that has several; openpi's asset id.
      widths: dimensions of the robot's state and action, where the policy's own statistics have more.
      relative: the dimensions of an action that it predicts relative to the state, by number or name, see
        `data.relative.mask_of`. None: those that a base directory names, and of other policies none.
      of_differences: the actions that it was trained on were recorded as differences, and made relative all the same.
      overrides: of the policy's config.

    Raises:
      ValueError: see `load`; the demonstrations do not fit the policy, or the widths its statistics; or actions are
        said to be both absolute and relative.
    """
    source, found = _found(policy, tokenizer, overrides)
    _refuse_adapter(policy, found)
    return _converted(source, policy, found, demos, embodiment, absolute, data_set, widths, relative, of_differences)


def convert_with_adapter(
    policy: str | Path,
    demos: Sequence[Demo] = (),
    tokenizer: str | Path | None = None,
    embodiment: Embodiment = UNKNOWN,
    absolute: bool = False,
    data_set: str = "",
    widths: tuple[int, int] | None = None,
    relative: Sequence[int | str] = (),
    of_differences: bool = False,
    **overrides: Any,
) -> tuple[Base, str, Placement, Theta]:
    """As `convert`, of a policy that holds an adapter, such as openpi's LoRA checkpoints: the adapter comes apart.

    Raises:
      ValueError: see `convert`; or it holds none.
    """
    source, found = _found(policy, tokenizer, overrides)
    if found.adapter is None:
        raise ValueError(f"{policy} holds no adapter beside its weights; make a base of it alone")
    return *_converted(
        source, policy, found, demos, embodiment, absolute, data_set, widths, relative, of_differences
    ), *found.adapter


def _refuse_adapter(policy: str | Path, found: Checkpoint) -> None:
    if found.adapter is not None:
        raise ValueError(
            f"{policy} holds LoRA beside its weights; make a base and an adapter of it: metalora convert "
            f"--policy={policy} --output=BASE --adapter_output=ADAPTER"
        )


def _converted(
    source: Path,
    policy: str | Path,
    found: Checkpoint,
    demos: Sequence[Demo],
    embodiment: Embodiment,
    absolute: bool,
    data_set: str,
    widths: tuple[int, int] | None,
    relative: Sequence[int | str],
    of_differences: bool,
) -> tuple[Base, str]:
    if relative and absolute:
        raise ValueError("actions are said to be absolute, and relative; leave one out")
    stated = found.normalization.relative if found.normalization else None
    if absolute and stated is not None:
        raise ValueError(f"{policy} says itself that its actions are relative; do not say that they are absolute")
    if of_differences and not relative:
        raise ValueError("actions are said to be relative of differences, but not which: name them (relative)")
    joints = embodiment.action or _embodiment(source, found).action or ()
    if demos:
        mask = None
        if relative:
            mask = relatives.mask_of(relative, demos[0].state.shape[1], demos[0].actions.shape[1], joints)
        elif found.normalization is None and (source / _STATISTICS).is_file():
            mask, of_differences = _statistics(source).relative, _statistics(source).of_differences
        elif stated is not None:
            mask = np.array(stated)
        known = scaling.of_demos(found, demos, absolute, mask, of_differences)
    elif found.normalization is None:
        known = scaling.Scaling(_statistics(source), f"those of {source / _STATISTICS}")
    else:
        known = scaling.of_policy(policy, found, data_set)
    if widths is not None:
        known = known._replace(statistics=known.statistics.narrowed(*widths))
    if relative and not demos:
        own_stats = known.statistics
        mask = relatives.mask_of(relative, len(own_stats.state_mean), len(own_stats.action_mean), joints)
        known = known._replace(statistics=own_stats._replace(relative=mask, of_differences=of_differences))
    own = _embodiment(source, found)
    for doubt in embodiments.check(embodiment, own, "the policy"):
        logging.warning("%s: %s", policy, doubt)
    here = embodiment.measured(demos) if demos else embodiment
    return _made(policy, found, known, here.over(own)), known.source


def _found(
    directory: str | Path | None, tokenizer: str | Path | None, overrides: Mapping[str, Any]
) -> tuple[Path, Checkpoint]:
    source = hub.local_directory(directory or NANO)
    family = registry.of_directory(source)
    return source, family.load(source, tokenizer, partial(progress, description="reading weights, arrays"), **overrides)


def _made(source: str | Path, found: Checkpoint, known: scaling.Scaling, embodiment: Embodiment) -> Base:
    for doubt in known.doubts:
        logging.warning("%s: %s", source, doubt)
    return make(found.model, _tokenizer(source, found), known.statistics, embodiment)


def _embodiment(directory: Path, found: Checkpoint) -> Embodiment:
    """As written beside a base; of a lerobot policy, the cameras that it names."""
    file = directory / _EMBODIMENT
    if not file.is_file():
        return Embodiment(found.cameras)
    try:
        return Embodiment.from_json(files.read_json(file))
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None


def _tokenizer(source: str | Path, found: Checkpoint) -> Tokenizer:
    if found.tokenizer is None:
        raise ValueError(f"{source}/tokenizer.json is missing; a base needs the tokenizer it was trained with")
    return found.tokenizer


def _statistics(directory: Path) -> Statistics:
    file = directory / _STATISTICS
    if not file.is_file():
        raise ValueError(
            f"{file} is missing; a base needs the statistics it was trained with, never those of your demos"
        )
    try:
        return Statistics.from_json(files.read_json(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def save(directory: str | Path, base: Base) -> None:
    """Writes a base directory (without its card), as a whole or not at all; one that is there is replaced."""
    target = Path(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_directory(target, overwrite=True) as staging:
        base.family.save(staging, base.model, base.tokenizer)
        files.write_json(staging / _STATISTICS, base.statistics.to_json())
        if base.embodiment != UNKNOWN:
            files.write_json(staging / _EMBODIMENT, base.embodiment.to_json())
