"""The frozen front of a base, computed for whole data sets before training or adaptation begins."""

import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from metalora_jax.adaptation import feature_cache, features
from metalora_jax.adaptation.base import Base
from metalora_jax.data.frames import Frames
from metalora_jax.machine import caches
from metalora_jax.machine.progress import progress, waiting
from metalora_jax.policies.policy import Stage
from metalora_jax.types import PyTree


def frozen_outputs(base: Base, several: Sequence[Frames], stage: Stage) -> list[PyTree]:
    """The frozen front's output for the frames of each data set: up to `stage`, or less far where that is too much.

    Contexts hold keys and values of every layer: at SmolVLA's size 7 MB for each frame, where features take half a
    megabyte. Where those of all data sets do not fit METALORA_CACHE_GIB, each step computes them from the features.
    """
    graph, params = nnx.split(base.model)
    needed = sum(features.size(frames, graph, params, stage) for frames in several)
    if stage == "context" and needed > feature_cache.limit():
        logging.warning(
            "the contexts of %d frames would take %.3g GiB, %s allows %.3g: every step computes its own again, from "
            "features; to keep them, raise it, or take fewer frames of each demonstration (`frames` of the data)",
            *(sum(frames.variants * len(frames.state) for frames in several), needed / 2**30),
            *(feature_cache.LIMIT, feature_cache.limit() / 2**30),
        )
        stage = "features"
    return [frozen_output(base, frames, stage) for frames in several]


def frozen_output(base: Base, frames: Frames, stage: Stage) -> PyTree:
    """The frozen front's output for all frames: on the device, or mapped from the disk where it is large.

    It is cached on the disk, unless it takes no longer to compute, where a small policy sees pictures that are in
    memory and of its own size. Where METALORA_CACHE names a folder for it, all of it is.
    """
    graph, params = nnx.split(base.model)
    quick = (
        isinstance(frames.images, np.ndarray) and not base.large and set(frames.images.shape[2:4]) <= {base.sizes.image}
    )
    cache = None if quick and caches.FOLDER not in os.environ else feature_cache.FeatureCache.from_environment()
    with (
        progress(description="frozen front, frames", total=frames.variants * len(frames.state)) as bar,
        waiting(bar, "compiling") as compiled,
    ):

        def done(count: int) -> None:
            compiled()
            bar.update(count)

        frozen = features.compute(frames, graph, params, stage, done, cache, base.fingerprint, base.large)
    return frozen if features.on_host(frozen) else jax.tree.map(jnp.asarray, frozen)
