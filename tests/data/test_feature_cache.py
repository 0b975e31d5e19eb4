"""The frozen front on disk: never computed twice, never believed when it is damaged, never larger than allowed."""

import errno
import os

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from metalora_jax.adaptation import feature_cache, features
from metalora_jax.adaptation.feature_cache import FeatureCache
from metalora_jax.data.blocks import Blocks
from metalora_jax.machine.processes import in_processes
from tests.tiny_base import make_base, make_frames

LARGE = 2**30
ENTRY = {"k": np.arange(12, dtype=np.float32).reshape(3, 4), "mask": np.array([True, False, True])}


def frozen(cache, stage="context", fingerprint="f", frames=None):
    graph, params = nnx.split(make_base().model)
    frames = frames or make_frames()
    done = []
    made = features.compute(frames, graph, params, stage, done.append, cache, fingerprint)
    assert sum(done) == len(frames.state)
    return made


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def no_computing(monkeypatch):
    def refuse(*_):
        raise AssertionError("computed")

    return lambda: monkeypatch.setattr(FeatureCache, "put", refuse)


def fill_from(folder):
    made = frozen(FeatureCache(folder, LARGE))
    return float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(made)))


@pytest.mark.parametrize("stage", ["features", "context"])
def test_what_was_computed_is_looked_up(tmp_path, no_computing, stage):
    first = frozen(FeatureCache(tmp_path, LARGE), stage)
    no_computing()
    same(frozen(FeatureCache(tmp_path, LARGE), stage), first)
    same(first, frozen(None, stage))


def test_other_frames_weights_and_stages_have_other_keys(tmp_path):
    frozen(FeatureCache(tmp_path, LARGE))
    before = set(tmp_path.iterdir())
    frames = make_frames()
    frozen(FeatureCache(tmp_path, LARGE), "features")
    assert len(set(tmp_path.iterdir())) == 2 * len(before)
    frozen(FeatureCache(tmp_path, LARGE), fingerprint="g")
    assert len(set(tmp_path.iterdir())) == 3 * len(before)
    images = frames.images.copy()
    images[0, 0, 0, 0, 0] ^= 1  # one bit of one pixel
    frozen(FeatureCache(tmp_path, LARGE), frames=frames._replace(images=images))
    assert len(set(tmp_path.iterdir())) == 3 * len(before) + 1


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:-4] + b"evil", lambda b: b""])
def test_a_damaged_entry_is_computed_again(tmp_path, damage, caplog):
    first = frozen(FeatureCache(tmp_path, LARGE))
    victim = sorted(tmp_path.iterdir())[0]
    whole = victim.read_bytes()
    victim.write_bytes(damage(whole))
    same(frozen(FeatureCache(tmp_path, LARGE)), first)
    assert "is dropped and computed again" in caplog.text
    assert victim.read_bytes() == whole


def test_an_entry_that_is_no_file_stays_and_is_not_used(tmp_path, caplog):
    first = frozen(FeatureCache(tmp_path, LARGE))
    victim = sorted(tmp_path.iterdir())[0]
    victim.unlink()
    victim.mkdir()
    same(frozen(FeatureCache(tmp_path, LARGE)), first)
    assert f"{victim} is dropped and computed again" in caplog.text


def test_an_entry_under_the_name_of_another_is_not_believed(tmp_path):
    frozen(FeatureCache(tmp_path, LARGE))
    a, b = sorted(tmp_path.iterdir())[:2]
    a.write_bytes(b.read_bytes())
    same(frozen(FeatureCache(tmp_path, LARGE)), frozen(None))


def test_the_least_recently_used_go_first(tmp_path):
    cache = FeatureCache(tmp_path, LARGE)
    cache.put("a", ENTRY)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    cache = FeatureCache(tmp_path, int(2.5 * size))
    cache.put("b", ENTRY)
    for age, path in enumerate(sorted(tmp_path.iterdir())):
        os.utime(path, (age, age))
    assert cache.get("a") is not None
    held = cache.put("c", ENTRY)
    assert [path.name[0] for path in sorted(tmp_path.iterdir())] == ["a", "c"]
    assert cache.get("b") is None
    np.testing.assert_array_equal(held["k"], ENTRY["k"])


def test_a_run_that_needs_more_than_the_limit_still_gets_all(tmp_path):
    same(frozen(FeatureCache(tmp_path, 1)), frozen(None))


def test_a_full_disk_costs_the_cache_and_nothing_else(tmp_path, monkeypatch, caplog):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_cache, "_write_whole", full)
    same(frozen(FeatureCache(tmp_path, LARGE)), frozen(None))
    assert "not cached (No space left on device)" in caplog.text


def test_two_writers_at_once(tmp_path):
    assert len(set(in_processes(fill_from, [(tmp_path,)] * 2, 2))) == 1
    same(frozen(FeatureCache(tmp_path, LARGE)), frozen(None))
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_writer_left_is_no_entry_and_goes(tmp_path):
    left = tmp_path / ".key-digest.npy.new-abc"
    left.write_bytes(b"half")
    FeatureCache(tmp_path, LARGE)
    assert left.exists()  # perhaps it is being written
    os.utime(left, (0, 0))
    FeatureCache(tmp_path, LARGE)
    assert not left.exists()


def test_bfloat16_survives(tmp_path):
    entry = {"k": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)}
    FeatureCache(tmp_path, LARGE).put("a", entry)
    found = FeatureCache(tmp_path, LARGE).get("a")
    assert found is not None
    assert found["k"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found["k"], entry["k"])


def test_blocks_are_indexed_like_one_array():
    whole = np.random.default_rng(0).normal(size=(11, 2, 3))
    blocks = Blocks([whole[:4], whole[4:5], whole[5:]])
    rows = np.random.default_rng(1).integers(0, 11, (3, 5))
    assert blocks.shape == whole.shape
    np.testing.assert_array_equal(blocks[rows], whole[rows])


def test_a_folder_that_cannot_be_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match="set METALORA_CACHE to another folder"):
        FeatureCache.from_environment()
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path))
    for size in ("much", "inf", "nan", "-1"):
        monkeypatch.setenv("METALORA_CACHE_GIB", size)
        with pytest.raises(ValueError, match=f"METALORA_CACHE_GIB='{size}' is not a number"):
            FeatureCache.from_environment()
