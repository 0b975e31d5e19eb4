"""A base directory: one fingerprint for all that an adapter depends on, and nothing may be missing."""

import json

import jax
import pytest
from flax import nnx

from metalora_jax.adaptation import base as bases
from metalora_jax.data.sources.embodiment import UNKNOWN, Embodiment
from metalora_jax.envs.metaworld import INSTRUCTIONS
from tests.tiny_base import make_base


@pytest.fixture
def directory(tmp_path):
    bases.save(tmp_path / "base", make_base())
    return tmp_path / "base"


def test_what_is_saved_is_loaded(directory):
    loaded, base = bases.load(directory), make_base()
    assert loaded.fingerprint == base.fingerprint
    assert loaded.config == base.config
    assert loaded.statistics.digest() == base.statistics.digest()
    for got, wanted in zip(loaded.encode_text("push the puck"), base.encode_text("push the puck"), strict=True):
        assert got.tolist() == wanted.tolist()


def test_a_base_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(bases.files, "write_json", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bases.save(tmp_path / "base", make_base())
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_of_the_robot_travels_without_changing_the_fingerprint(tmp_path):
    robot = Embodiment(("top", "wrist"), ("pan", "lift"), fps=30.0)
    bases.save(tmp_path / "base", make_base()._replace(embodiment=robot))
    loaded = bases.load(tmp_path / "base")
    assert (loaded.embodiment, loaded.fingerprint) == (robot, make_base().fingerprint)
    (tmp_path / "base" / "embodiment.json").write_text('{"cameras": "top"}')
    with pytest.raises(ValueError, match=r"embodiment\.json: embodiment\.cameras is 'top'; it must be"):
        bases.load(tmp_path / "base")


def test_a_base_without_a_record_is_of_an_unknown_robot(directory):
    assert not (directory / "embodiment.json").exists()
    assert bases.load(directory).embodiment == UNKNOWN


def test_fingerprint_sees_weights_config_and_statistics():
    base = make_base()
    graph, params = nnx.split(base.model)
    bent = nnx.merge(graph, jax.tree.map(lambda leaf: leaf * (1 + 1e-6), params))
    moved = base.statistics._replace(action_std=base.statistics.action_std * 2)
    fingerprints = {
        base.fingerprint,
        bases.make(bent, base.tokenizer, base.statistics).fingerprint,
        bases.make(base.model, base.tokenizer, moved).fingerprint,
    }
    assert len(fingerprints) == 3


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("tokenizer.json", r"tokenizer\.json is missing; a base needs the tokenizer it was trained with"),
        ("normalization.json", r"normalization\.json is missing; .* never those of your demos"),
        ("model.safetensors", r"model\.safetensors is missing"),
    ],
)
def test_missing_files(directory, file, complaint):
    (directory / file).unlink()
    with pytest.raises(ValueError, match=complaint):
        bases.load(directory)


def test_config_of_another_model(directory):
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"text_hidden": 48}))
    with pytest.raises(ValueError, match="the config requires"):
        bases.load(directory)


def test_the_shipped_base_reads_every_instruction():
    base = bases.load()
    assert len(base.statistics.action_mean) == 4
    for instruction in INSTRUCTIONS.values():
        tokens, mask = base.encode_text(instruction)
        assert 0 < mask.sum() <= base.config.max_tokens
        assert base.tokenizer.decode(tokens[mask].tolist()).strip() == instruction
