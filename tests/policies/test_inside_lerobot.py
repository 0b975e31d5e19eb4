"""Base and adapter inside lerobot's own programs, by its plugin rule, with a robot that is made up."""

import json
import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import metalora_jax as ml
from experiments.peer.client import Peer
from metalora_jax.adaptation import adapter, lerobot_policy
from metalora_jax.adaptation.agent import Executing
from tests import lerobot_robot_fake

pytestmark = pytest.mark.lerobot
TASK, KEY, CHUNK = "open the drawer", jax.random.key(0), 10


@pytest.fixture(scope="module")
def agent():
    base = ml.load_base()
    return ml.Agent(base, ml.load_adapter(None, base).learner)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported") / "policy"
    lerobot_policy.write(directory, ml.load_base(), adapter.NANO, ["front"], lerobot_robot_fake.SIZE)
    return directory


@pytest.fixture(scope="module")
def python(lerobot_python):
    return lerobot_python("0.6.1")


def rollout(python, tmp_path, policy, *flags):
    """What the robot was told: (look, command) of every step."""
    robot = Path(lerobot_robot_fake.__file__).parent
    (tmp_path / robot.name).symlink_to(robot)
    metadata = tmp_path / f"{robot.name}-0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {robot.name}\nVersion: 0\n")
    log = tmp_path / "log.json"
    command = [Path(python).with_name("lerobot-rollout"), f"--policy.path={policy}", f"--task={TASK}"]
    command += ["--robot.type=fake", f"--robot.log={log}", '--robot.cameras_shown=["front", "wrist"]']
    command += ["--play_sounds=false", "--return_to_initial_position=false", *flags]
    environment = {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(tmp_path / "home")}
    subprocess.run(command, check=True, env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
    return json.loads(log.read_text())["told"]


def seen(look):
    pictures, state = lerobot_robot_fake.seen(look, ["front", "wrist"])
    return pictures["front"][None], state


def test_rollouts_are_the_agents_own(python, tmp_path, policy, agent):
    told = rollout(python, tmp_path, policy, "--duration=3", "--fps=10")
    assert len(told) > CHUNK  # 30 on an idle machine
    for number, first in enumerate(range(0, len(told), CHUNK)):
        part = told[first : first + CHUNK]
        expected = agent.act(*seen(part[0][0]), TASK, jax.random.fold_in(KEY, number))
        np.testing.assert_allclose([command for _, command in part], expected[: len(part)], atol=4e-5)


def test_chunks_are_computed_while_the_last_one_is_executed(python, tmp_path, policy, agent):
    told = rollout(python, tmp_path, policy, "--duration=3", "--fps=10", "--inference.type=rtc")
    assert len(told) > CHUNK
    assert np.isfinite([command for _, command in told]).all()


def test_guidance_and_refusals_in_lerobot(python, tmp_path, policy, agent):
    picture, state = seen(5)
    left = agent.act(picture, state, TASK, KEY)[4:]
    np.savez(tmp_path / "batch.npz", **{"observation.images.front": picture, "observation.state": state, "left": left})
    with Peer(python) as peer:
        answer = peer.plugin(policy=str(policy), file=str(tmp_path / "batch.npz"), task=TASK, delay=2, horizon=5)
    weights = np.array([1, 1, 3 / 4, 1 / 2, 1 / 4, 0])  # lerobot's linear schedule
    key = [jax.random.fold_in(KEY, number) for number in range(2)]
    np.testing.assert_allclose(answer["free"], agent.act(picture, state, TASK, key[0]), atol=4e-5)
    bound = agent.act(picture, state, TASK, key[1], Executing(left, weights, 10.0))
    np.testing.assert_allclose(answer["bound"], bound, atol=4e-5)
    assert answer["absent"].startswith("the policy needs the camera front, the robot's are frontal, side; did you mean")
    assert "did you mean frontal?" in answer["absent"]
    assert '--rename_map=\'{"observation.images.frontal": "observation.images.front"}\'' in answer["absent"]
    assert answer["training"].endswith("adapt it with metalora adapt")
    # The same as lerobot's own guidance where the policy's Jacobian is that of a constant velocity.
    np.testing.assert_allclose(answer["constant"]["ours"], answer["constant"]["theirs"], atol=1e-5)
