"""A whole few-shot comparison: a config, read once into typed values and checked before any work begins."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metalora_jax.adapters import Placement, placement
from metalora_jax.data.config import DataConfig
from metalora_jax.envs.collect import Collection
from metalora_jax.envs.conditions import ConditionRange
from metalora_jax.envs.control import Control
from metalora_jax.evaluation.protocol.few_shot import Protocol
from metalora_jax.evaluation.protocol.grid import Grid
from metalora_jax.evaluation.protocol.scene import Opening
from metalora_jax.evaluation.reports.summary import Settings
from metalora_jax.fields import each, from_fields, optional, to_fields
from metalora_jax.training.recipe import Recipe


class Fresh(NamedTuple):
    """An arm that starts from fresh adapters, such as LoRA from scratch."""

    placement: Placement

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Fresh":
        """Reads an arm without a section `meta`; see `fields.from_fields`."""
        return from_fields(cls, fields, "arms", {"placement": placement.from_json})

    def to_json(self) -> dict[str, Any]:
        """The arm's config."""
        return {"placement": placement.to_json(self.placement)}


class Films(NamedTuple):
    """Which before-and-after films are made."""

    tasks: tuple[str, ...]
    steps: int  # gradient steps of the adapted half

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Films":
        """Reads the section `films`; see `fields.from_fields`."""
        return from_fields(cls, fields, "films")


class Conversion(NamedTuple):
    """The lerobot policy that the base is made of."""

    policy: str  # a directory, or a name on the hub
    tokenizer: str | None

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Conversion":
        """Reads the section `convert`; see `fields.from_fields`."""
        return from_fields(cls, fields, "convert")


class Comparison(NamedTuple):
    """Everything that decides what a comparison measures.

    comparison = Comparison.from_config(config.to_dict())
    """

    base: str  # a base directory; "" is the nano base in the package
    seed: int  # of conditions and demonstrations
    meta_seeds: tuple[int, ...]  # of meta-training
    conditions: ConditionRange | None
    arms: Mapping[str, Recipe | Fresh]
    search: Mapping[str, tuple[float, ...]]  # inner optimiser -> rates to try; "learned" -> factors on learned rates
    validation: DataConfig
    test: DataConfig
    protocol: Protocol
    control: Control
    films: Films
    workers: int  # processes
    report: Settings
    replay: DataConfig | None = None  # demonstrations of earlier tasks, which every arm adapts on too
    convert: Conversion | None = None  # how `base` is made where it does not exist
    demos: Collection | None = None  # what quickstart.py records
    scene: Opening | None = None  # what quickstart.py shows first
    grid: Grid | None = None  # where the arms came from, see `grid.expand`

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Comparison":
        """Reads a whole config, such as those in configs/ give; a section `grid` must have been expanded.

        Raises:
          ValueError: a field is unknown or missing, its value is out of range, or fields contradict each other; the
            message names it.
        """
        test = DataConfig.from_config(config.get("test", {}))
        self = from_fields(
            cls,
            config,
            parts={
                "conditions": optional(ConditionRange.from_config),
                "arms": each(_arm),
                "search": each(tuple),
                "validation": DataConfig.from_config,
                "test": lambda _: test,
                "protocol": Protocol.from_config,
                "control": lambda fields: Control.from_config(fields, test.cameras),
                "films": Films.from_config,
                "report": Settings.from_json,
                "replay": optional(DataConfig.from_config),
                "convert": optional(Conversion.from_config),
                "demos": optional(Collection.from_config),
                "scene": optional(Opening.from_config),
                "grid": optional(Grid.from_config),
            },
        )
        if self.report.reference not in self.arms:
            raise ValueError(f"report.reference = {self.report.reference!r} is no arm; choose {', '.join(self.arms)}")
        return self

    def to_json(self) -> dict[str, Any]:
        """The config, with the defaults of what it left out; sections that it does not have are left out."""
        written = {name: to_fields(value) for name, value in self._asdict().items()}
        return {name: value for name, value in written.items() if value is not None or name == "conditions"}

    @property
    def base_directory(self) -> Path | None:
        """Of the base; None is the one in the package."""
        return Path(self.base) if self.base else None

    @property
    def source(self) -> str:
        """How the config names what the base came from, for provenance."""
        return self.base if self.convert is None else self.convert.policy

    @property
    def trained(self) -> dict[str, Recipe]:
        """The arms that are meta-trained."""
        return {name: arm for name, arm in self.arms.items() if isinstance(arm, Recipe)}

    @property
    def data(self) -> Sequence[DataConfig]:
        """All demonstrations that are read."""
        parts = [recipe.data for recipe in self.trained.values()] + [self.validation, self.test]
        return parts if self.replay is None else [*parts, self.replay]

    def recipe(self, name: str, seed: int) -> Recipe:
        """How the arm `name` is meta-trained with a seed."""
        return self.trained[name]._replace(seed=seed, base=self.base)


def _arm(fields: Mapping[str, Any]) -> Recipe | Fresh:
    return Recipe.from_config(fields) if "meta" in fields else Fresh.from_config(fields)
