"""pi0 and pi0.5 side by side with lerobot's own, in an environment of their own: the same look and noise, one chunk."""

import numpy as np
import pytest

import metalora_jax as ml
from experiments.peer.client import VERSIONS, Peer
from metalora_jax import adapters
from metalora_jax.adaptation import base as bases
from metalora_jax.policies import stages
from tests import lerobot_pi0_directory as directories
from tests.policies.test_pi0_lerobot_export import adapted, statistics

pytestmark = pytest.mark.lerobot
TASK = "push the red_cube"
TYPES = ("pi0", "pi05")


@pytest.fixture(scope="module", params=VERSIONS)
def peer(request, lerobot_python):
    with Peer(lerobot_python(request.param), "lerobot_pi0_peer.py") as running:
        running.version = request.param
        yield running


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    file = tmp_path_factory.mktemp("words") / "tokenizer.json"
    directories.tokenizer().save(str(file))
    return file


def look(file, cameras, shape=(48, 64), seed=0):
    """What a robot shows, and noise."""
    rng = np.random.default_rng(seed)
    pictures = {f"observation.images.{name}": rng.integers(0, 256, (*shape, 3), np.uint8) for name in cameras}
    state, noise = rng.normal(size=directories.JOINTS), rng.normal(size=(1, 5, 32))
    found = pictures | {"observation.state": state.astype(np.float32), "noise": noise.astype(np.float32)}
    np.savez(file, **found)
    return found


def ours(base, seen, cameras, model=None):
    """Commands (chunk, joints), and the prompt's tokens."""
    images = np.stack([seen[f"observation.images.{name}"] for name in cameras])[None]
    state = seen["observation.state"][None]
    observation = base.preprocessor.observe(images, state, TASK)
    chunk = np.asarray(stages.sample(model or base.model, observation, seen["noise"], None))
    return base.preprocessor.commands(chunk, state)[0], observation.tokens[0][observation.token_mask[0]]


def written(peer, tmp_path, words, type_, known=True, **fields):
    """A policy that lerobot saves."""
    new = not peer.version.startswith("0.4")
    if known:
        rows = {"/".join(name.rsplit(".", 1)): row for name, row in directories.statistics().items()}
        np.savez(tmp_path / "statistics.npz", **rows)
    peer.write_policy(
        directory=str(tmp_path / "policy"),
        fields=directories.fields(type_, new, **fields),
        tokenizer=str(words),
        statistics=str(tmp_path / "statistics.npz") if known else None,
    )
    return tmp_path / "policy"


@pytest.mark.parametrize("type_", TYPES)
def test_chunks_are_the_same(peer, tmp_path, words, type_):
    policy = written(peer, tmp_path, words, type_)
    base = bases.load(policy, tokenizer=words)
    assert base.embodiment.cameras == ("front", "wrist")
    seen = look(tmp_path / "look.npz", ("front", "wrist"))
    said = peer.act(policy=str(policy), file=str(tmp_path / "look.npz"), task=TASK, tokenizer=str(words))
    commands, tokens = ours(base, seen, ("front", "wrist"))
    assert tokens.tolist() == said["tokens"]
    assert np.std(commands, axis=0).min() > 0.1
    print(f"{type_} {peer.version}: {np.abs(commands - said['commands']).max():.2g}")
    np.testing.assert_allclose(commands, said["commands"], atol=1e-4)
    # Not for the sake of a tolerance: another picture is another chunk.
    other = ours(base, look(tmp_path / "other.npz", ("front", "wrist"), seed=1), ("front", "wrist"))[0]
    assert np.abs(other - commands).max() > 0.01
    bases.save(tmp_path / "base", base)  # what travels on computes the same
    again = ml.load_base(tmp_path / "base")
    np.testing.assert_array_equal(ours(again, seen, ("front", "wrist"))[0], commands)


@pytest.mark.parametrize("type_", TYPES)
def test_an_absent_camera_and_relative_actions(peer, tmp_path, words, type_):
    """lerobot 0.4.4 knows no relative actions."""
    fields = dict(cameras=("front",), empty_cameras=1)
    if new := not peer.version.startswith("0.4"):
        fields |= dict(use_relative_actions=True, action_feature_names=[*"abcde", "gripper.pos"])
    policy = written(peer, tmp_path, words, type_, **fields)
    base = bases.load(policy, tokenizer=words)
    assert base.sizes.cameras == 2
    assert (base.statistics.relative is not None) == new
    seen = look(tmp_path / "look.npz", ("front",), shape=(64, 40))
    said = peer.act(policy=str(policy), file=str(tmp_path / "look.npz"), task=TASK, tokenizer=str(words))
    commands, _ = ours(base, seen, ("front",))
    np.testing.assert_allclose(commands, said["commands"], atol=1e-4)


def test_a_policy_that_lerobot_keeps_in_bfloat16(peer, tmp_path, words):
    """Computed in bfloat16 there and in float32 here: as close as the former's rounding lets them be."""
    policy = written(peer, tmp_path, words, "pi05", dtype="bfloat16")
    base = bases.load(policy, tokenizer=words)
    seen = look(tmp_path / "look.npz", ("front", "wrist"))
    said = peer.act(policy=str(policy), file=str(tmp_path / "look.npz"), task=TASK, tokenizer=str(words))
    commands, _ = ours(base, seen, ("front", "wrist"))
    np.testing.assert_allclose(commands, said["commands"], atol=0.1 * np.std(commands))


@pytest.mark.parametrize("type_", TYPES)
def test_exports_act_there_as_the_adapted_policy_here(peer, tmp_path, words, type_):
    """Merged, and as an adapter for peft on every linear map; the cameras by the robot's own names."""
    policy = written(peer, tmp_path, words, type_)
    base, cameras = bases.load(policy, tokenizer=words), ("top", "hand")
    placement, model = adapted(base, "linear")
    about = statistics(base)
    base.family.export_merged(tmp_path / "merged", adapters.fuse(model), policy, about, "float32", cameras)
    theta = adapters.split(model).theta
    base.family.export_peft(tmp_path / "peft", placement, theta, base.model, str(policy), policy, about, None, cameras)
    seen = look(tmp_path / "look.npz", cameras)
    asked = dict(file=str(tmp_path / "look.npz"), task=TASK, tokenizer=str(words))
    commands, tokens = ours(base, seen, cameras, model)
    assert np.abs(commands - ours(base, seen, cameras)[0]).max() > 0.1
    for said in (
        peer.act(policy=str(tmp_path / "merged"), **asked),
        peer.act(policy=str(policy), adapter=str(tmp_path / "peft"), **asked),
    ):
        assert tokens.tolist() == said["tokens"]
        print(f"{type_} {peer.version}: {np.abs(commands - said['commands']).max():.2g}")
        np.testing.assert_allclose(commands, said["commands"], atol=1e-4)
