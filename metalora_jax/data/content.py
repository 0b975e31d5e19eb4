"""Digests of demonstrations by what is in them, not by the file they came in: every format gives the same digest."""

import hashlib
from collections.abc import Mapping, Sequence

from metalora_jax import trees
from metalora_jax.types import Demo


def digest(demos: Mapping[str, Sequence[Demo]]) -> str:
    """SHA-256 (hex) over the names of the tasks, and the instruction and the arrays of each of their demonstrations."""
    sha = hashlib.sha256()
    for task, recorded in sorted(demos.items()):
        sha.update(f"{task}\0{len(recorded)}\0".encode())
        for demo in recorded:
            arrays = {"images": demo.images, "state": demo.state, "actions": demo.actions}
            said = "".join(f"{first}\0{text}\0" for first, text in demo.steps)
            sha.update(f"{demo.instruction}\0{said}{trees.digest(arrays)}\0".encode())
    return sha.hexdigest()
