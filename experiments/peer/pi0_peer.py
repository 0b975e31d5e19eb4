"""This package's LoRA step on pi0, as a process that is asked for it: the other side of `openpi_peer.py`'s training.

One process measures one placement, so that its memory is its own. `experiments/benchmark_pi0.py` starts it.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from answering import answer
from clock import highest_gib, timed
from flax import nnx

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.learner import learner
from metalora_jax.data.normalize import Statistics
from metalora_jax.machine.memory import give_back_memory
from metalora_jax.policies import flow
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import build
from metalora_jax.policies.pi0.presets import preset
from metalora_jax.policies.stages import advance, context_of
from metalora_jax.types import Observation


class Peer:
    """A policy with random weights and an adapter, and the batch of its steps."""

    def prepare(self, file, placement, rank, sizes):
        """Makes the policy and compiles the step.

        Args:
          file: .npz with the batch, see `benchmarks.beside_openpi.batch`.
          placement: a preset's name.
          rank: of all LoRA; None: the preset's own.
          sizes: fields of `Pi0Config`, where they are not those of pi0.
        """
        model = build(Pi0Config.pi0_base(**sizes), rngs=nnx.Rngs(0))
        unit = Statistics(*(np.full(model.sizes.action, value, np.float32) for value in (0, 1, 0, 1)))
        start = learner(bases.make(model, None, unit), preset(placement, rank=rank), jax.random.key(0))
        del model
        batch = dict(np.load(file))
        actions = jnp.asarray(batch.pop("actions"))
        observation = Observation(**{name: jnp.asarray(value) for name, value in batch.items()})
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2.5e-5, 0.9, 0.95, weight_decay=1e-10))
        self.theta, self.opt_state, self.count = start.theta, optimizer.init(start.theta), 0

        def loss(theta, phi, front, key):
            policy = start.replace(phi=phi).model(theta)
            noise_key, time_key = jax.random.split(key)
            t = flow.sample_time(time_key, actions.shape[:1])
            x_t, u = flow.interpolate(actions, jax.random.normal(noise_key, actions.shape), t)
            return flow.squared_error(policy.velocity(context_of(policy, front), x_t, t), u).mean()

        @jax.jit
        def step(theta, opt_state, phi, front, key):
            value, gradient = jax.value_and_grad(loss)(theta, phi, front, key)
            updates, opt_state = optimizer.update(gradient, opt_state, theta)
            return optax.apply_updates(theta, updates), opt_state, value

        front = jax.jit(lambda phi: advance(start.replace(phi=phi).model(start.theta), observation, start.stage))
        self._front = lambda: jax.block_until_ready(front(start.phi))
        self._step = lambda known, key: step(self.theta, self.opt_state, start.phi, known, key)
        self.warm = self._front()
        first = timed(self.work_warm)
        self.work_cold()
        give_back_memory()
        trained = sum(leaf.size for leaf in jax.tree.leaves(start.theta))
        frames = len(actions)
        kept = sum(leaf.nbytes for leaf in jax.tree.leaves(self.warm)) // frames
        return {"first": first, "trained": trained, "kept_bytes_per_frame": kept, "highest_gib": highest_gib()}

    def timed(self, work):
        """One step, "warm" or "cold": with the frozen front from before, or computed anew."""
        return timed(getattr(self, f"work_{work}")) | {"loss": self.loss}

    def work_warm(self):
        """A step from the front that is kept."""
        self._advance(self.warm)

    def work_cold(self):
        """The front, and a step."""
        self._advance(self._front())

    def _advance(self, front):
        self.count += 1
        self.theta, self.opt_state, value = self._step(front, jax.random.key(self.count))
        self.loss = float(value)  # waits


if __name__ == "__main__":
    answer(Peer())
