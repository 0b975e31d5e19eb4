"""Scripted Meta-World experts, recorded as demonstrations."""

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np

from metalora_jax.envs.conditions import Condition, command_labels
from metalora_jax.envs.metaworld import MetaWorld
from metalora_jax.types import Demo


def record(
    env: MetaWorld,
    seed: int,
    condition: Condition = Condition(),  # noqa: B008 (frozen)
    noise: float = 0.0,
    max_steps: int = 200,
    tail: int = 3,
) -> Demo | None:
    """One successful demonstration of `env`'s task, or None where the expert fails within `max_steps`.

    With `noise` > 0 the hand is pushed off its course (Gaussian, in action units, held for a few steps) while the
    labels stay the expert's own: the demonstration then also shows how to come back (DART, Laskey et al. 2017,
    arXiv:1703.09327). `tail` steps are kept after success.
    """
    from metaworld.policies import ENV_POLICY_MAP
    from metaworld.policies.policy import Policy

    rng = np.random.default_rng([seed, 7])
    make_expert: Callable[[], Policy] = ENV_POLICY_MAP[f"{env.task}-v3"]
    expert = make_expert()
    # The robot is driven unshifted and the actions are relabelled: an expert that knows the shift would move the same.
    env.reset(seed, dataclasses.replace(condition, yaw=0.0, gain=(1.0, 1.0, 1.0), latency=0))
    frames, actions, push, left = [], [], np.zeros(4), tail
    succeeded = False
    for t in range(max_steps):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the experts warn that they ask for more than 1, which is then clipped
            action = np.clip(expert.get_action(env.full_state), -1.0, 1.0)
        frames.append(env.observe())
        actions.append(action)
        if noise and t % 5 == 0:
            push = np.append(rng.normal(size=3) * noise, 0.0)
        succeeded |= env.step(np.clip(action + push, -1.0, 1.0)).success
        if succeeded:
            left -= 1
            if left <= 0:
                break
    if not succeeded:
        return None
    return Demo(
        instruction=env.instruction,
        images=np.stack([f.images for f in frames]),
        state=np.stack([f.state for f in frames]),
        actions=command_labels(np.stack(actions), condition),
    )
