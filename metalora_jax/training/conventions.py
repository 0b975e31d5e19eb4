"""Do demonstrations look like the data that a base learned from? Wrong conventions end in 0 % success, silently."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from metalora_jax import trees
from metalora_jax.data.frames import gather, rows_and_labels
from metalora_jax.policies import flow
from metalora_jax.policies.smolvla.model import SmolVLA
from metalora_jax.training.base import Base
from metalora_jax.types import ActionChunk, Demo, Observation

FAR_STATE = 5.0  # standard deviations between the demonstrations' mean and the base's
FAR_ACTION = 10.0  # standard deviations between any action and the base's mean
BETTER = 0.8  # share of the loss to which another convention must bring it down

_VIEWS: dict[str, Any] = {
    "upside down": np.s_[::-1],
    "mirrored": np.s_[:, ::-1],
    "turned by 180 degrees": np.s_[::-1, ::-1],
}
_TASK = "demonstrated"


def doubts(base: Base, demos: Sequence[Demo], frames: int = 64) -> list[str]:
    """What looks wrong, one sentence for each; empty when all is well.

    State and actions are held against the base's statistics. For conventions that no statistic shows the base itself is
    asked: whether it foretells the demonstrated actions better from a turned picture, or with the gripper reversed.

    Args:
      base: the policy to be adapted.
      demos: of one task.
      frames: how many of them the base is asked about.
    """
    return _against_statistics(base, demos) + _against_predictions(base, demos, frames)


def _against_statistics(base: Base, demos: Sequence[Demo]) -> list[str]:
    known, found = base.statistics, []
    state, actions = np.concatenate([d.state for d in demos]), np.concatenate([d.actions for d in demos])
    for i, away in enumerate((state.mean(axis=0) - known.state_mean) / known.state_std):
        if abs(away) > FAR_STATE:
            found.append(f"state dimension {i} lies {away:+.0f} standard deviations from the base's data; other units?")
    for i, away in enumerate(np.abs(actions - known.action_mean).max(axis=0) / known.action_std):
        if away > FAR_ACTION:
            found.append(f"action dimension {i} goes {away:.0f} standard deviations from the base's data; other scale?")
    return found


def _against_predictions(base: Base, demos: Sequence[Demo], count: int) -> list[str]:
    frames = gather({_TASK: list(demos)}, base.statistics, base.encode_text, base.sizes)
    graph, params = nnx.split(base.model)
    width = len(base.statistics.action_mean)

    @jax.jit
    def loss(params: Any, observation: Observation, target: ActionChunk) -> jax.Array:
        model: SmolVLA = nnx.merge(graph, params)
        context = model.context(observation)
        return flow.draws_loss(lambda x, t: model.velocity(context, x, t), target, jax.random.key(0), 4, width)

    def under(view: Any = np.s_[:], gripper: float = 1.0) -> float:
        signs = np.append(np.ones(width - 1, np.float32), np.float32(gripper))
        rows, labels = rows_and_labels(frames, _TASK, range(len(demos)), lambda actions: actions * signs)
        picks = np.linspace(0, len(rows) - 1, count).astype(int)
        seen = frames.observe(rows[picks])
        turned = seen.images[(np.s_[:], np.s_[:], *(view if isinstance(view, tuple) else (view,)))]
        return float(loss(params, seen._replace(images=turned), trees.index(labels, picks)))

    plain, found = under(), []
    views = {name: under(view) for name, view in _VIEWS.items()}
    best = min(views, key=lambda name: views[name])
    if views[best] < BETTER * plain:
        found.append(f"the base understands the pictures better {best} (loss {views[best]:.2f} not {plain:.2f})")
    reverse = under(gripper=-1.0)
    if reverse < BETTER * plain:
        found.append(f"the base understands the gripper better reversed in sign (loss {reverse:.2f}, not {plain:.2f})")
    return found
