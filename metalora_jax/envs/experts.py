"""Records scripted experts as demonstrations."""

import numpy as np

from metalora_jax.data.libero_hdf5 import Moment, Recording
from metalora_jax.envs.conditions import Condition, command_labels, joint_labels, read_joints
from metalora_jax.envs.world import Simulator, Traced
from metalora_jax.types import Demo


def record(
    env: Simulator,
    start: int,
    condition: Condition = Condition(),  # noqa: B008 (frozen)
    noise: float = 0.0,
    max_steps: int = 200,
    tail: int = 3,
    limits: np.ndarray | None = None,
) -> Demo | None:
    """Only the demonstration of `record_whole`, or None."""
    recording = record_whole(env, start, condition, noise, max_steps, tail, limits)
    return None if recording is None else recording.demo


def record_whole(
    env: Simulator,
    start: int,
    condition: Condition = Condition(),  # noqa: B008 (frozen)
    noise: float = 0.0,
    max_steps: int = 200,
    tail: int = 3,
    limits: np.ndarray | None = None,
) -> Recording | None:
    """One successful demonstration of `env`'s task, or None if the expert fails within `max_steps`.

    If the simulator is `world.Traced`, its state is recorded as well.

    With `noise` > 0 the hand is pushed off its course (Gaussian, in action units, held for a few steps) while the
    labels stay the expert's own: the demonstration then also shows how to recover (DART, Laskey et al. 2017,
    arXiv:1703.09327). `tail` steps are kept after success. `limits` (action_dim, 2) are those of joint targets, all of
    which but the gripper's, the last one, are pushed, by `noise` in their own unit; None: commands are displacements.
    """
    rng = np.random.default_rng([start, 7])
    # The robot is driven unshifted and the actions are relabelled: an expert that knew the shift would move the same.
    env.reset(start, condition.of_the_scene)
    act = env.expert()
    origin = env.origin() if isinstance(env, Traced) else None
    moments: list[Moment] = []
    low, high = (-1.0, 1.0) if limits is None else limits[:-1].T
    pushed = 3 if limits is None else len(limits) - 1
    frames, actions, push, left = [], [], np.zeros(pushed), tail
    succeeded = False
    for t in range(max_steps):
        action = act()
        if isinstance(env, Traced):
            moments.append(env.moment())
        frames.append(env.observe())
        actions.append(action)
        if noise and t % 5 == 0:
            push = rng.normal(size=pushed) * noise
        moved = action.copy()
        moved[:pushed] = np.clip(moved[:pushed] + push, low, high)
        succeeded |= env.step(moved).success
        if succeeded:
            left -= 1
            if left <= 0:
                break
    if not succeeded:
        return None
    state, executed = np.stack([f.state for f in frames]), np.stack(actions)
    demo = Demo(
        instruction=env.instruction,
        images=np.stack([f.images for f in frames]),
        state=state if limits is None else read_joints(state, condition).astype(np.float32),
        actions=command_labels(executed, condition) if limits is None else joint_labels(executed, condition),
    )
    return Recording(demo, origin, tuple(moments))
