"""What people get wrong about pi0 and pi0.5: an error that says what to do, or a sentence in the log; never silence."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, models

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Agent
from metalora_jax.data import normalize
from metalora_jax.data.frames import gather
from metalora_jax.evaluation.doctor import words
from metalora_jax.policies import registry
from metalora_jax.policies.pi0 import openpi_checkpoint, openpi_names, preprocess, tokenizer
from metalora_jax.policies.pi0.config import CAMERAS, Pi0Config
from metalora_jax.policies.pi0.orbax_tree import OrbaxTree
from metalora_jax.training.pretrain import train_tokenizer
from tests.child_processes import COMPILED_ONCE
from tests.policies import openpi_directories, tiny_pi0
from tests.policies.test_pi0 import characters, said
from tests.tiny_base import INSTRUCTIONS, make_demos

ROOT = Path(__file__).parents[2]


def base_of(pi05, **fields):
    demos = [demo for task in INSTRUCTIONS for demo in make_demos(task, cameras=2)]
    words = train_tokenizer(list(INSTRUCTIONS.values()), 320)
    model = tiny_pi0.build(pi05=pi05, vocab_size=320, **fields)
    return bases.make(model, words, normalize.compute(demos, modes=registry.of_model(model).modes))


def test_a_long_prompt_is_refused_with_the_ways_out_or_cut_as_openpi_cuts_it():
    config = tiny_pi0.tiny(vocab_size=128, max_tokens=10, bos_token_id=2)
    with pytest.raises(ValueError, match=r"limit is 10; shorten it, or .*--max_tokens.*--cut_prompts"):
        said(config, "push the cup", [[0.0]])
    cut = dataclasses.replace(config, cut_prompts=True)
    assert said(cut, "push the cup", [[0.0]] * 2) == ["\x02push the "] * 2
    assert said(cut, "push", [[0.0]]) == said(config, "push", [[0.0]])
    longer = dataclasses.replace(cut, pi05=True, max_tokens=30)
    assert said(longer, "push", [[0.0, 1.0]]) == ["\x02Task: push, State: 128 255;\nA"]
    states = np.array([[0.0, 1.0], [-1.0, -1.0]], np.float32)
    assert preprocess.excess(longer, characters(128), "push", states).tolist() == [7, 3]
    assert not preprocess.excess(config, characters(128), "push the cup", states).any()


def test_what_may_be_cut_is_part_of_a_base_and_no_part_of_older_ones(tmp_path):
    old, new = (base_of(False, max_tokens=6, cut_prompts=cut) for cut in (False, True))
    assert "cut_prompts" not in old.config.to_dict()
    assert old.fingerprint != new.fingerprint
    bases.save(tmp_path / "base", new)
    assert json.loads((tmp_path / "base" / "config.json").read_text())["cut_prompts"]
    assert bases.load(tmp_path / "base").fingerprint == new.fingerprint


@pytest.mark.parametrize("pi05", [False, True])
def test_cut_prompts_are_counted_where_data_are_read_and_said_once_to_a_robot(pi05, caplog):
    base = base_of(pi05, max_tokens=2, cut_prompts=True)
    demos = {task: make_demos(task, cameras=2) for task in INSTRUCTIONS}
    frames = gather(demos, base.preprocessor)
    assert frames.token_mask.all()
    count = len(frames.state)
    assert f"cut at the end: those of 2 of 2 instructions, {count} of {count} frames, by up to " in caplog.text
    caplog.clear()
    demo, agent = demos["push"][0], Agent(base)
    for moment in (0, 1):
        agent.act(demo.images[moment], demo.state[moment], demo.instruction, jax.random.key(0))
    assert caplog.text.count("the prompt of 'push the puck to the goal' is ") == 1
    caplog.clear()
    roomy = base_of(pi05, max_tokens=96, cut_prompts=True)
    gather(demos, roomy.preprocessor)
    assert not caplog.text


class Recording:
    def __init__(self, demo):
        self.written, self.state = demo.instruction, demo.state


def test_the_doctor_tries_the_prompt_of_every_frame():
    demo = make_demos("push")[0]
    base = base_of(True, max_tokens=96)
    longest = base.preprocessor.text(demo.instruction, base.preprocessor.normalize_state(demo.state))[1].sum(1).max()
    [refused] = words.lengths([Recording(demo)], base_of(True, max_tokens=int(longest) - 1))
    assert (refused.severity, "the limit is" in refused.what) == ("error", True)
    [cut] = words.lengths([Recording(demo)], base_of(True, max_tokens=int(longest) - 1, cut_prompts=True))
    assert (cut.severity, cut.what[:21]) == ("warning", "the prompt is 1 token")
    assert cut.what.endswith(f" of {len(demo.state)} frames")
    assert words.lengths([Recording(demo)], base_of(True, max_tokens=int(longest))) == []


@pytest.mark.parametrize("pi05", [False, True])
def test_a_camera_that_is_absent_between_others_is_as_one_that_was_never_there(pi05):
    """So a robot with a base camera and a right wrist's gives these two, in openpi's order, and no mask."""
    model, rng = tiny_pi0.build(pi05=pi05, cameras=3), np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 3, 16, 16, 3)).astype(np.float32)
    tokens, mask, state = np.arange(12).reshape(2, 6), np.ones((2, 6), bool), np.ones((2, 4), np.float32)
    x_t = rng.normal(size=(2, 5, 4)).astype(np.float32)

    def velocity(images, seen):
        context = model.condition(model.encode(images), seen, tokens, mask, state)
        return model.velocity(context, jnp.asarray(x_t), jnp.full(2, 0.3))

    absent = velocity(images, np.array([[True, False, True]] * 2))
    np.testing.assert_allclose(velocity(images[:, [0, 2]], np.ones((2, 2), bool)), absent, atol=1e-5)
    assert np.abs(velocity(images, np.ones((2, 3), bool)) - absent).max() > 1e-3


def checkpoint(directory, **fields):
    config = tiny_pi0.tiny(action_dim=6, cameras=3, bos_token_id=2, vocab_size=300, **fields)
    stats = {"robot": openpi_directories.statistics(5, 4)}
    openpi_directories.write(directory, openpi_directories.random_tree(config), stats)
    openpi_directories.letters_of_size(config.vocab_size).save(str(directory / "tokenizer.json"))
    return directory


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("base_0_rbg", "pi0 has no camera 'base_0_rbg', .*; did you mean base_0_rgb?"),
        ("right_wrist_0_rgb,base_0_rgb", "by their order; name them so: base_0_rgb,right_wrist_0_rgb"),
        ("top,top", "names top twice"),
        ("a,b,c,d", r"names 4 cameras \(a, b, c, d\), and the policy takes 3"),
    ],
)
def test_cameras_that_cannot_be(tmp_path, given, complaint):
    checkpoint(tmp_path / "policy")
    with pytest.raises(AssertionError, match=complaint):
        convert(tmp_path, f"--cameras={given}")
    assert not (tmp_path / "base").exists()


def convert(where, *options):
    program = [sys.executable, "-m", "metalora_jax.commands", "convert", "--policy=policy", "--output=base", *options]
    known = os.environ | {"PYTHONPATH": str(ROOT)} | COMPILED_ONCE
    done = subprocess.run(program, capture_output=True, text=True, cwd=where, env=known, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_robots_own_cameras_or_openpis_are_recorded(tmp_path):
    checkpoint(tmp_path / "policy")
    assert "cameras:     base_0_rgb, right_wrist_0_rgb\n" in convert(
        tmp_path, f"--cameras={CAMERAS[0]},{CAMERAS[2]}", "--cut_prompts", "--max_tokens=20"
    )
    base = bases.load(tmp_path / "base")
    assert (base.embodiment.cameras, base.config.cut_prompts) == ((CAMERAS[0], CAMERAS[2]), True)


@pytest.mark.parametrize("part", ["d", "ocdbt.process_0/d"])
def test_a_file_that_is_only_half_there(tmp_path, part):
    directory = checkpoint(tmp_path / "policy")
    there = directory / "params" / part
    file = max(there.iterdir(), key=lambda each: each.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    def read():
        return dict(OrbaxTree(directory / "params"))

    with pytest.raises(ValueError, match=r"policy/params is damaged, or only half copied: .*; copy it again, whole"):
        read()


def test_pi0_fast_is_named():
    tree = openpi_directories.random_tree(tiny_pi0.tiny())
    fast = {name: leaf.shape for name, leaf in tree.items() if name.startswith("PaliGemma/") and "_1" not in name}
    with pytest.raises(ValueError, match=r"no action expert, as pi0-FAST has none.* pi0 and pi0\.5 can be read"):
        openpi_names.infer(fast)


def test_weights_of_two_sizes(tmp_path):
    tree = openpi_directories.random_tree(tiny_pi0.tiny())
    other = openpi_directories.random_tree(tiny_pi0.tiny(expert_hidden=20))
    mixed = {name: other[name] if "mlp_1" in name else leaf for name, leaf in tree.items()}
    directory = openpi_directories.write(tmp_path / "mixed", mixed)
    numbered(40).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"mixed/params: .* misshapen: is this the config of these weights"):
        openpi_checkpoint.load(directory, tmp_path / "tokenizer.json", iter)


def numbered(size):
    """A tokenizer of so many tokens, for networks whose vocabulary is too small for letters."""
    return Tokenizer(models.WordLevel({str(i): i for i in range(size)}, unk_token="0"))


LARGE = Pi0Config.vocab_size


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"<bos>": 5}, r"token 2, which begins prompts, is '.*'"),
        ({"\n": 109}, r"'\\n' is \[109\], not \[108\]"),
        ({"1": 235275}, r"'1' is \[235275\], not \[235274\]"),
    ],
)
def test_a_tokenizer_as_large_as_paligemmas_must_be_it(changed, complaint):
    assert tokenizer.fitting(openpi_directories.letters_of_size(LARGE), LARGE)
    other = openpi_directories.letters_of_size(LARGE, changed)
    with pytest.raises(ValueError, match=rf"is not PaliGemma's, though as large: {complaint}.*; take gs://big_vision"):
        tokenizer.fitting(other, LARGE)


def test_of_other_sizes_what_prompts_rely_on_is_said(caplog):
    tokenizer.fitting(openpi_directories.letters_of_size(300), 300)
    tokenizer.fitting(openpi_directories.letters_of_size(300, {"<bos>": 9}), 300, None)
    assert not caplog.text
    with pytest.raises(ValueError, match="has 300 tokens, the policy embeds 301: it is another model's"):
        tokenizer.fitting(openpi_directories.letters_of_size(300), 301)
    tokenizer.fitting(numbered(300), 300)
    assert "not like PaliGemma's: token 2, which begins prompts, is '2', '128' is [128], not its digits" in caplog.text
