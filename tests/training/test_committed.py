"""Bases and adapters under experiments/results are read as they were written, and act as they did."""

from pathlib import Path

import pytest

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
BASES = [None, *sorted(file.parent for file in RESULTS.rglob("normalization.json"))]
ADAPTERS = sorted(file.parent for file in RESULTS.rglob("manifest.json"))


def test_every_adapter_fits_one_base():
    known = {base.fingerprint: base for base in map(bases.load, BASES)}
    assert len(known) == 5
    assert len(ADAPTERS) == 16
    for path in ADAPTERS:
        wanted = adapter.manifest_of(path)["base_fingerprint"]
        adapter.load(path, known[wanted])  # compares the golden probe


@pytest.mark.parametrize("base", BASES, ids=lambda path: path.parent.name if path else "nano")
def test_statistics_of_a_base_are_sound(base):
    bases.load(base).statistics.checked()
