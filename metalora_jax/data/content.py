"""Digests of demonstrations by what is in them, not by the file they came in: every format gives the same digest."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from metalora_jax import trees
from metalora_jax.data.film import Film
from metalora_jax.machine import caches
from metalora_jax.machine.progress import progress
from metalora_jax.types import Demo


def digest(demos: Mapping[str, Sequence[Demo]]) -> str:
    """SHA-256 (hex) over the names of the tasks, and the instruction and the arrays of each of their demonstrations."""
    every = [demo for _, recorded in sorted(demos.items()) for demo in recorded]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        each = pool.map(_arrays, every)
        found = iter(list(progress(each, description="digests, demonstrations", total=len(every), delay=1.0)))
    sha = hashlib.sha256()
    for task, recorded in sorted(demos.items()):
        sha.update(f"{task}\0{len(recorded)}\0".encode())
        for demo in recorded:
            said = "".join(f"{first}\0{text}\0" for first, text in demo.steps)
            sha.update(f"{demo.instruction}\0{said}{next(found)}\0".encode())
    return sha.hexdigest()


def _arrays(demo: Demo) -> str:
    """Of one demonstration; where its pictures would have to be decoded for it, it is kept for the next time."""
    images, others = demo.images, {"state": demo.state, "actions": demo.actions}
    if not isinstance(images, Film):
        return trees.digest({"images": images, **others})
    key = hashlib.sha256(images.identity() + trees.digest(others).encode()).hexdigest()
    known = caches.noted("demonstrations", key)
    if known is None:
        known = trees.digest({"images": images, **others})
        caches.note("demonstrations", key, known)
    return known
