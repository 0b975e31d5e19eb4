"""From data that lerobot recorded, and a SmolVLA that it saved, to exports that it runs: its actions are ours."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

import metalora_jax as ml
from experiments.peer.client import Peer
from experiments.peer.rollout import plugged
from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.policies import stages
from metalora_jax.policies.smolvla.presets import preset
from metalora_jax.training.pretrain import train_tokenizer
from tests import lerobot_directory, lerobot_robot_fake, own_robot
from tests.own_robot import ALOHA, SO100

pytestmark = [pytest.mark.lerobot, pytest.mark.parquet]
ROOT = Path(__file__).parents[2]
TASKS, NEW = ("pick up the cube", "put the cube in the box"), "push the cube"
ONE = SO100._replace(cameras=("front",), fps=10)  # degrees
CHUNK = 5


class Case(NamedTuple):
    """Who recorded the data, and how, and what is exported after it."""

    kind: own_robot.Kind
    version: str  # of lerobot
    pictures: str
    form: str  # --format of export


CASES = {
    "SO-100, H.264, 0.6.1": Case(SO100, "0.6.1", "h264", "peft"),
    "ALOHA, AV1, 0.4.4": Case(ALOHA, "0.4.4", "av1", "lerobot_plugin"),
    "one camera, PNG, 0.4.4": Case(ONE, "0.4.4", "png", "merged"),
}


@pytest.fixture(scope="module")
def peers(lerobot_python):
    with Peer(lerobot_python("0.6.1")) as new, Peer(lerobot_python("0.4.4")) as old:
        yield {"0.6.1": new, "0.4.4": old}


@pytest.fixture(scope="module")
def policy(peers, tmp_path_factory):
    """A small SmolVLA with random weights, for three cameras and six joints, as lerobot 0.6.1 saves one."""
    there = tmp_path_factory.mktemp("policy")
    config = dataclasses.replace(lerobot_directory.small(), cameras=3, chunk_size=CHUNK)
    fields = lerobot_directory.small_fields(config, there / "vlm") | {"load_vlm_weights": False}
    train_tokenizer([*TASKS, NEW], 320).save(str(there / "tokenizer.json"))
    made = lerobot_directory.policy_config(**fields)
    paths = dict(directory=str(there / "policy"), tokenizer=str(there / "tokenizer.json"))
    peers["0.6.1"].write_policy(**paths, fields=made)
    return there / "policy"


def metalora(where, command, *options):
    words = [sys.executable, "-m", "metalora_jax.commands", command, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=where, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def record(case, peers, folder, name, tasks, each):
    kind = case.kind
    demos, root = own_robot.demos(kind, tasks, each, size=64), folder / name
    file = folder / f"{name}.npz"
    own_robot.write_source(file, demos, kind.names, kind.cameras, kind.fps, "fake_arm")
    peers[case.version].record(root=str(root), source=str(file), how=case.pictures)


class Exported(NamedTuple):
    """A folder with base, adapter and an export, "out"."""

    kind: own_robot.Kind
    form: str
    folder: Path
    run: str  # the command that is printed


@pytest.fixture(scope="module", params=CASES)
def exported(request, peers, policy, tmp_path_factory):
    """convert, adapt and export, as the page "Your own robot" says; the start of the adapter is random."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp("robot")
    record(case, peers, folder, "my_dataset", TASKS, 3)
    record(case, peers, folder, "my_new_task", (NEW,), 2)
    metalora(folder, "convert", f"--policy={policy}", "--demos=my_dataset", "--output=base")
    base = bases.load(folder / "base")
    assert base.embodiment.cameras == case.kind.cameras
    start = adapter.fresh(base, preset("plan", b_std=0.1))
    adapter.save(folder / "start", base, start.placement, start.meta_params, config={})
    learning = "--steps=3", "--frames=4", "--optimizer=adam", "--learning_rate=0.01", "--noconventions"
    metalora(folder, "adapt", "--base=base", "--adapter=start", "--demos=my_new_task", "--output=adapter", *learning)
    given = [] if case.form == "lerobot_plugin" else [f"--policy={policy}"]
    options = f"--format={case.form}", "--output=out", "--adapter=adapter", "--base=base", *given
    said = metalora(folder, "export", *options)
    return Exported(case.kind, case.form, folder, re.search(r"^run: +(.*)$", said, re.MULTILINE)[1])


def ours(exported, look, task, noise):
    """The commands (chunk, action) from one look at the robot."""
    base = ml.load_base(exported.folder / "base")
    model = ml.load_adapter(exported.folder / "adapter", base).learner.model()
    pictures, state = look
    images = np.stack([pictures[camera] for camera in exported.kind.cameras])
    observation = base.preprocessor.observe(images[None], state[None], task)
    return base.preprocessor.commands(np.asarray(stages.sample(model, observation, noise, None)), state[None])[0]


def noise_of_the_plugin(exported):
    sizes = ml.load_base(exported.folder / "base").sizes
    return jax.random.normal(jax.random.fold_in(jax.random.key(0), 0), (1, sizes.chunk, sizes.action))


def look_at(kind, number):
    pictures, state = lerobot_robot_fake.seen(number, list(kind.cameras), len(kind.names))
    return pictures, kind.scale * state


def error(commands, expected, kind):
    """The largest difference, in the scale of the robot's motions."""
    assert np.std(expected, axis=0).min() > 0
    found = np.abs(np.asarray(commands) - expected).max() / kind.scale
    print(f"largest difference: {found:.2g} of the motions")
    return found


def test_lerobots_actions_are_ours(exported, peers, tmp_path):
    """On a robot whose cameras have other names than in the data, with --rename_map as third_party/lerobot.md says."""
    kind, noise = exported.kind, noise_of_the_plugin(exported)
    pictures, state = look_at(kind, 3)
    key = "observation.images."
    fields = {f"{key}other_{camera}": picture for camera, picture in pictures.items()}
    np.savez(tmp_path / "look.npz", **fields, **{"observation.state": state}, noise=noise)
    renamed = {f"{key}other_{camera}": f"{key}{camera}" for camera in kind.cameras}
    asked = dict(policy=str(exported.folder / "out"), file=str(tmp_path / "look.npz"), task=NEW, rename_map=renamed)
    said = peers["0.6.1"].act(**asked, noise="noise")["commands"]
    assert error(said, ours(exported, (pictures, state), NEW, noise), kind) < 1e-4


def test_the_printed_command_runs(exported, peers, lerobot_python, tmp_path):
    """As it is printed, on a robot that is made up; what it does is what we would do with torch's noise, or ours."""
    kind, log = exported.kind, tmp_path / "log.json"
    (tmp_path / "plugged").mkdir()
    environment = plugged(lerobot_python("0.6.1"), tmp_path / "plugged", Path(lerobot_robot_fake.__file__).parent)
    environment[lerobot_robot_fake.ARM] = json.dumps({"joints": kind.names, "steps": CHUNK, "log": str(log)})
    options = dict(shell=True, check=True, cwd=exported.folder, stdin=subprocess.DEVNULL)
    subprocess.run(exported.run, env=environment, **options)
    told = json.loads(log.read_text())["told"]
    assert len(told) == CHUNK
    if exported.form == "lerobot_plugin":
        noise = noise_of_the_plugin(exported)
    else:
        shape = noise_of_the_plugin(exported).shape
        noise = np.array(peers["0.6.1"].noise(seed=lerobot_robot_fake.SEED, shape=shape)["noise"], np.float32)
    seen = lerobot_robot_fake.seen(told[0][0], list(kind.cameras), len(kind.names))
    expected = ours(exported, seen, NEW, noise)
    assert error([command for _, command in told], expected, kind) < 1e-4
