"""The doctor with real simulators: recordings of scripted experts pass, and their damage is found."""

import h5py
import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.envs.collect import RecordingJob, record_file
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.evaluation.doctor.run import Request, examine


def examined(world, path, **fields):
    return {result.outcome.check: result.outcome for result in examine(Request(world, (str(path),), **fields))}


def wrong(outcomes):
    return {name: "\n".join(map(str, o.findings)) for name, o in outcomes.items() if o.findings}


def rewrite(path, key, change):
    with h5py.File(path, "a") as opened:
        for group in opened["data"].values():
            value = change(group[key][()])
            del group[key]
            group[key] = value


@pytest.mark.metaworld
def test_metaworld_recordings_pass_and_their_damage_is_found(tmp_path):
    path = tmp_path / "drawer-open_demo.hdf5"
    conditions = ConditionRange(yaw=(1.0, 2.0), camera=0.1)  # hidden from the policy, told by the file
    record_file(RecordingJob("drawer-open", path, 3, 50, 0.0, "metaworld", 64, conditions))
    outcomes = examined("metaworld", path)
    assert wrong(outcomes) == {}
    assert outcomes["replay"].note.startswith("3 of 3 succeed")
    rewrite(path, "obs/agentview_rgb", lambda images: images[:, ::-1])
    rewrite(path, "actions", lambda actions: actions * [1, 1, 1, -1])
    found = wrong(examined("metaworld", path, replays=1))
    assert "agentview is upside down" in found["image orientation"]
    assert "the fingers stay open under a command to close" in found["gripper"]


@pytest.mark.libero
def test_libero_recordings_pass_and_their_damage_is_found(tmp_path):
    task = "pick_up_the_salad_dressing_and_place_it_in_the_basket"
    path = tmp_path / f"{task}_demo.hdf5"
    record_file(RecordingJob(task, path, 1, 100, 0.0, "libero", 64))
    outcomes = examined("libero", path)
    assert wrong(outcomes) == {}
    assert outcomes["replay"].note.startswith("1 of 1 succeed")
    [demo] = libero_hdf5.read(path, ("agentview", "eye_in_hand"))
    flipped = demo._replace(images=demo.images[:, :, ::-1], actions=demo.actions * [1, 1, 1, 1, 1, 1, -1])
    libero_hdf5.write(path, [flipped], ("eye_in_hand", "agentview"), task, {})
    found = wrong(examined("libero", path))
    assert "shows what" in found["image orientation"]
    assert "fingers open when the gripper command says close" in found["gripper"]
