"""The doctor on demonstrations: a sound file passes, and each kind of damage is named by the check that is for it."""

import json
import re

import h5py
import numpy as np
import pytest

from metalora_jax.data import libero_hdf5, normalize
from metalora_jax.types import Demo
from tests.evaluation.doctor_demos import CAMERAS, DEMOS, STEPS, TASK, each, examined, make_demo, put, times, wrong


def test_a_sound_file_passes_every_check(file, simulator):
    statistics = file.with_name("statistics.json")
    # Of enough data: other episodes than these.
    others = normalize.compute([make_demo(seed) for seed in range(10, 40)])
    statistics.write_text(json.dumps(others.to_json()))
    outcomes = examined(file, statistics=str(statistics))
    assert wrong(outcomes) == {}
    assert [name for name, outcome in outcomes.items() if outcome.skipped] == []
    assert outcomes["files"].note == "1 file, 4 demonstrations read"
    assert outcomes["replay"].note.startswith("4 of 4 succeed")


def one(number, change):
    """Changes one."""

    def damage(path):
        with h5py.File(path, "a") as opened:
            change(opened["data"][f"demo_{number}"])

    return damage


def swap(group):
    group.move("obs/agentview_rgb", "obs/t")
    group.move("obs/topview_rgb", "obs/agentview_rgb")
    group.move("obs/t", "obs/topview_rgb")


def duplicate(group):
    del group["obs/topview_rgb"]
    group["obs/topview_rgb"] = group["obs/agentview_rgb"][()]


def remove(key):
    return lambda group: group.__delitem__(key)


def truncate(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def tell(words):
    def damage(path):
        with h5py.File(path, "a") as opened:
            opened["data"].attrs["problem_info"] = json.dumps({"language_instruction": words})

    return damage


def absolute(group):
    group["actions"][:-1, :3] = group["obs/ee_pos"][1:]


def provenance(value):
    def damage(path):
        with h5py.File(path, "a") as opened:
            opened["data"].attrs["provenance"] = json.dumps(value)

    return damage


def columns(*order):
    return lambda actions: actions[:, list(order)]


RGB = "obs/agentview_rgb"


@pytest.mark.parametrize(
    ("damage", "check", "complaint"),
    [
        (each(put(RGB, lambda x: x[:, ::-1])), "image orientation", "agentview is upside down, compared with the sim"),
        (each(put(RGB, lambda x: x[:, :, ::-1])), "image orientation", "agentview is mirrored"),
        (each(put("obs/topview_rgb", lambda x: x[:, ::-1, ::-1])), "image orientation", "topview is turned by 180"),
        (one(2, put(RGB, lambda x: x[:, ::-1])), "one orientation", r"demo_2 \(1 of 4\): agentview is upside down"),
        (each(swap), "image orientation", "agentview shows what topview sees"),
        (each(duplicate), "pictures", "agentview and topview show the same picture"),
        (one(1, put(RGB, lambda x: x * 0)), "pictures", r"demo_1 \(1 of 4\): agentview shows one even colour"),
        (one(1, put(RGB, lambda x: x[:1].repeat(len(x), 0))), "pictures", r"demo_1 .*: agentview does not change"),
        (each(put("actions", times(1, 1, 1, -1))), "gripper", "fingers open when the gripper command says close"),
        (one(3, put("actions", times(1, 1, 1, -1))), "gripper", r"demo_3 \(1 of 4\): the fingers open"),
        (
            each(put("actions", columns(3, 0, 1, 2))),
            "gripper",
            "fingers respond to action dimension 0, not to the last",
        ),
        (each(put("actions", times(1, 1, 1, -1))), "replay", "its actions, replayed, do not solve the task"),
        (each(put("actions", times(20, 20, 20, 1))), "action range", r"leaves \[-1, 1\]"),
        (each(put("actions", times(0.01, 0.01, 0.01, 1))), "action range", "metres, not fractions of a step"),
        (each(put("actions", times(0.1, 0.1, 0.1, 1))), "action frame", "moves 10 times as far as commanded"),
        (each(put("actions", columns(1, 0, 2, 3))), "action frame", "follow the commands' y, x, z: axes are swapped"),
        (each(put("actions", times(1, -1, 1, 1))), "action frame", "against its command in y: the sign is reversed"),
        (each(put("actions", lambda a: a * (np.arange(40) % 4 == 0)[:, None])), "action range", "more than 50%"),
        (each(put("obs/ee_pos", lambda x: x * 1000)), "state", "does not start where the simulator puts it"),
        (each(put("actions", lambda a: np.roll(a, -8, 0))), "action frame", "steps after its commands, usually 3"),
        (each(put("actions", lambda a: a[::-1])), "action frame", "hand does not follow its commands"),
        (each(put("actions", times(0, 0, 0, 1))), "action range", "the arm is never commanded to move"),
        (each(absolute), "action range", "absolute places, not displacements"),
        (each(put("obs/ee_pos", lambda x: x * 1000)), "proprioception", "m away: millimetres"),
        (each(put("obs/ee_pos", lambda x: x[:1].repeat(len(x), 0))), "proprioception", "the hand never moves"),
        (each(put(RGB, lambda x: x[..., ::-1])), "image orientation", "agentview has red and blue swapped"),
        (
            one(1, put(RGB, lambda x: x[np.minimum(np.arange(40), 15)])),
            "pictures",
            "demo_1 .*: agentview does not change",
        ),
        (each(put(RGB, lambda x: x // 8)), "pictures", "agentview is nearly black"),
        (each(put(RGB, lambda x: x[..., :1].repeat(3, -1))), "pictures", "agentview has no colour"),
        (provenance([]), "files", r"provenance is \[\], expected a JSON object"),
        (
            each(lambda group: group.__setitem__("states", np.zeros((0, 9)))),
            "files",
            r"states \(0, 9\) for 40 .* 3 similar demon",
        ),
        (one(0, remove("obs/ee_pos")), "files", "key missing .*ee_pos"),
        (one(3, remove(RGB)), "files", "key missing .*agentview_rgb"),
        (one(1, put("actions", lambda a: a * np.nan)), "files", "demo_1: actions at step 0 is not finite"),
        (each(put("actions", lambda a: a[:, :3])), "widths", "state and actions are 4 and 3 wide, the world's 4 and 4"),
        (truncate(0.5), "files", "damaged or truncated"),
        (tell(""), "files", "the instruction is ''"),
        (
            tell("push the drawer shut "),
            "instructions",
            "'push the drawer shut ' is spelled differently from 'push the d",
        ),
        (tell("Push_the_drawer_shut"), "instructions", "is spelled differently"),
        (tell("pull the drawer open"), "instructions", "is that of drawer-open, not of drawer-close"),
        (tell("tidy the kitchen"), "instructions", "is not that of drawer-close"),
    ],
)
def test_damage_is_named_by_the_check_that_is_for_it(file, simulator, damage, check, complaint):
    damage(file)
    found = wrong(examined(file))
    assert check in found, found
    assert re.search(complaint, found[check]), found


def test_the_others_are_checked_where_one_is_damaged(file, simulator):
    one(1, remove("actions"))(file)
    damaged = file.with_name("door-open_demo.hdf5")
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    file.with_name("faucet-close_demo.hdf5").write_bytes(file.read_bytes())
    outcomes = examined(file.parent)
    found = wrong(outcomes)
    assert outcomes["files"].note == "3 files, 6 demonstrations read"
    assert len(outcomes["files"].findings) == 3
    assert "door-open_demo.hdf5: " in found["files"]
    assert "faucet-close_demo.hdf5: " in found["simulator"] or "died without an error message" in found["simulator"]
    assert "is that of drawer-close, not of faucet-close" in found["instructions"]
    assert outcomes["replay"].note.startswith("3 of 3 succeed")


def test_the_remedy_of_a_reversed_gripper_is_that_which_solves_the_task(file, simulator):
    each(put("actions", times(1, 1, 1, -1)))(file)
    [finding] = examined(file)["replay"].findings
    assert finding.remedy == "they solve it with the sign of the gripper reversed: fix that"


@pytest.mark.parametrize(
    ("provenance", "reason"),
    [({"seeds": [0, 1, 2, 3], "noise": 0.3}, "recorded with pushes"), ({}, "no start is recorded")],
)
def test_what_cannot_be_replayed_is_skipped_with_the_reason(file, simulator, provenance, reason):
    libero_hdf5.write(file, DEMOS, CAMERAS, TASK, provenance)
    outcomes = examined(file)
    assert wrong(outcomes) == {}
    assert reason in outcomes["replay"].skipped
    assert outcomes["image orientation"].note.startswith("3 first pictures")  # held against any start of the task


@pytest.mark.parametrize("steps", [2, 3, 6])
def test_a_demonstration_of_few_steps_is_looked_at(file, simulator, steps):
    short = [Demo(d.instruction, *(array[:steps] for array in d[1:4])) for d in DEMOS]
    libero_hdf5.write(file, short, CAMERAS, TASK, {"seeds": [0, 1, 2, 3]})
    assert "do not solve the task" in wrong(examined(file))["replay"]


def test_patterns_that_match_nothing(tmp_path, simulator):
    assert "none.hdf5: no such file" in wrong(examined(tmp_path / "none.hdf5"))["files"]
    assert "*_demo.hdf5: no such file" in wrong(examined(tmp_path / "*_demo.hdf5"))["files"]


def test_an_unknown_task_gets_the_near_ones(file, simulator):
    other = file.with_name("my_drawer_demo.hdf5")
    libero_hdf5.write(other, [d._replace(instruction="push drawer shut") for d in DEMOS], CAMERAS, "my", {})
    found = wrong(examined(other))
    assert (
        "no task of this world has instruction 'push drawer shut'; near: push the drawer shut" in found["instructions"]
    )
    assert "is not that of drawer-close" in wrong(examined(other, task=TASK))["instructions"]
    assert "no Meta-World task named 'drawer'; near: drawer-" in wrong(examined(other, task="drawer"))["files"]


@pytest.mark.usefixtures("simulator")
def test_one_episode_is_held_against_the_others_in_a_world_too(tmp_path):
    demos = [make_demo(seed) for seed in range(8)]
    wait = np.r_[np.zeros(30, int), 0:STEPS]  # stands still for 30 frames, then does as the others
    late = Demo(*(part if isinstance(part, str) else part[wait] for part in demos[3][:4]))
    late.actions[:30, :3] = 0
    for name, made in (("sound", demos), ("late", [*demos[:3], late, *demos[4:]])):
        libero_hdf5.write(tmp_path / f"{name}_demo.hdf5", made, CAMERAS, TASK, {})
    assert "idle ends" not in wrong(examined(tmp_path / "sound_demo.hdf5"))
    assert re.search(r"late_demo\.hdf5 demo_3", wrong(examined(tmp_path / "late_demo.hdf5"))["idle ends"])
