"""Restores a LIBERO simulator to states from a demonstration file, whoever recorded it."""

from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.libero import Libero
from metalora_jax.envs.world import Frame


def restore(
    env: Libero,
    state: np.ndarray,
    model: str = "",
    condition: Condition = Condition(),  # noqa: B008 (frozen)
) -> None:
    """Begins an episode in a recorded state.

    LIBERO's own scripts compile the recorded model for this; here only what they need from it is read: where the
    fixtures stand, which no state holds.

    Args:
      env: of the same task.
      state: (1 + nq + nv,) as MuJoCo flattens it: time, positions, velocities.
      model: the recorded scene in MuJoCo's XML; empty if its fixtures stand as in `reset(0)`.
      condition: see `world.Simulator.reset`.

    Raises:
      ValueError: if state or model belongs to another scene, or is damaged.
    """
    env.reset(0, condition)
    simulator = env.simulator
    own = simulator.sim.model._model
    if state.shape != (1 + own.nq + own.nv,) or not np.isfinite(state).all():
        raise ValueError(f"{env.task}: a recorded state {state.shape} is not of its scene, {1 + own.nq + own.nv} wide")
    bodies = {own.body(i).name: i for i in range(own.nbody)}
    for name, place in _placements(model):
        if name not in bodies:
            raise ValueError(f"{env.task}: the recorded model has a body {name!r}, which is not in its scene")
        own.body_pos[bodies[name]], own.body_quat[bodies[name]] = place[:3], place[3:]
    simulator.sim.set_state_from_flattened(state)
    simulator.sim.forward()
    simulator.robots[0].controller.update(force=True)
    simulator.robots[0].controller.reset_goal()
    simulator._post_process()


def seen_again(
    env: Libero,
    states: np.ndarray,
    model: str = "",
    condition: Condition = Condition(),  # noqa: B008 (frozen)
    start: int = 0,
) -> Iterator[Frame]:
    """What the cameras would have seen of a recorded episode under `condition`: another view or light costs no episode.

    Args:
      env: of the same task.
      states: (T, 1 + nq + nv), see `restore`.
      model: see `restore`.
      condition: one that changes pictures alone; the motion stays what it was.
      start: the episode's, by which a condition's `picture_noise` is drawn.

    Raises:
      ValueError: see `restore`.
    """
    for t, state in enumerate(states):
        if t == 0:
            restore(env, state, model, condition)
        env.simulator.sim.set_state_from_flattened(state)
        env.simulator.sim.forward()
        env.simulator._post_process()
        env.at = start, t
        yield env.observe()


def _placements(model: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name, and position [m] with quaternion (7,), of each body that stands in the world."""
    if not model:
        return
    try:
        tree = ElementTree.fromstring(model)
        for body in tree.iterfind("worldbody/body"):
            place = " ".join((body.get("pos", "0 0 0"), body.get("quat", "1 0 0 0")))
            yield body.get("name", ""), np.array([float(number) for number in place.split()]).reshape(7)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"the recorded model is not MuJoCo's XML ({error}); record the demonstration again") from error
