"""What a report shows, and in which order."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a report: the `report` entry of a run's config.json."""

    title: str = "Few-shot adaptation"
    reference: str | None = None  # method that the others are tested against
    thresholds: tuple[float, ...] = (0.5, 0.8)  # success rates for steps-to-threshold
    steps: int | None = None  # steps of the success-vs-shots figure; None: the most that all methods share
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # method -> name shown; also sets the order
    groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)  # title -> methods of one figure

    def __post_init__(self) -> None:
        if not all(0 < threshold <= 1 for threshold in self.thresholds):
            raise ValueError(f"report settings: thresholds {self.thresholds} are success rates; give values in (0, 1]")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Settings":
        """Settings from a JSON object; ValueError naming an unknown field."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"config.json: unknown report settings {unknown}; choose from {sorted(known)}")
        values: dict[str, Any] = {k: tuple(v) if k == "thresholds" else v for k, v in fields.items()}
        return cls(**values)


DEFAULT = Settings()
