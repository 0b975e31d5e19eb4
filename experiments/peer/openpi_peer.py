"""openpi itself, as a process that is asked questions: for comparison, in an environment of its own.

openpi's code runs as it is in its checkout, with the JAX, Flax and Orbax that it pins, on the CPU. What is too large
for a test is made smaller from outside: the sizes of Gemma and SigLIP and the vocabulary, which openpi writes as
constants. PyTorch, transformers, lerobot and wandb, which its JAX policies do not use, are stood in for by empty
modules where they are not installed. The process reads one JSON object a line on standard input, and answers with one
on standard output. It imports nothing of metalora_jax. `make openpi` makes its environment; the tests marked `openpi`
and `experiments/benchmark_pi0.py` start it.
"""

import contextlib
import ctypes
import dataclasses
import functools
import importlib
import os
import sys
import types
from pathlib import Path

import stand_ins
from answering import answer
from clock import highest_gib, timed

os.environ["JAX_PLATFORMS"] = "cpu"
stand_ins.install(stand_ins.missing(("torch", "transformers", "lerobot", "wandb", "safetensors")))

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from openpi.models import gemma, siglip
from openpi.models import model as models
from openpi.policies import policy_config
from openpi.shared import nnx_utils, normalize
from openpi.training import checkpoints, sharding, weight_loaders
from openpi.training import config as configs

_ASSET = "physical-intelligence/libero"


class Peer:
    """openpi at one size, with one policy or one training state."""

    def resize(self, gemma_sizes, vision, vocabulary):
        """Other sizes than openpi's own from here on.

        Args:
          gemma_sizes: expert's name without LoRA, such as "gemma_2b" -> fields of `gemma.Config`. LoRA stays as it is.
          vision: fields of SigLIP's module: width, depth, mlp_dim, num_heads; {} leaves it.
          vocabulary: number of tokens.
        """
        whole, variant = gemma.get_config, siglip.decode_variant

        def get_config(name):
            return dataclasses.replace(whole(name), **gemma_sizes.get(name.removesuffix("_lora"), {}))

        gemma.get_config = get_config
        siglip.decode_variant = lambda name: variant(name) | vision
        gemma.PALIGEMMA_VOCAB_SIZE = vocabulary
        return {}

    def load(self, config, directory, model=None, weights="bfloat16"):
        """A policy by openpi's `create_trained_policy`.

        Args:
          config: name of openpi's own.
          directory: of a checkpoint, with params/ and assets/.
          model: fields of its model to change, such as {"dtype": "float32"}; {"paligemma_variant": ...}.
          weights: what they are restored as. openpi has bfloat16, always.
        """
        restore = models.restore_params
        if weights != "bfloat16":
            models.restore_params = lambda path, dtype: restore(path, dtype=jnp.dtype(weights))
        try:
            self.policy = policy_config.create_trained_policy(self._config(config, model), directory)
        finally:
            models.restore_params = restore
        return {}

    def infer(self, source, file, prompt):
        """One chunk of commands.

        Args:
          source: .npz with openpi's keys of LIBERO, "observation/image", ..., and `noise` (horizon, action_dim).
          file: .npy that is written, (horizon, 7).
          prompt: the instruction.
        """
        seen = dict(np.load(source))
        noise = seen.pop("noise")
        np.save(file, self.policy.infer(seen | {"prompt": prompt}, noise=noise)["actions"])
        return {}

    def write(self, config, directory, stats, model=None, spread=0.1, seed=0):
        """A checkpoint with random weights as openpi's training saves it, at step 1; where it stands.

        Args:
          config: name of openpi's own: it says whether there is LoRA, what is frozen (and so bfloat16), and EMA.
          directory: below which it is made.
          stats: JSON file with the statistics, as openpi has them.
          model: see `load`.
          spread: standard deviation of all weights.
          seed: of them.
        """
        found = self._config(config, model, checkpoint_base_dir=str(directory), exp_name="peer")
        found = dataclasses.replace(found, weight_loader=weight_loaders.NoOpWeightLoader())
        state = self._fresh(found)
        rng = np.random.default_rng(seed)

        def random(x):
            return jnp.asarray(spread * rng.standard_normal(x.shape, np.float32), x.dtype)

        params = jax.tree.map(random, state.params)
        state = dataclasses.replace(state, params=params, ema_params=None if found.ema_decay is None else params)
        known = configs.DataConfig(asset_id=_ASSET, norm_stats=normalize.deserialize_json(Path(stats).read_text()))
        manager, _ = checkpoints.initialize_checkpoint_dir(
            found.checkpoint_dir, keep_period=None, overwrite=False, resume=False
        )
        checkpoints.save_state(manager, state, types.SimpleNamespace(data_config=lambda: known), 1)
        manager.wait_until_finished()
        kinds = sorted({leaf.dtype.name for leaf in jax.tree.leaves(params)})
        return {"directory": str(found.checkpoint_dir / "1"), "dtypes": kinds}

    def prepare(self, config, file, frozen_vision=False, model=None):
        """openpi's training step with random weights, compiled; the first one is run.

        Args:
          config: name of openpi's own.
          file: .npz with the batch, see `benchmarks.beside_openpi.batch`.
          frozen_vision: freezes the vision tower as well, which openpi's filter leaves free.
          model: see `load`.
        """
        batch = dict(np.load(file))
        found = self._config(config, model, batch_size=len(batch["state"]), wandb_enabled=False)
        frozen = found.freeze_filter
        if frozen_vision:
            frozen = nnx.Any(frozen, nnx_utils.PathRegex(".*PaliGemma/img.*"))
        found = dataclasses.replace(found, freeze_filter=frozen, weight_loader=weight_loaders.NoOpWeightLoader())
        pictures = zip(models.IMAGE_KEYS, np.moveaxis(batch["images"], 1, 0), batch["image_mask"].T, strict=True)
        named = {key: (picture, mask) for key, picture, mask in pictures}
        seen = {
            "image": {key: picture for key, (picture, _) in named.items()},
            "image_mask": {key: mask for key, (_, mask) in named.items()},
            "state": batch["state"],
            "tokenized_prompt": batch["tokens"],
            "tokenized_prompt_mask": batch["token_mask"],
        }
        observation = models.Observation.from_dict(jax.tree.map(jnp.asarray, seen))
        self.batch = jax.block_until_ready((observation, jnp.asarray(batch["actions"])))
        self.state = self._fresh(found)
        trained = sum(leaf.size for leaf in jax.tree.leaves(self.state.params.filter(found.trainable_filter)))
        everywhere = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        shared = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(sharding.DATA_AXIS))
        self.step = jax.jit(  # as openpi's main does
            functools.partial(_training().train_step, found),
            in_shardings=(everywhere, self.state_sharding, shared),
            out_shardings=(self.state_sharding, everywhere),
            donate_argnums=(1,),
        )
        first = timed(self.work_step)
        with contextlib.suppress(AttributeError, OSError):  # what compilation leaves behind; glibc has it
            ctypes.CDLL(None).malloc_trim(0)
        return {"first": first, "trained": trained, "highest_gib": highest_gib()}

    def timed(self, work):
        """One "step"."""
        return timed(getattr(self, f"work_{work}")) | {"loss": self.loss}

    def work_step(self):
        """One step of training."""
        with sharding.set_mesh(self.mesh):
            self.state, told = self.step(jax.random.key(1), self.state, self.batch)
        jax.block_until_ready(self.state)
        self.loss = float(told["loss"])

    def _config(self, name, model, **fields):
        found = configs.get_config(name)
        return dataclasses.replace(found, model=dataclasses.replace(found.model, **(model or {})), **fields)

    def _fresh(self, config):
        """openpi's initial state of training."""
        self.mesh = sharding.make_mesh(1)
        with sharding.set_mesh(self.mesh):
            state, self.state_sharding = _training().init_train_state(
                config, jax.random.key(0), self.mesh, resume=False
            )
        return state


@functools.cache
def _training():
    """openpi's scripts/train.py, which is in its checkout and no part of the package."""
    import openpi

    scripts = Path(openpi.__file__).parents[2] / "scripts"
    if not (scripts / "train.py").is_file():
        raise ValueError(f"{scripts}/train.py is missing: openpi must be installed from its checkout, see make openpi")
    sys.path.insert(0, str(scripts))
    return importlib.import_module("train")


if __name__ == "__main__":
    answer(Peer())
