"""What is kept: a damaged program or note is made again, without a word on the screen."""

import os
import subprocess
import sys

import pytest

from metalora_jax.machine import caches

PROGRAM = """
import jax
from metalora_jax.machine import caches
caches.keep_compiled()
print(jax.jit(lambda x: x @ x.T + 1)(jax.numpy.ones((8, 8)))[0, 0])
"""


def run(folder):
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "9.0"
    return done.stderr


def test_a_damaged_entry_is_replaced(tmp_path):
    run(tmp_path)
    whole = {file: file.read_bytes() for file in tmp_path.glob("*-cache")}
    assert whole
    for file, content in whole.items():
        file.write_bytes(content[: len(content) // 2])
    assert "cache entry" not in run(tmp_path)
    for file, content in whole.items():
        assert len(file.read_bytes()) > len(content) // 2 + 1
    before = {file: file.stat().st_mtime_ns for file in whole}
    assert "cache entry" not in run(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in whole} == before


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b.replace(b"9", b"8"), lambda b: b"\xff"]
)
def test_a_damaged_note_is_none(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path))
    caches.note("losses", "key", '{"as it is": 0.99}')
    assert caches.noted("losses", "key") == '{"as it is": 0.99}'
    file = tmp_path / "notes" / "losses" / "key"
    file.write_bytes(damage(file.read_bytes()))
    assert caches.noted("losses", "key") is None
