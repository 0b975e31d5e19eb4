"""Which of a policy's stages are frozen under a placement, and how a loss enters the policy behind them.

A policy has three stages: encode -> condition -> velocity. Stages below the lowest adapter give the same result in
every gradient step, so they are computed once per frame (`data.features`) and a batch then carries their output.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import jax

from metalora_jax.policies.smolvla.model import Context, SmolVLA
from metalora_jax.types import Array, Observation

Stage = Literal["observation", "features", "context"]


class Features(NamedTuple):
    """What `encode` gives for B frames, with the rest of the prefix that `condition` still needs."""

    features: Array  # (B, C, N, text_hidden)
    image_mask: Array  # (B, C) bool
    tokens: Array  # (B, L) int32
    token_mask: Array  # (B, L) bool
    state: Array  # (B, max_state_dim)


def last_frozen(adapted: Iterable[str]) -> Stage:
    """The deepest point that no adapter can influence, from the paths of the adapted maps."""
    roots = {path.split("/")[0] for path in adapted}
    if roots & {"vision", "connector"}:
        return "observation"
    return "features" if roots & {"text", "state_proj"} else "context"


def advance(model: SmolVLA, observation: Observation, stage: Stage) -> Observation | Features | Context:
    """Runs the frozen stages, up to `stage`."""
    if stage == "observation":
        return observation
    features = Features(model.encode(observation.images), *observation[1:])
    return features if stage == "features" else model.condition(*features)


def context_of(model: SmolVLA, inputs: Observation | Features | Context) -> Context:
    """Runs the stages that are left."""
    if isinstance(inputs, Observation):
        inputs = Features(model.encode(inputs.images), *inputs[1:])
    if isinstance(inputs, Features):
        inputs = model.condition(*(jax.numpy.asarray(x) for x in inputs))
    return inputs
