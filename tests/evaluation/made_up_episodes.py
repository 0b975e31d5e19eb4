"""Episodes that nobody ran, for counts by hand."""

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
