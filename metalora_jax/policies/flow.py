"""Flow matching on action chunks, with one time convention for every policy: t = 1 is noise, t = 0 is data.

Everything here is a pure function over a `velocity(x_t, t) -> v` callable with x_t, v (B, T, D) and t (B,); a policy
supplies it with its context already bound, so no model is known here. Lipman et al., "Flow Matching for Generative
Modeling" (arXiv:2210.02747); the conventions are those of SmolVLA (arXiv:2506.01844).
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from metalora_jax.types import ActionChunk

Velocity = Callable[[jax.Array, jax.Array], jax.Array]
Reduction = Literal["valid", "all"]


def sample_time(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws t ~ 0.001 + 0.999 Beta(1.5, 1), float32: more weight on the noisy end, never exactly 0."""
    uniform = jax.random.uniform(key, shape)
    return 0.001 + 0.999 * uniform ** (2 / 3)  # the inverse CDF of Beta(1.5, 1)


def interpolate(actions: jax.Array, noise: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The straight path from data to noise.

    Args:
      actions: (..., T, D) normalised actions, zero beyond the robot's own dimensions.
      noise: (..., T, D) standard normal, in all D dimensions.
      t: (...) flow time in [0, 1].

    Returns:
      x_t = t noise + (1 - t) actions and its velocity dx/dt = noise - actions, each (..., T, D).
    """
    t = t[..., None, None]
    return t * noise + (1 - t) * actions, noise - actions


def squared_error(v: jax.Array, target: jax.Array) -> jax.Array:
    """Elementwise flow-matching loss (target - v)^2, (..., T, D) float32."""
    return jnp.square(target.astype(jnp.float32) - v.astype(jnp.float32))


def flow_loss(
    v: jax.Array, target: jax.Array, is_pad: jax.Array, action_dim: int, reduction: Reduction = "valid"
) -> jax.Array:
    """Reduces the elementwise loss to a scalar.

    Args:
      v, target: (..., T, D) predicted and true velocities.
      is_pad: (..., T) bool, True on steps after the end of the demonstration.
      action_dim: the robot's own action width, at most D.
      reduction: "valid" is the mean over real steps and real dimensions (lerobot main); "all" is the plain mean over
        everything, padding included (lerobot 0.4.4).

    Raises:
      ValueError: unknown reduction, or an action_dim that does not fit.
    """
    losses = squared_error(v, target)
    if reduction == "all":
        return losses.mean()
    if reduction != "valid":
        raise ValueError(f'flow_loss: reduction={reduction!r} is unknown; choose "valid" or "all"')
    if not 0 < action_dim <= losses.shape[-1]:
        raise ValueError(f"flow_loss: action_dim={action_dim} does not fit actions of width {losses.shape[-1]}")
    real = ~is_pad
    total = jnp.where(real[..., None], losses[..., :action_dim], 0.0).sum()
    return total / (jnp.maximum(real.sum(), 1) * action_dim)  # a batch of nothing but padding has loss 0, not NaN


def draws_loss(
    velocity: Velocity,
    target: ActionChunk,
    key: jax.Array,
    draws: int,
    action_dim: int,
    reduction: Reduction = "valid",
) -> jax.Array:
    """Flow-matching loss averaged over M = `draws` samples of (t, noise) for each frame.

    The gradient's variance falls with M while the price is only that of the action expert: `velocity` closes over one
    context for all M samples, so whatever in it depends on the context alone is computed once.

    Args:
      velocity: maps x_t (B, T, D) and t (B,) to v (B, T, D).
      target: actions (B, T, D) and is_pad (B, T).
      key: one PRNG key for all draws.
      draws: M >= 1.
      action_dim, reduction: see `flow_loss`.
    """
    if draws < 1:
        raise ValueError(f"draws_loss: draws={draws} must be at least 1")
    actions, is_pad = jnp.asarray(target.actions), jnp.asarray(target.is_pad)
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (draws, *actions.shape), actions.dtype)
    t = sample_time(time_key, (draws, actions.shape[0]))
    x_t, u = interpolate(actions[None], noise, t)
    v = jax.vmap(velocity)(x_t, t)
    return flow_loss(v, u, jnp.broadcast_to(is_pad[None], (draws, *is_pad.shape)), action_dim, reduction)


def sample(velocity: Velocity, noise: jax.Array, num_steps: int) -> jax.Array:
    """Integrates dx/dt = v from noise at t = 1 to actions at t = 0 with `num_steps` Euler steps; (B, T, D)."""
    if num_steps < 1:
        raise ValueError(f"sample: num_steps={num_steps} must be at least 1")

    def step(x: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        return x - velocity(x, jnp.broadcast_to(t, x.shape[:1])) / num_steps, None

    times = 1.0 - jnp.arange(num_steps, dtype=jnp.float32) / num_steps
    return jax.lax.scan(step, noise, times)[0]


def guided(velocity: Velocity, previous: jax.Array, weights: jax.Array, limit: jax.Array | float) -> Velocity:
    """A velocity that leads to a chunk which goes on from the one that is being executed.

    Real-time chunking (Black, Galliker and Levine, arXiv:2506.07339): at every step of the sampler, the actions that
    the flow now leads to are pulled towards the previous chunk, through the policy's own Jacobian.

    Args:
      velocity: of the policy.
      previous: (B, T, D) the previous chunk from the new one's first step on, normalised; anything where it has ended.
      weights: (T,) in [0, 1]: 1 on steps that must stay as they are, 0 on free ones.
      limit: the strongest pull, beta in the paper; it is what acts at the noisy end, where the formula has no bound.
    """

    shares = weights[None, :, None]

    def steered(x_t: jax.Array, t: jax.Array) -> jax.Array:
        def end(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            v = velocity(x, t)
            return x - t[:, None, None] * v, v

        actions, back, v = jax.vjp(end, x_t, has_aux=True)
        error = jnp.where(shares > 0, shares * (previous - actions), 0.0)
        [pull] = back(error.astype(actions.dtype))
        strength = (jnp.square(t) + jnp.square(1 - t)) / (t * (1 - t))  # infinite at t = 1
        return v - jnp.minimum(strength, limit)[:, None, None] * pull

    return steered
