"""Pictures against the simulator's: at a start of their own each counts, at another start what half of them show."""

from types import SimpleNamespace

import pytest

from metalora_jax.evaluation.doctor import pictures
from metalora_jax.evaluation.doctor.recordings import Recording
from tests.evaluation.doctor_demos import CAMERAS, scenery


def recordings(mirrored, total=4):
    """Demonstrations of one file, of which the first ones are mirrored."""
    own, blank = scenery(), dict.fromkeys(Recording._fields)
    seen = [own[:, :, ::-1] if i < mirrored else own for i in range(total)]
    return [
        Recording(**blank | {"file": "a", "name": f"demo_{i}", "digest": SimpleNamespace(first=first)})
        for i, first in enumerate(seen)
    ]


@pytest.mark.parametrize(
    ("mirrored", "own_start", "named"),
    [(1, True, "(1 of 4)"), (1, False, ""), (2, False, "(2 of 4)"), (4, False, "(4 of 4)")],
)
def test_an_odd_picture_counts_at_its_own_start_alone(mirrored, own_start, named):
    found = recordings(mirrored)
    seen = {(r.file, r.name): scenery() for r in found}
    outcome = pictures.against_simulator(found, CAMERAS, seen, () if own_start else seen)
    assert len(outcome.findings) == (2 if named else 0)  # one for each camera
    assert all(named in f.where and "mirrored, compared with the simulator" in f.what for f in outcome.findings)
