"""Episodes that nobody ran, for counts by hand."""

import dataclasses

from metalora_jax.evaluation.reports.records import Episode
from metalora_jax.evaluation.reports.sections import Section
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.summary import summarise


def episode(method="meta", success=True, shots=5, steps=10, **fields) -> Episode:
    known = {
        "meta_seed": 0,
        "distribution": "tasks",
        "split": "test",
        "task": "door",
        "condition": {},
        "draw": 0,
        "episode_seed": 0,
        "episode_return": 1.0,
        "length": 50,
        "adapt_seconds": 2.0,
        "support_loss": None,
        "fingerprint": "abc",
        "error": None,
    }
    return Episode(method=method, success=success, shots=shots, steps=steps, **known | fields)


def row(method, outcomes, **fields) -> list[Episode]:
    """One episode for each letter of `outcomes`: 1 solved, 0 not."""
    return [episode(method, o == "1", episode_seed=i, **fields) for i, o in enumerate(outcomes)]


def only_section(episodes, **settings) -> Section:
    (section,) = summarise(episodes, Settings(**settings)).sections
    return section


def traded(gated=("a", "b")) -> list[Episode]:
    """Two new episodes and four earlier ones: of the base, of an adapted policy, of half of it, and with it gated."""
    earlier, alone = dict(split="base", task="old"), dict(shots=0, steps=0)
    off = row("base", "1101", **earlier, **alone, adapter_on=False)
    for_its_own = row("meta", "11", **earlier, adapted_to="door", gated=True)
    return [
        *row("base", "10", **alone),
        *(dataclasses.replace(e, commands=told) for e, told in zip(off, "abcd", strict=True)),
        *row("meta", "11"),
        *row("meta", "0001", **earlier, adapted_to="door"),
        *row("meta", "01", scale=0.5),
        *row("meta", "0101", scale=0.5, **earlier, adapted_to="door"),
        *(dataclasses.replace(e, commands=told) for e, told in zip(for_its_own, gated, strict=True)),
    ]
