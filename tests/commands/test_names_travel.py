"""The programs from a dataset to a policy that lerobot runs: what the data say of the robot arrives there."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.lerobot_command import lerobot_command
from metalora_jax.data import lerobot_v3, libero_hdf5, sources
from metalora_jax.data.sources.embodiment import UNKNOWN, Embodiment
from metalora_jax.policies.smolvla.presets import preset
from metalora_jax.types import Demo
from tests import lerobot_directory
from tests.child_processes import COMPILED_ONCE

ROOT = Path(__file__).parents[2]
JOINTS = ("pan.pos", "lift.pos", "elbow.pos", "flex.pos", "roll.pos", "gripper.pos")


def run(where, command, *options):
    program = [sys.executable, "-m", "metalora_jax.commands", command, *options]
    known = os.environ | {"PYTHONPATH": str(ROOT)} | COMPILED_ONCE
    done = subprocess.run(program, capture_output=True, text=True, cwd=where, env=known, check=False)
    return done.stdout + done.stderr if done.returncode else done.stdout


@pytest.fixture
def directory(tmp_path):
    """A dataset `set` of 10 frames per second, whose cameras are wrist and top."""
    rng = np.random.default_rng(0)
    state, actions = np.cumsum(rng.normal(size=(2, 30, 6)), axis=1).astype(np.float32) * 10
    demo = Demo("lift the cube", rng.integers(0, 256, (30, 2, 16, 16, 3), np.uint8), state, actions)
    joints = {"state": JOINTS, "action": JOINTS}
    lerobot_v3.write(tmp_path / "set", [demo, demo], ("wrist", "top"), 10, "so101_follower", joints=joints)
    return tmp_path


def test_to_lerobot_keeps_joints_rate_and_robot(directory):
    assert "dataset: copy" in run(directory, "to_lerobot", "--demos=set", "--output=copy")
    there, copy = (json.loads((directory / name / "meta" / "info.json").read_text()) for name in ("set", "copy"))
    assert copy == there
    assert copy["features"]["action"]["names"] == list(JOINTS)
    said = run(directory, "to_lerobot", "--demos=set", "--fps=30", "--output=other")
    assert "error: --fps=30, but set has 10 frames per second; leave --fps out" in said
    assert not (directory / "other").exists()


def test_convert_records_them_and_export_hands_them_to_lerobot(directory):
    lerobot_directory.write(directory / "policy", dataclasses.replace(lerobot_directory.small(), cameras=3))
    said = run(directory, "convert", "--policy=policy", "--demos=set", "--cameras=top,wrist", "--output=base")
    assert "cameras:     top, wrist\n" in said
    assert "rate:        10 frames per second\n" in said
    assert "predicts:    actions as they are recorded\n" in said
    base = bases.load(directory / "base")
    assert base.embodiment.action == JOINTS
    start = adapter.fresh(base, preset("head", b_std=0.1))
    seen = dataclasses.replace(base.embodiment, picture=(120, 160))  # as adapt and meta_train record it
    saved = dict(config={"instruction": "put it on Ann's tray"}, embodiment=seen)
    adapter.save(directory / "adapter", base, start.placement, start.meta_params, **saved)
    options = "--adapter=adapter", "--base=base", f"--policy={directory / 'policy'}", "--output=out", "--format=peft"
    said = run(directory, "export", *options)
    assert "run:      cd out && lerobot-rollout --policy.path=. --robot.type=so101_follower " in said
    for index, camera in enumerate(("top", "wrist")):  # lerobot takes no camera without size and rate
        assert f"{camera}: {{type: opencv, index_or_path: {index}, width: 160, height: 120, fps: 10}}" in said
    words = shlex.split(said.partition("&& ")[2].partition("\n")[0])
    assert words[-2:] == ["--fps=10", "--task=put it on Ann's tray"]
    assert "a camera that cannot show 10 pictures a second takes another fps of its own" in said
    config, peft = (
        json.loads((directory / "out" / f"{name}.json").read_text()) for name in ("config", "adapter_config")
    )
    seen = [key for key, feature in config["input_features"].items() if feature["type"] == "VISUAL"]
    assert seen == ["observation.images.top", "observation.images.wrist"]
    assert peft["base_model_name_or_path"] == "../policy"


def test_what_hdf5_does_not_say_is_told_on_the_command_line(directory):
    [demo, *_] = sources.open(directory / "set", ("wrist", "top")).demos("lift the cube")
    libero_hdf5.write(
        directory / "lift_demo.hdf5", [demo._replace(images=np.asarray(demo.images[:])[:, 1:])], ("top",), "lift", {}
    )
    lerobot_directory.write(directory / "policy", lerobot_directory.small())
    told = ["--policy=policy", "--demos=lift_demo.hdf5", "--output=base"]
    said = run(directory, "convert", *told, f"--joints={','.join(JOINTS[1:])}")
    assert "error: --joints names 5 dimensions, state has 6 in lift_demo.hdf5" in said
    said = run(directory, "convert", *told, f"--joints={','.join(JOINTS)}", "--fps=20")
    assert "rate:        20 frames per second\n" in said
    found = bases.load(directory / "base").embodiment
    assert (found.state, found.action, found.fps) == (JOINTS, JOINTS, 20.0)
    said = run(directory, "convert", "--policy=policy", "--demos=set", "--output=other", "--fps=20")
    assert "error: --fps=20, but set has 10 frames a second; leave it out" in said


def test_what_the_data_do_not_say_is_asked_for_and_not_made_up():
    command, *said = lerobot_command(Embodiment(cameras=("top",)), "out").splitlines()
    assert "{top: {type: opencv, index_or_path: 0, width: WIDTH, height: HEIGHT, fps: FPS}}" in command
    assert not any(part in command for part in ("--fps", "640", "30"))
    assert [line.strip().partition(" is not recorded")[0] for line in said] == [
        "the size of the cameras' pictures",
        "the rate of the data",
    ]
    whole = Embodiment(cameras=("top",), fps=30.0, picture=(480, 640))
    assert len(lerobot_command(whole, "out").splitlines()) == 1
    assert "--robot.type=ROBOT" in lerobot_command(UNKNOWN, "out")
