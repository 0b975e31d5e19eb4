"""A base with adapters on it, as the pure functions that training, adaptation and control need."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from metalora_jax import adapters
from metalora_jax.adapters import Graph, Placement, Theta
from metalora_jax.meta import LossFn
from metalora_jax.policies import flow
from metalora_jax.policies.smolvla.model import SmolVLA
from metalora_jax.policies.stages import Stage, context_of, last_frozen
from metalora_jax.training.base import Base
from metalora_jax.types import Batch, Observation, PyTree


class Learner(NamedTuple):
    """What every method starts from."""

    graph: Graph  # static
    theta: Theta  # a fresh start
    phi: PyTree  # frozen
    stage: Stage  # the frozen front ends here
    action_dim: int  # the robot's own

    def model(self, theta: Theta, phi: PyTree, dropout_key: jax.Array | None = None) -> SmolVLA:
        """The adapted policy."""
        return cast(SmolVLA, adapters.join(self.graph, theta, phi, dropout_key))


def learner(base: Base, placement: Placement, key: jax.Array) -> Learner:
    """Attaches fresh adapters to `base`."""
    graph, theta, phi = adapters.split(adapters.attach(base.model, placement, key))
    return Learner(graph, theta, phi, last_frozen(theta), len(base.statistics.action_mean))


def loss_fn(learner: Learner, phi: PyTree, draws: int, dropout: bool) -> LossFn:
    """The flow-matching loss of a `types.Batch`, given theta alone, with `draws` samples of (t, noise) a frame."""

    def loss(theta: Theta, batch: Batch, key: jax.Array) -> jax.Array:
        dropout_key, flow_key = jax.random.split(key)
        model = learner.model(theta, phi, dropout_key if dropout else None)
        context = context_of(model, batch.inputs)
        return flow.draws_loss(
            lambda x_t, t: model.velocity(context, x_t, t), batch.target, flow_key, draws, learner.action_dim
        )

    return loss


def act(learner: Learner, theta: Theta, phi: PyTree, observation: Observation, key: jax.Array) -> jax.Array:
    """Samples normalised action chunks (B, chunk, max_action_dim), without dropout."""
    model = learner.model(theta, phi)
    context = model.context(observation)
    config = model.config
    noise = jax.random.normal(key, (observation.state.shape[0], config.chunk_size, config.max_action_dim))
    return flow.sample(lambda x_t, t: model.velocity(context, x_t, t), noise, config.num_steps)


def zeros(theta: Theta) -> Theta:
    """Adapters that leave the base as it is."""
    return jax.tree.map(jnp.zeros_like, theta)
