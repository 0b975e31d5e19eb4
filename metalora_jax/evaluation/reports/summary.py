"""From raw episodes to the numbers of a report: pure functions, no file and no figure in sight."""

import dataclasses
from collections.abc import Mapping, Sequence

from metalora_jax.evaluation.reports.cautions import cautions
from metalora_jax.evaluation.reports.contrasts import (
    Alteration,
    Order,
    Retention,
    WrongInstruction,
    alterations,
    grouped,
    method_name,
    retention,
    wrong_instruction,
)
from metalora_jax.evaluation.reports.copies import counted_once
from metalora_jax.evaluation.reports.frontier import Frontier, frontier
from metalora_jax.evaluation.reports.records import Episode
from metalora_jax.evaluation.reports.sections import Section, section
from metalora_jax.evaluation.reports.settings import DEFAULT, Settings


@dataclasses.dataclass(frozen=True)
class Summary:
    """Every number of a report."""

    settings: Settings
    episodes: int
    errors: int
    sections: tuple[Section, ...]
    retention: tuple[Retention, ...]
    wrong_instruction: tuple[WrongInstruction, ...]
    alterations: tuple[Alteration, ...]
    frontier: Frontier
    fingerprints: Mapping[str, int]  # method -> how many different ones its episodes carry
    cautions: tuple[str, ...]


def summarise(episodes: Sequence[Episode], settings: Settings = DEFAULT) -> Summary:
    """All numbers of a report.

    Episodes with split "base" make the retention table, those that were told another task's instruction a table of
    their own, and every other split a section. Policies that were scaled or gated are in the frontier alone.
    """
    if not episodes:
        raise ValueError("no episodes to summarise; run the evaluation first")
    methods = {method_name(e) for e in episodes}
    if settings.reference is not None and settings.reference not in methods:
        raise ValueError(f"reference method '{settings.reference}' has no episodes; choose from {sorted(methods)}")
    recorded = len(episodes)
    gated = [e for e in episodes if e.gated]  # the base's episodes again, whatever the seed: no copies to leave out
    episodes, copies = counted_once([e for e in episodes if not e.gated])
    order = _ranker(settings)
    whole = [e for e in episodes if e.scale is None]
    plain = [e for e in whole if e.altered is None]
    told = [e for e in plain if e.told is not None]
    untold = [e for e in plain if e.told is None and e.split != "base"]
    groups = grouped(untold, lambda e: (e.distribution, e.split))
    sections = tuple(section(name, group, settings, order, copies) for name, group in sorted(groups.items()))
    kept = retention([e for e in plain if e.split == "base"], order)
    misled = wrong_instruction(told, untold, order)
    inputs = alterations([e for e in whole if e.altered is not None], [e for e in plain if e.told is None], order)
    both = grouped((e for e in episodes if e.altered is None and e.told is None), lambda e: e.split == "base")
    tradeoffs = frontier(both.get(False, ()), both.get(True, ()), gated, order)
    every = [*episodes, *gated]
    marks = {name: len({e.fingerprint for e in group}) for name, group in grouped(every, method_name).items()}
    return Summary(
        settings=settings,
        episodes=recorded,
        errors=sum(e.error is not None for e in every),
        sections=sections,
        retention=kept,
        wrong_instruction=misled,
        alterations=inputs,
        frontier=tradeoffs,
        fingerprints=dict(sorted(marks.items())),
        cautions=tuple(cautions(every, sections, kept, misled, inputs, tradeoffs, copies)),
    )


def _ranker(settings: Settings) -> Order:
    named = list(settings.labels)
    return lambda method: (named.index(method) if method in named else len(named), method)
