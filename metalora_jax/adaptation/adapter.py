"""Adapters as training meets them: read for a base, whatever their format, and probed."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from metalora_jax import trees
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.learner import Learner, learner
from metalora_jax.adapters import Placement, directory, peft_format, placement
from metalora_jax.types import Observation, PyTree


class OnBase(NamedTuple):
    """An adapter that was read, and the base that it sits on."""

    learner: Learner  # with a fresh theta
    placement: Placement
    meta_params: PyTree  # {"theta": ...} and, where they were learned, {"log_rates": ...}
    digest: str  # of meta_params
    head: tuple[str, ...] | None  # leaf paths that its inner loop moves, where it was learned with ANIL
    data: str | None = None  # digest of the demonstrations that it was learned from, where that is known


def load(path: Path, base: Base) -> OnBase:
    """Reads an adapter directory for `base`: ours, or peft's.

    peft's files do not say which weights they were learned on; that is logged, since it cannot be checked.

    Raises:
      directory.AdapterError: it does not fit, see `directory.load`.
      ValueError: peft's files are damaged, hold more than plain LoRA, or have other widths than the base.
    """
    if (path / peft_format.CONFIG).is_file():
        return _of_peft(path, base)
    manifest = directory.read_manifest(path)
    rules = placement.from_json(manifest["placement"])
    learn = learner(base, rules, jax.random.key(0))
    adapter = directory.load(path, base_fingerprint=base.fingerprint, probe=probe(base, learn).run)
    head = manifest["config"].get("meta", {}).get("head")
    fast = None if head is None else tuple(head)
    return OnBase(learn, rules, adapter.theta, manifest["tree_digest"], fast, manifest.get("data"))


def _of_peft(path: Path, base: Base) -> OnBase:
    rules, theta = peft_format.read(path, base.family.module_names(base.config))
    learn = learner(base, rules, jax.random.key(0))
    trees.check_same(theta, learn.theta, str(path / peft_format.WEIGHTS))
    logging.warning(
        "%s does not say which weights it was learned on; whether they are this base's is yours to know", path
    )
    if dead := base.family.without_effect(theta):
        count = trees.count({name: theta[name] for name in dead})
        logging.warning("%d parameters of %s have no effect: nothing reads %s", count, path, ", ".join(dead))
    meta_params = {"theta": theta}
    return OnBase(learn, rules, meta_params, trees.digest(meta_params), None)


def probe(base: Base, learner: Learner) -> directory.Probe:
    """The golden probe of an adapter: the velocity that it gives on a fixed input."""

    def run(params: PyTree) -> jax.Array:
        sizes = base.sizes
        size = (1, sizes.cameras, sizes.image, sizes.image, 3)
        rng = np.random.default_rng(0)
        images = rng.uniform(-1, 1, size).astype(np.float32)
        tokens = np.arange(sizes.tokens, dtype=np.int32)[None] % sizes.vocabulary
        state = np.zeros((1, sizes.state), np.float32)
        observation = Observation(images, np.ones(size[:2], bool), tokens, np.ones_like(tokens, bool), state)
        model = learner.model(params["theta"])
        x_t = rng.normal(size=(1, sizes.chunk, sizes.action)).astype(np.float32)
        with jax.default_matmul_precision("highest"):  # else a GPU answers in TF32, which no CPU would find again
            return model.velocity(model.context(observation), jnp.asarray(x_t), jnp.array([0.5]))

    return directory.Probe("uniform images and normal x_t of numpy's default_rng(0), t = 0.5", run)
