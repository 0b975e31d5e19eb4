"""The frozen front, computed once per frame: what lies below the lowest adapter is the same in every gradient step."""

from collections.abc import Callable

import jax
import numpy as np

from metalora_jax.data.frames import Frames
from metalora_jax.policies.stages import Stage, advance
from metalora_jax.types import PyTree

BATCH = 64  # frames at a time; fixed, so that one compilation serves every data set


def bank(
    frames: Frames, model_of: Callable[[PyTree], PyTree], phi: PyTree, stage: Stage, progress: Callable[[int], None]
) -> PyTree:
    """The output of the frozen stages for all N frames, on the host: leaves (N, ...).

    Args:
      frames: the data set.
      model_of: phi -> policy; its adapters, if any, must lie above `stage`.
      phi: frozen weights.
      stage: see `policies.stages.last_frozen`.
      progress: called with the number of frames done since the last call.
    """
    run = jax.jit(lambda phi, observation: advance(model_of(phi), observation, stage))
    count, parts = len(frames.state), []
    for start in range(0, count, BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), count - 1)
        parts.append(jax.tree.map(np.asarray, run(phi, frames.observe(rows))))
        progress(min(BATCH, count - start))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)
