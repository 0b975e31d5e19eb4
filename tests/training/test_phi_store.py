"""Frozen weights saved once, and restored in pieces on several devices (made-up ones, in a process of their own)."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from metalora_jax.training import phi_store
from tests.policies.tiny_smolvla import build

_ELSEWHERE = """
import sys
from pathlib import Path
import jax, numpy as np
from flax import nnx
from jax.sharding import Mesh
from metalora_jax.training import phi_store
from tests.policies.tiny_smolvla import build

assert jax.device_count() == 4
phi = nnx.to_pure_dict(nnx.state(build()))
shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), phi)
found = phi_store.restore(Path(sys.argv[1]), shapes, Mesh(np.array(jax.devices()), ("model",)))
jax.tree.map(np.testing.assert_array_equal, found, phi)
pieces = [(leaf.addressable_shards[0].data.size, leaf.size) for leaf in jax.tree.leaves(found)]
assert sum(piece for piece, _ in pieces) < 0.3 * sum(whole for _, whole in pieces)
"""


def test_weights_are_restored_in_pieces(tmp_path):
    phi = nnx.to_pure_dict(nnx.state(build()))
    phi_store.save(tmp_path / "phi", phi)
    script = tmp_path / "elsewhere.py"
    script.write_text(_ELSEWHERE)
    root = Path(__file__).parents[2]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, script, tmp_path / "phi"], env=os.environ | flags, check=True, timeout=120)


def test_other_shapes_are_refused_and_nothing_is_overwritten(tmp_path):
    phi = {"a": np.zeros((4, 3), np.float32)}
    phi_store.save(tmp_path / "phi", phi)
    mesh = Mesh(np.array(jax.devices()[:1]), ("model",))
    with pytest.raises(ValueError, match="a"):
        phi_store.restore(tmp_path / "phi", {"b": jax.ShapeDtypeStruct((4, 3), np.float32)}, mesh)
    with pytest.raises(ValueError, match="exists"):
        phi_store.save(tmp_path / "phi", phi)
