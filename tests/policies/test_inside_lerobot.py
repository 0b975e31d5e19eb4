"""Base and adapter inside lerobot's own programs, by its plugin rule, with a robot that is made up."""

import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import metalora_jax as ml
from experiments.peer.client import Peer
from experiments.peer.rollout import rollout as lerobot_rollout
from metalora_jax.adaptation import adapter, lerobot_policy
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Executing
from metalora_jax.data.normalize import Statistics
from metalora_jax.envs.so101.simulator import CAMERAS, HOME, JOINTS
from metalora_jax.policies.smolvla.presets import preset
from metalora_jax.training.pretrain import train_tokenizer
from tests import lerobot_robot_fake
from tests.policies.tiny_smolvla import build

pytestmark = pytest.mark.lerobot
CLOSED_LOOP = Path(__file__).parents[2] / "experiments" / "peer" / "closed_loop.py"
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
    log, robot = tmp_path / "log.json", Path(lerobot_robot_fake.__file__).parent
    made_up = "--robot.type=fake", f"--robot.log={log}", '--robot.cameras_shown=["front", "wrist"]'
    lerobot_rollout(python, tmp_path, robot, f"--policy.path={policy}", f"--task={TASK}", *made_up, *flags)
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


@pytest.mark.so101
def test_the_closed_loop_is_the_projects_own(python, tmp_path):
    dims, home, wide = len(JOINTS), np.array(HOME, np.float32), np.full(len(JOINTS), 20, np.float32)
    sizes = dict(image_size=64, patch_size=16, vocab_size=320, max_tokens=14, num_steps=2)
    model = build(**sizes, cameras=len(CAMERAS), max_state_dim=dims, max_action_dim=dims)
    base = bases.make(model, train_tokenizer(["lift the red cube"], 320), Statistics(home, wide, home, wide))
    start = adapter.fresh(base, preset("head", b_std=0.1))
    adapter.save(tmp_path / "adapter", base, start.placement, start.meta_params, config={})
    lerobot_policy.write(tmp_path / "policy", base, tmp_path / "adapter", CAMERAS, (64, 64))
    command = [python, CLOSED_LOOP, f"--policy={tmp_path / 'policy'}", f"--output={tmp_path / 'out.json'}", "--seed=3"]
    subprocess.run([*command, "--starts=2", "--steps=8", "--execute=2", "--fps=200"], check=True)
    out = json.loads((tmp_path / "out.json").read_text())
    assert len(out["lerobot"]) == len(out["here"]) == 2
    for theirs, ours in zip(out["lerobot"], out["here"], strict=True):
        assert np.std(theirs["commands"], axis=0).min() > 1  # degrees: it moves
        np.testing.assert_allclose(theirs["commands"], ours["commands"], atol=4e-5)
        assert any(theirs["success"]) == ours["success"]


def test_relative_actions_leave_as_absolute_commands(python, tmp_path):
    plain = ml.load_base()
    known = plain.statistics._replace(relative=np.array([True, True, True, False]))
    base = bases.make(plain.model, plain.tokenizer, known)
    start = adapter.fresh(base, preset("head", b_std=0.1))
    adapter.save(tmp_path / "adapter", base, start.placement, start.meta_params, config={})
    lerobot_policy.write(tmp_path / "policy", base, tmp_path / "adapter", ["front"], lerobot_robot_fake.SIZE)
    agent, (picture, state) = ml.Agent(base, start.learner), seen(5)
    left = agent.act(picture, state + 1, TASK, KEY)[4:]  # planned from elsewhere
    np.savez(tmp_path / "batch.npz", **{"observation.images.front": picture, "observation.state": state, "left": left})
    with Peer(python) as peer:
        answer = peer.plugin(
            policy=str(tmp_path / "policy"), file=str(tmp_path / "batch.npz"), task=TASK, delay=2, horizon=5
        )
    key = [jax.random.fold_in(KEY, number) for number in range(2)]
    np.testing.assert_allclose(answer["free"], agent.act(picture, state, TASK, key[0]), atol=4e-5)
    executing = Executing(np.concatenate([left[:1], left]), np.array([0, 1, 3 / 4, 1 / 2, 1 / 4, 0, 0]), 10.0)
    np.testing.assert_allclose(answer["bound"], agent.act(picture, state, TASK, key[1], executing), atol=4e-5)


def test_guidance_and_refusals_in_lerobot(python, tmp_path, policy, agent):
    picture, state = seen(5)
    left = agent.act(picture, state, TASK, KEY)[4:]
    np.savez(tmp_path / "batch.npz", **{"observation.images.front": picture, "observation.state": state, "left": left})
    with Peer(python) as peer:
        answer = peer.plugin(policy=str(policy), file=str(tmp_path / "batch.npz"), task=TASK, delay=2, horizon=5)
    # What is left begins one step after the observation. lerobot's linear schedule is for the new chunk's steps.
    executing = Executing(np.concatenate([left[:1], left]), np.array([0, 1, 3 / 4, 1 / 2, 1 / 4, 0, 0]), 10.0)
    key = [jax.random.fold_in(KEY, number) for number in range(2)]
    np.testing.assert_allclose(answer["free"], agent.act(picture, state, TASK, key[0]), atol=4e-5)
    bound = agent.act(picture, state, TASK, key[1], executing)
    np.testing.assert_allclose(answer["bound"], bound, atol=4e-5)
    assert answer["compiled"] == 0  # by the first frame: lerobot plans all delays by the longest that it ever saw
    assert answer["absent"].startswith("the policy needs the camera front, the robot's are frontal, side; did you mean")
    assert "did you mean frontal?" in answer["absent"]
    assert '--rename_map=\'{"observation.images.frontal": "observation.images.front"}\'' in answer["absent"]
    assert answer["training"].endswith("adapt it with metalora adapt")
    # The same as lerobot's own guidance where the policy's Jacobian is that of a constant velocity.
    np.testing.assert_allclose(answer["constant"]["ours"], answer["constant"]["theirs"], atol=1e-5)
