"""Recipes of training: configs, read once into typed values and checked before any work begins."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from metalora_jax.adapters import Placement, placement
from metalora_jax.data import instructions
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.config import DataConfig, check_named
from metalora_jax.data.deployments import DeploymentRange
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.envs.control import Control
from metalora_jax.fields import check_positive, each, from_fields, optional, to_fields
from metalora_jax.training.augmentation import SymmetryConfig
from metalora_jax.training.grounding import Grounding
from metalora_jax.training.methods import LEARNED, MetaConfig, build
from metalora_jax.training.validation import Validation
from metalora_jax.types import PyTree


class BatchConfig(NamedTuple):
    """What one meta-step consumes."""

    meta_batch: int  # tasks
    shots: int  # demonstrations in a task's support set
    frames: int  # frames in each inner step's minibatch
    query_demos: int
    query_frames: int
    noise_draws: int  # samples of (t, noise) per frame
    retained_tasks: Sequence[str] = ()  # of data.tasks, those that are not adapted to, and that adapting must not cost
    retained_frames: int = 0  # frames of those, which every task's query has besides its own
    replay_frames: int = 0  # frames of those, which every inner step's minibatch has besides its own

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "BatchConfig":
        """Reads the section `batch`; see `fields.from_fields`.

        Raises:
          ValueError: retained tasks, and the frames drawn of them, do not belong together.
        """
        self = from_fields(cls, fields, "batch")
        counts = ("meta_batch", "shots", "frames", "query_demos", "query_frames", "noise_draws")
        check_positive(self, "batch", counts)
        if bool(self.retained_tasks) != (self.retained_frames > 0):
            raise ValueError(
                f"batch.retained_tasks names {len(self.retained_tasks)} tasks, retained_frames is "
                f"{self.retained_frames}: set both or neither"
            )
        if self.replay_frames < 0 or (self.replay_frames and not self.retained_tasks):
            raise ValueError(
                f"batch.replay_frames is {self.replay_frames}: name the tasks to replay in batch.retained_tasks, or 0"
            )
        return self


class OuterConfig(NamedTuple):
    """The outer optimiser: Adam with clipping, warm-up and a cosine to a tenth."""

    steps: int
    learning_rate: float  # of theta
    learning_rate_of_rates: float | None  # of the logarithms of learned inner rates; None where they are not learned
    max_norm: float

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "OuterConfig":
        """Reads the section `outer`; see `fields.from_fields`. Raises ValueError for fewer than two steps."""
        self = from_fields(cls, fields, "outer")
        check_positive(self, "outer", ("learning_rate", "learning_rate_of_rates", "max_norm"))
        if self.steps < 2:
            raise ValueError(f"outer.steps is {self.steps}; a schedule takes at least two")
        return self


class Recipe(NamedTuple):
    """Everything that decides what `meta_train` learns; `from_config` makes it of a config."""

    base: str  # a base directory, or a policy's; "" is the nano base in the package
    seed: int
    data: DataConfig
    conditions: ConditionRange | None  # hidden deployment conditions, one drawn for each task; None: as recorded
    placement: Placement
    batch: BatchConfig
    meta: MetaConfig
    outer: OuterConfig
    checkpoint_every: int  # outer steps
    augment: ImageAugmentation | None = None
    symmetries: SymmetryConfig | None = None
    paraphrases: instructions.Table = {}  # noqa: RUF012 - never written to
    deployments: DeploymentRange | None = None  # copies of each task on other robots of the same kind
    validation: Validation | None = None  # what is kept out, and looked at on the way

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Recipe":
        """Reads a whole config, such as those in configs/ give.

        Raises:
          ValueError: a field is unknown or missing, its value is out of range, or fields contradict each other; the
            message names it.
        """
        self = from_fields(
            cls,
            config,
            parts={
                "data": DataConfig.from_config,
                "conditions": optional(ConditionRange.from_config),
                "placement": placement.from_json,
                "batch": BatchConfig.from_config,
                "meta": MetaConfig.from_config,
                "outer": OuterConfig.from_config,
                "augment": optional(ImageAugmentation.from_config),
                "symmetries": optional(SymmetryConfig.from_config),
                "paraphrases": instructions.checked,
                "deployments": optional(DeploymentRange.from_config),
                "validation": optional(Validation.from_config),
            },
        )
        check_positive(self, "config", ("checkpoint_every",))
        if self.validation and (both := set(self.validation.tasks) & set(self.data.tasks)):
            raise ValueError(f"validation.tasks: {min(both)!r} is in data.tasks, too; leave it out of one of them")
        build(_no_loss, self.meta)  # refuses methods that are unknown, and options without effect
        if self.conditions is not None and (named := self.conditions.of_the_scene):
            raise ValueError(
                f"conditions.{named[0]} changes what is seen or how things move, which recorded demonstrations do not "
                "show: record some under it (`conditions` of collect.py's parts), and leave it out here"
            )
        if (self.meta.optimizer in LEARNED) != (self.outer.learning_rate_of_rates is not None):
            raise ValueError(
                "outer.learning_rate_of_rates belongs to learned inner rates: set it with them, and only with them"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """The config, with the defaults of what it left out."""
        written = {name: to_fields(value) for name, value in self._asdict().items() if name != "placement"}
        if self.validation is None:
            del written["validation"]
        return written | {"placement": placement.to_json(self.placement)}


def _no_loss(theta: PyTree, batch: Any, key: jax.Array) -> jax.Array:
    raise AssertionError("no method is run where a recipe is read")


class Pretraining(NamedTuple):
    """A recipe of pretraining: a whole config, read once."""

    seed: int
    data: Mapping[str, DataConfig]  # parts; the first one's tasks are learned
    model: Mapping[str, Any]  # sizes of the policy: its family knows the fields
    control: Control  # how the result is run, for evaluate_base.py
    batch: int  # frames
    noise_draws: int  # samples of (t, noise) per frame
    augment: ImageAugmentation  # fixed variants of every frame
    symmetries: SymmetryConfig
    shift: int  # [px] largest move of a picture, drawn in every step
    brightness: float  # largest relative change, drawn in every step
    learning_rate: float  # the highest
    steps: int
    warmup: int  # steps
    weight_decay: float
    checkpoint_every: int  # steps
    paraphrases: instructions.Table = {}  # noqa: RUF012 - never written to
    opening: float = 0.0  # share of a batch from demonstrations' openings, where only pictures tell where to go
    # dimensions of an action that are learned relative to the state at a chunk's start, see `data.relative.mask_of`
    relative: Sequence[int | str] = ()
    grounding: Grounding | None = None  # what the vision tower learns beforehand, where the world is a simulator

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Pretraining":
        """Reads a whole config, such as configs/nano_smolvla.py gives.

        Raises:
          ValueError: a field is unknown, missing or out of range, or parts of the data differ in their cameras, or
            select only some frames.
        """
        if "model" not in config:
            raise ValueError("the config has no section `model`, so it is another command's: see configs/README.md")
        data = each(DataConfig.from_config)(config.get("data", {}))
        if not data:
            raise ValueError("config.data has no part: name the demonstrations to learn from")
        (first, whole), *others = data.items()
        for name, part in data.items():
            check_named(part, f"data.{name}")
        for name, part in others:
            if tuple(part.cameras) != tuple(whole.cameras):
                raise ValueError(f"data.{name}.cameras = {part.cameras} must be data.{first}.cameras = {whole.cameras}")
        if any(part.frames is not None for part in data.values()):
            raise ValueError("data.frames saves work in a frozen front, and pretraining has none: leave it out")
        self = from_fields(
            cls,
            config,
            parts={
                "data": lambda _: data,
                "model": dict,
                "control": lambda fields: Control.from_config(fields, whole.cameras),
                "augment": ImageAugmentation.from_config,
                "symmetries": SymmetryConfig.from_config,
                "paraphrases": instructions.checked,
                "grounding": optional(lambda fields: Grounding.from_config(fields, config["control"]["world"])),
            },
        )
        if not 0 <= self.opening <= 1:
            raise ValueError(f"opening = {self.opening} is a share of a batch: choose it from 0 to 1")
        if not 0 <= self.warmup < self.steps:
            raise ValueError(
                f"warmup = {self.warmup} must be at least 0 and below steps = {self.steps}: shorten it, or train longer"
            )
        return self

    @property
    def learned(self) -> DataConfig:
        """The first part of the data."""
        return next(iter(self.data.values()))
