"""A whole few-shot comparison: a config, read once into typed values and checked before any work begins."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metalora_jax.adaptation.identification import KINDS, LINEAR, YAW
from metalora_jax.adapters import Placement, placement
from metalora_jax.data.config import DataConfig, check_named
from metalora_jax.envs.collect import Collection
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.envs.control import Control
from metalora_jax.evaluation import alterations
from metalora_jax.evaluation.offline import rivals
from metalora_jax.evaluation.offline.measure import Settings as Offline
from metalora_jax.evaluation.protocol.alternatives import Alternatives, recipes
from metalora_jax.evaluation.protocol.few_shot import Protocol
from metalora_jax.evaluation.protocol.grid import Grid, fixed
from metalora_jax.evaluation.protocol.identified import RIDGE
from metalora_jax.evaluation.protocol.scene import Opening
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.fields import check_positive, each, from_fields, optional, to_fields
from metalora_jax.training.methods import LEARNED, OPTIMIZERS
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


class Identified(NamedTuple):
    """An arm that takes no gradient step: a map of the base's commands, see `adaptation.identification`."""

    identify: str  # "yaw": the angle of a turned hand; "linear": any lag, matrix and offset; "calibration": of joints

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Identified":
        """Reads an arm with a field `identify`; see `fields.from_fields`."""
        self = from_fields(cls, fields, "arms")
        if self.identify not in KINDS:
            raise ValueError(f"arms: nothing identifies {self.identify!r}; choose {' or '.join(KINDS)}")
        return self


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
    """Everything that decides what a comparison measures; `from_config` makes it of a config."""

    base: str  # a base directory; "" is the nano base in the package
    seed: int  # of conditions and demonstrations
    meta_seeds: tuple[int, ...]  # of meta-training
    conditions: ConditionRange | None
    arms: Mapping[str, Recipe | Fresh | Identified]
    # Inner optimiser -> rates to try; "learned" -> factors on learned rates; "ridge" -> of arms that identify.
    search: Mapping[str, tuple[float, ...]]
    validation: DataConfig
    test: DataConfig
    protocol: Protocol
    workers: int  # processes
    report: Settings
    control: Control | None = None  # how policies drive a simulated robot; None: they are judged by `offline` alone
    offline: Offline | None = None  # how they are judged on demonstrations, where there is no simulator
    films: Films = Films((), 0)
    replay: DataConfig | None = None  # demonstrations of earlier tasks, which every arm adapts on too
    convert: Conversion | None = None  # how `base` is made where it does not exist
    demos: Collection | None = None  # what quickstart.py records
    scene: Opening | None = None  # what quickstart.py shows first
    alternatives: Alternatives | None = (
        None  # further ways to train an arm, of which validation chooses, see `alternatives`
    )
    grid: Grid | None = None  # where the arms came from, see `grid.expand`
    recorded: bool = False  # each task's demonstrations were recorded under one condition, which its episodes share

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Comparison":
        """Reads a whole config, such as those in configs/ give; a section `grid` must have been expanded.

        Raises:
          ValueError: a field is unknown or missing, its value is out of range, or fields contradict each other; the
            message names it.
        """
        if "arms" not in config:
            raise ValueError("the config has no section `arms`, so it is another command's: see configs/README.md")
        test = DataConfig.from_config(config.get("test", {}))
        if not test.cameras:
            raise ValueError("test.cameras is empty: name the cameras that the simulator is to render, in order")
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
                "control": optional(lambda fields: Control.from_config(fields, test.cameras)),
                "offline": optional(lambda fields: from_fields(Offline, fields, "offline").checked()),
                "films": Films.from_config,
                "report": Settings.from_json,
                "replay": optional(DataConfig.from_config),
                "convert": optional(Conversion.from_config),
                "demos": optional(Collection.from_config),
                "scene": optional(Opening.from_config),
                "alternatives": optional(each(each(fixed))),
                "grid": optional(Grid.from_config),
            },
        )
        _check(self)
        return self

    def to_json(self) -> dict[str, Any]:
        """The config, with the defaults of what it left out; sections that it does not have are left out."""
        written = {name: to_fields(value) for name, value in self._asdict().items()}
        written["recorded"] = True if self.recorded else None
        return {name: value for name, value in written.items() if value is not None or name == "conditions"}

    @property
    def closed_loop(self) -> Control:
        """How policies drive the robot.

        Raises:
          ValueError: this comparison has no simulator.
        """
        if self.control is None:
            raise ValueError("the config has no section `control`: it is judged offline, and nothing is driven")
        return self.control

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


def _arm(fields: Mapping[str, Any]) -> Recipe | Fresh | Identified:
    if "identify" in fields:
        return Identified.from_config(fields)
    return Recipe.from_config(fields) if "meta" in fields else Fresh.from_config(fields)


def _check(self: Comparison) -> None:
    """Refuses what would have no effect, or fail after hours of training."""
    for name, arm in self.arms.items():
        if not re.fullmatch(r"[\w-][\w.-]*", name) or name == "base":
            raise ValueError(f"arms: {name!r} cannot name an arm; use letters, digits, '_', '-', '.', and not 'base'")
        if isinstance(arm, Recipe) and (arm.base not in ("", self.base) or arm.seed not in (0, *self.meta_seeds)):
            raise ValueError(f"arms.{name}.base and .seed are the comparison's `base` and `meta_seeds`: leave them out")
    for name, ways in (self.alternatives or {}).items():
        if name not in self.trained:
            raise ValueError(f"alternatives: {name!r} is no arm that is trained; choose {', '.join(self.trained)}")
        recipes(name, self.trained[name], ways)
    for name, values in (("meta_seeds", self.meta_seeds), ("protocol.shots", self.protocol.shots)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} is {values}; name at least one, and none twice")
    check_positive(self, "config", ("workers",))
    parts = {f"arms.{name}.data": recipe.data for name, recipe in self.trained.items()}
    parts |= {"validation": self.validation, "test": self.test}
    for section, part in (parts | ({} if self.replay is None else {"replay": self.replay})).items():
        check_named(part, section)
    if (self.control is None) == (self.offline is None):
        raise ValueError("a comparison has a section `control` (a simulator) or `offline` (none): name one of the two")
    if self.offline and (taken := set(self.arms) & set(rivals.NAMES)):
        raise ValueError(f"arms: {min(taken)!r} is the name of a rival; call the arm otherwise")
    if self.offline and (self.films.tasks or self.protocol.retention_steps or self.protocol.altered):
        raise ValueError("films.tasks, protocol.retention_steps and .altered need a simulator: not with `offline`")
    _check_steps(self)
    _check_retention(self.protocol)
    if bool(self.protocol.altered) != bool(self.protocol.altered_steps):
        raise ValueError(
            "protocol.altered names inputs to replace, protocol.altered_steps says when: set both or neither"
        )
    turned = [name for name, arm in self.arms.items() if isinstance(arm, Identified) and arm.identify == YAW]
    if self.offline and self.conditions is None and turned:
        raise ValueError(
            f"arms.{turned[0]}: without a simulator or `conditions`, nothing says that commands are displacements of a "
            f"hand; leave the arm out, or identify {LINEAR!r}"
        )
    if self.offline and self.protocol.search_episodes:
        raise ValueError("protocol.search_episodes needs a simulator: without one the loss decides; set it to 0")
    if self.recorded and (self.conditions or self.offline or self.protocol.distribution != "conditions"):
        raise ValueError(
            "with `recorded` the files of demonstrations say what they were recorded under: leave out `conditions`, "
            'set protocol.distribution to "conditions", and have a section `control`'
        )
    if self.conditions is not None and (named := self.conditions.of_the_scene):
        raise ValueError(
            f"conditions.{named[0]} needs demonstrations that were recorded under it: record them with `robots` in the "
            "parts of metalora collect, set `recorded`, and leave `conditions` out"
        )
    alterations.check(self.protocol.altered, self.test.cameras, "protocol.altered")
    _check_search(self)
    if unknown := set(self.films.tasks) - set(self.test.tasks):
        raise ValueError(f"films.tasks: {min(unknown)!r} is not in test.tasks")
    if self.report.reference not in self.arms:
        raise ValueError(f"report.reference = {self.report.reference!r} is no arm; choose {', '.join(self.arms)}")
    if isinstance(self.arms[str(self.report.reference)], Identified):
        raise ValueError(
            f"report.reference = {self.report.reference!r} takes no gradient steps; choose an arm that does"
        )


def _check_steps(self: Comparison) -> None:
    protocol, known = self.protocol, self.protocol.steps
    if list(known) != sorted({*known}) or min(known, default=0) < 0:
        raise ValueError(f"protocol.steps is {known}; name step counts from 0 on, ascending")
    if min(protocol.shots) < 1:
        raise ValueError(f"protocol.shots is {protocol.shots}; an arm adapts to at least one demonstration")
    check_positive(protocol, "protocol", ("demonstration_draws", "episodes", "frames", "noise_draws", "max_norm"))
    for name in ("search_episodes", "search_widenings"):
        if getattr(protocol, name) < 0:
            raise ValueError(f"protocol.{name} is {getattr(protocol, name)}; it must not be negative")
    named = {"protocol.shots_steps": protocol.shots_steps if len(protocol.shots) > 1 else ()}
    named |= {
        f"protocol.{name}": (getattr(protocol, name),)
        for name in ("retention_steps", "instruction_steps", "altered_steps")
    }
    named["films.steps"] = (self.films.steps,) if self.films.tasks else ()
    named["report.steps"] = () if self.report.steps is None else (self.report.steps,)
    for name, steps in named.items():
        if unknown := set(steps) - {0, *known}:
            raise ValueError(f"{name}: {min(unknown)} is not in protocol.steps {known}, so nothing would be measured")


def _check_retention(protocol: Protocol) -> None:
    tasks, count, scales = protocol.retention_tasks, protocol.retention_per_cell, protocol.retention_scales
    if not 0 < count <= max(1, len(tasks)):
        most = f"1 to {len(tasks)}, the number of protocol.retention_tasks" if tasks else "1 without retention_tasks"
        raise ValueError(f"protocol.retention_per_cell is {count}; it must be {most}")
    if wrong := [scale for scale in scales if not 0 < scale < 1]:
        raise ValueError(
            f"protocol.retention_scales holds {wrong[0]}; they lie between 0, the base, and 1, the adapted policy, "
            "which are both run anyway"
        )
    if len(set(scales)) < len(scales):
        raise ValueError(f"protocol.retention_scales is {scales}; name none twice")
    used = {
        "retention_per_cell": count > 1,
        "retention_scales": bool(scales),
        "retention_gated": protocol.retention_gated,
    }
    if not protocol.retention_steps and (idle := [name for name, on in used.items() if on]):
        raise ValueError(f"protocol.{idle[0]} is about retention: set protocol.retention_steps, or leave it out")
    if protocol.retention_gated and not tasks:
        raise ValueError(
            "protocol.retention_gated needs protocol.retention_tasks: without them retention is measured on the task "
            "that was adapted to, whose instruction cannot tell the two apart; name other tasks, or leave it out"
        )


def _check_search(self: Comparison) -> None:
    if unknown := self.search.keys() - {"learned", RIDGE, *OPTIMIZERS}:
        raise ValueError(f"search: no optimizer named {min(unknown)!r}; choose learned, {', '.join(OPTIMIZERS)}")
    for name, rates in self.search.items():
        if wrong := [rate for rate in rates if not 0 < rate < math.inf]:
            raise ValueError(f"search.{name} holds {wrong[0]}; each must be a number above 0")
    learned = [name for name, arm in self.trained.items() if arm.meta.optimizer in LEARNED]
    if learned and not self.search.get("learned"):
        raise ValueError(f"search.learned names no factor for the arm {learned[0]!r}, which has learned rates: (1.0,)")
    fitted = [name for name, arm in self.arms.items() if isinstance(arm, Identified) and arm.identify != YAW]
    if fitted and not self.search.get(RIDGE):
        raise ValueError(f"search.{RIDGE} names no strength of regularisation for the arm {fitted[0]!r}: (0.01, 0.1)")
    stepping = [arm for arm in self.arms.values() if not isinstance(arm, Identified)]
    if len(learned) < len(stepping) and not any(self.search.get(name) for name in OPTIMIZERS):
        raise ValueError(f"search names no rate of {' or '.join(OPTIMIZERS)}, and there are arms without learned rates")
