"""Compiled programs that are kept: a damaged one is replaced, without a word on the screen."""

import os
import subprocess
import sys

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
