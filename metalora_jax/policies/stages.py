"""A policy run in pieces: up to where it is frozen, from there to its context, and from the context to actions.

Stages below the lowest adapter give the same result in every gradient step, so they are computed once per frame (the
frozen front) and a batch then carries their output.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from metalora_jax.policies import flow
from metalora_jax.policies.policy import Policy, Stage
from metalora_jax.types import ActionChunk, Array, Observation, PyTree


class Features(NamedTuple):
    """What `encode` gives for B frames, with the rest of the prefix that `condition` still needs."""

    features: Array  # (B, C, N, width)
    image_mask: Array  # (B, C) bool
    tokens: Array  # (B, L) int32
    token_mask: Array  # (B, L) bool
    state: Array  # (B, max_state_dim)


def advance(model: Policy, observation: Observation, stage: Stage) -> PyTree:
    """Runs the frozen stages, up to `stage`: the Observation itself, Features, or the policy's context."""
    if stage == "observation":
        return observation
    features = Features(model.encode(observation.images), *observation[1:])
    return features if stage == "features" else model.condition(*features)


def context_of(model: Policy, inputs: PyTree) -> PyTree:
    """The context, from what `advance` returned: runs the stages that are left."""
    if isinstance(inputs, Observation):
        inputs = Features(model.encode(inputs.images), *inputs[1:])
    if isinstance(inputs, Features):
        inputs = model.condition(*(jax.numpy.asarray(x) for x in inputs))
    return inputs


def loss(
    model: Policy, inputs: PyTree, target: ActionChunk, key: jax.Array, *, draws: int, action_dim: int
) -> jax.Array:
    """The flow-matching loss of B frames, a scalar; see `flow.draws_loss`. `inputs` as `advance` returns them."""
    context = context_of(model, inputs)
    return flow.draws_loss(lambda x_t, t: model.velocity(context, x_t, t), target, key, draws, action_dim)


class Previous(NamedTuple):
    """The chunk that is being executed, which a new one is to go on from; see `flow.guided`."""

    actions: Array  # (B, chunk, max_action_dim), normalised, from the new chunk's first step on
    weights: Array  # (chunk,) in [0, 1]
    limit: Array | float


def sample(model: Policy, inputs: PyTree, noise: jax.Array, previous: Previous | None = None) -> jax.Array:
    """Normalised action chunks (B, chunk, max_action_dim) from noise of that shape, by the policy's own sampler."""
    context = context_of(model, inputs)

    def velocity(x_t: jax.Array, t: jax.Array) -> jax.Array:
        return model.velocity(context, x_t, t)

    if previous is None:
        return flow.sample(velocity, noise, model.num_steps)
    return flow.sample(flow.guided(velocity, *map(jnp.asarray, previous)), noise, model.num_steps)
