"""One problem of a file's states is one finding, whatever its size in each demonstration."""

import numpy as np
import pytest

from metalora_jax.evaluation.doctor import proprioception
from metalora_jax.evaluation.doctor.recordings import Recording


def recording(file, number, far=0.5, turn=3.1):
    """A hand of LIBERO's that moves `far` [m] away, turned by `turn` [rad]."""
    state = np.zeros((9, 8), np.float32)
    state[:, :3], state[:, 3] = np.linspace(0.9 * far, far, 9)[:, None], turn
    blank = dict.fromkeys(Recording._fields)
    own = {"file": file, "name": f"demo_{number}", "state": state, "actions": np.ones((9, 7), np.float32)}
    return Recording(**blank | own)


@pytest.mark.parametrize(
    ("field", "sizes", "said"),
    [("turn", (0.2, 0.35, 0.5), "0.2 to 0.5 rad"), ("far", (400.0, 512.5, 640.0), "400 to 640 m away")],
)
def test_one_problem_of_many_sizes_is_one_finding_that_says_their_range(field, sizes, said):
    found = [recording("a.hdf5", i, **{field: size}) for i, size in enumerate(sizes)]
    outcome, sound = proprioception.states([*found, recording("a.hdf5", 3)], "libero")
    (finding,) = outcome.findings
    assert said in finding.what
    assert "(3 of 4)" in finding.where
    assert [r.name for r in sound] == ["demo_3"]


def test_files_and_problems_are_told_apart():
    found = [recording("a.hdf5", 0, turn=0.2), recording("b.hdf5", 0, turn=0.2), recording("b.hdf5", 1, far=500.0)]
    outcome, _ = proprioception.states(found, "libero")
    assert [f.file for f in outcome.findings] == ["a.hdf5", "b.hdf5", "b.hdf5"]
    assert "at most 0.2 rad" in outcome.findings[0].what
