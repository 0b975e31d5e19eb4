"""The frozen front, computed once per frame: what lies below the lowest adapter is the same in every gradient step."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from metalora_jax import trees
from metalora_jax.adaptation.feature_cache import Entry, FeatureCache
from metalora_jax.data.blocks import Blocks
from metalora_jax.data.frames import Frames
from metalora_jax.policies.policy import Stage
from metalora_jax.policies.stages import advance
from metalora_jax.types import Observation, PyTree

BATCH = 16  # frames in an entry of the cache, at most
AT_ONCE, ONE = 4, 1  # frames that go through the policy together on a CPU; one alone keeps a large one in its cache
AT_ONCE_ELSEWHERE = 256  # on a GPU or TPU, where small programs underuse the device; at most BATCH with a cache
IN_MEMORY = 2**30  # [bytes] larger outputs stay on the disk, mapped
_VERSION = "1"  # of what a key stands for; increase it when preprocessing or a stage changes what it computes


class _Prepared:
    """The pictures of all frames as the policy takes them, made when rows are looked up."""

    def __init__(self, frames: Frames):
        self._frames = frames
        side = frames.preprocessor.sizes.image
        self.shape = (frames.variants * len(frames.state), frames.images.shape[1], side, side, 3)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._frames.preprocessor.prepare_images(self._frames.pictures(np.asarray(rows)))


def compute(
    frames: Frames,
    graph: nnx.GraphDef,
    phi: PyTree,
    stage: Stage,
    progress: Callable[[int], None],
    cache: FeatureCache | None = None,
    fingerprint: str = "",
    large: bool = False,
) -> PyTree:
    """The output of the frozen stages for all N frames in V variants, on the host: leaves (V * N, ...).

    Args:
      frames: the data set.
      graph: of the policy; its adapters, if any, must lie above `stage`.
      phi: frozen weights.
      stage: see `Policy.stage_of`.
      progress: called with the number of frames done since the last call.
      cache: where outputs are looked up and stored; None computes them all.
      fingerprint: of the policy, for the cache's keys.
      large: whether a frame takes the policy seconds, see `Base.large`.

    Returns:
      A tree of arrays; if they are larger than `IN_MEMORY`, of `Blocks`, or of what makes pictures ready when rows are
      looked up.
    """
    if stage == "observation":  # nothing is computed, so there is nothing to cache
        cache = None
        if size(frames, graph, phi, stage) > IN_MEMORY:
            rows = np.arange(frames.variants * len(frames.state))
            progress(len(rows))
            mask = np.ones((len(rows), frames.images.shape[1]), bool)
            images: Any = _Prepared(frames)
            return Observation(images, mask, *frames.text(rows), frames.state[rows % len(frames.state)])

    run = partial(advanced, graph=graph, stage=stage)
    at_once, blocks = ONE if large else AT_ONCE, _blocks(frames)
    if jax.default_backend() != "cpu":
        at_once = BATCH if cache else AT_ONCE_ELSEWHERE
        blocks = blocks if cache else _even(frames, at_once)

    def looked_up(rows: np.ndarray) -> tuple[str, Entry | None, Observation | None]:
        """The key, and the entry if it is in the cache, or else what it is computed from."""
        key = _key(frames, rows, stage, fingerprint) if cache else ""
        if cache and (entry := cache.get(key)):
            return key, entry, None
        padded = np.resize(rows, -(-len(rows) // at_once) * at_once)  # so that one compilation serves every data set
        return key, None, frames.observe(padded)

    def computed(seen: Observation, count: int) -> Entry:
        parts = []
        for first in range(0, len(seen.state), at_once):
            made = run(phi, trees.index(seen, np.s_[first : first + at_once]))
            parts.append(jax.tree.leaves(jax.block_until_ready(made)))
            progress(min(at_once, count - first))
        whole = [np.concatenate(leaves)[:count] for leaves in zip(*parts, strict=True)]
        return {f"leaf{i}": leaf for i, leaf in enumerate(whole)}

    structure = jax.tree.structure(jax.eval_shape(run, phi, frames.observe(np.zeros(at_once, int))))
    pieces: list[Entry] = []
    with ThreadPoolExecutor(1) as ahead:  # pictures are decoded while those before go through the policy
        coming = [(rows, ahead.submit(looked_up, rows)) for rows in itertools.islice(blocks, 1)]
        while coming:
            rows, found = coming.pop()
            key, entry, seen = found.result()
            coming = [(rows, ahead.submit(looked_up, rows)) for rows in itertools.islice(blocks, 1)]
            if seen is not None:
                entry = computed(seen, len(rows))
                entry = cache.put(key, entry) if cache else entry
            else:
                progress(len(rows))
            assert entry is not None
            pieces.append(entry)
    whole = _whole if sum(_bytes(entry) for entry in pieces) <= IN_MEMORY else Blocks
    return jax.tree.unflatten(structure, [whole([entry[name] for entry in pieces]) for name in pieces[0]])


@partial(jax.jit, static_argnames=("graph", "stage"))
def advanced(phi: PyTree, observation: Observation, *, graph: nnx.GraphDef, stage: Stage) -> PyTree:
    """The frozen stages, under jit: see `stages.advance`."""
    return advance(nnx.merge(graph, phi), observation, stage)


def size(frames: Frames, graph: nnx.GraphDef, phi: PyTree, stage: Stage) -> int:
    """Size of what `compute` returns, in bytes; nothing is computed."""
    one = frames.observe(np.zeros(1, int))
    outputs = jax.eval_shape(partial(advanced, graph=graph, stage=stage), phi, one)
    each = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(outputs))
    return each * frames.variants * len(frames.state)


def on_host(frozen: PyTree) -> bool:
    """Whether frozen outputs are too large for the device, so that rows are looked up before a step, not inside it."""
    return any(isinstance(leaf, Blocks | _Prepared) for leaf in jax.tree.leaves(frozen))


def _blocks(frames: Frames) -> Iterator[np.ndarray]:
    """Rows of at most BATCH frames, never from two demonstrations: adding one keeps the keys of the others."""
    for variant in range(frames.variants):
        for task, starts in frames.first_row.items():
            for start, chosen in zip(starts, frames.moments[task], strict=True):
                for first in range(0, len(chosen), BATCH):
                    rows = start + np.arange(first, min(first + BATCH, len(chosen)))
                    yield variant * len(frames.state) + rows


def _even(frames: Frames, size: int) -> Iterator[np.ndarray]:
    """All rows, `size` at a time."""
    total = frames.variants * len(frames.state)
    for first in range(0, total, size):
        yield np.arange(first, min(first + size, total))


def _key(frames: Frames, rows: np.ndarray, stage: Stage, fingerprint: str) -> str:
    sha = hashlib.sha256(f"{_VERSION}\0{stage}\0{fingerprint}\0{frames.preprocessor.sizes.image}\0".encode())
    row = rows % len(frames.state)
    sha.update(frames.identity(rows))
    for part in (frames.state[row], *frames.text(rows)):
        values = np.ascontiguousarray(part)
        sha.update(f"{values.dtype}{values.shape}".encode())
        sha.update(values.tobytes())
    return sha.hexdigest()[:32]


def _whole(pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(pieces)


def _bytes(entry: Entry) -> int:
    return sum(value.nbytes for value in entry.values())
