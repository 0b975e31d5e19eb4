"""Meta-seeds that repeat each other: a deterministic method run three times is one run, not three.

Full fine-tuning has no random start, and an adapter that has taken no step is the base. Their episodes come out equal
for every meta-seed, so that counting them all would make intervals and p-values too narrow.
"""

from collections.abc import Sequence
from typing import NamedTuple

from metalora_jax.evaluation.reports.contrasts import grouped, method_name, pair_key
from metalora_jax.evaluation.reports.records import Episode


class Cell(NamedTuple):
    """What one number of a report is computed from."""

    method: str
    distribution: str
    split: str
    shots: int
    steps: int
    misled: bool  # told another task's instruction
    altered: str | None  # which input was replaced
    scale: float | None = None  # what adapting changed was multiplied by this


def cell(episode: Episode) -> Cell:
    """The cell of an episode."""
    e = episode
    return Cell(method_name(e), e.distribution, e.split, e.shots, e.steps, e.told is not None, e.altered, e.scale)


def counted_once(episodes: Sequence[Episode]) -> tuple[list[Episode], dict[Cell, int]]:
    """The episodes without those of meta-seeds that repeat an earlier one, and how many seeds each cell lost.

    A seed repeats another if all its episodes of a cell ended alike: success, length, return and support loss. Where
    all ended in one way (every episode fails at the last step, say), equal outcomes are no sign of equal policies, and
    all seeds count.
    """
    kept: list[Episode] = []
    lost: dict[Cell, int] = {}
    for key, group in grouped(episodes, cell).items():
        seen: list[dict[tuple, tuple]] = []
        for seed in grouped(group, lambda e: e.meta_seed).values():
            outcomes = {pair_key(e)[:-1]: (e.success, e.length, e.episode_return, e.support_loss) for e in seed}
            if outcomes in seen and len(set(outcomes.values())) > 1:
                lost[key] = lost.get(key, 0) + 1
            else:
                seen.append(outcomes)
                kept += seed
    return kept, lost
