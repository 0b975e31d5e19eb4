"""Do demonstrations look like the data that a base was trained on? Wrong conventions silently give 0 % success."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from metalora_jax import trees
from metalora_jax.adaptation import features
from metalora_jax.adaptation.base import Base
from metalora_jax.data import plausibility, relative, widths
from metalora_jax.data.frames import gather, rows_and_labels
from metalora_jax.data.plausibility import FAR_ACTION as FAR_ACTION
from metalora_jax.data.plausibility import FAR_STATE as FAR_STATE
from metalora_jax.machine import caches
from metalora_jax.machine.progress import progress, waiting
from metalora_jax.policies import stages
from metalora_jax.policies.policy import Policy
from metalora_jax.types import ActionChunk, Demo, PyTree

BETTER = 0.8  # fraction to which another convention must reduce the loss

MANY, FEW = 64, 2  # frames that the base is tested on, from the inside of the motion; few if one takes it seconds

AS_IT_IS = "as it is"
VIEWS: dict[str, tuple[slice, slice]] = {
    AS_IT_IS: np.s_[:, :],
    "upside down": np.s_[::-1, :],
    "mirrored": np.s_[:, ::-1],
    "turned by 180 degrees": np.s_[::-1, ::-1],
}
_TASK = "demonstrated"


def doubts(base: Base, demos: Sequence[Demo], predictions: bool = True) -> list[str]:
    """Descriptions of what looks wrong, one sentence each; empty if nothing does.

    State and actions are compared with the base's statistics and with each other, see `quick`. For conventions that
    statistics do not show, the base is tested: does it predict the demonstrated actions better from a turned picture,
    or with the gripper reversed?

    Args:
      base: the policy to be adapted.
      demos: of one task.
      predictions: whether the base is tested, too, which takes a large one minutes on a CPU; once found, it is kept.

    Raises:
      ValueError: the demonstrations are not as wide as the base.
    """
    return quick(base, {_TASK: demos}) + (_against_predictions(base, demos) if predictions else [])


def quick(base: Base, demos: Mapping[str, Sequence[Demo]]) -> list[str]:
    """What `doubts` finds without running the policy, for demonstrations of any number of tasks.

    Raises:
      ValueError: the demonstrations are not as wide as the base, or their actions are differences where it takes
        absolute ones, or the reverse, see `relative.mismatch`.
    """
    widths.check(demos, base.statistics, base.sizes)
    found = []
    known = base.statistics
    for task, recorded in demos.items():
        states, actions = [demo.state for demo in recorded], [demo.actions for demo in recorded]
        if wrong := relative.mismatch(states, actions, known.relative, known.of_differences):
            raise ValueError(f"{task}: {wrong}")
        # The spread of recorded differences cannot be told from that of differences minus a state.
        said = plausibility.doubts(recorded, None if known.of_differences else known.of_commands())
        found += said if task == _TASK else [f"{task}: {line}" for line in said]
    cameras = {demo.images.shape[1] for recorded in demos.values() for demo in recorded}
    if base.embodiment.cameras:  # which are missing is said by name, see `embodiment.check`
        return found
    if fewer := widths.fewer_cameras("the data", max(cameras, default=0), base.sizes):
        found.append(fewer)
    return found


def _against_predictions(base: Base, demos: Sequence[Demo]) -> list[str]:
    frames = gather({_TASK: list(demos)}, base.preprocessor)
    graph, params = nnx.split(base.model)
    signs = np.ones(len(base.statistics.action_mean), np.float32)
    reversed_gripper = np.append(signs[:-1], np.float32(-1))

    rows, plain = rows_and_labels(frames, _TASK, range(len(demos)))
    _, reverse = rows_and_labels(frames, _TASK, range(len(demos)), lambda actions: actions * reversed_gripper)
    picks = np.linspace(0, len(rows) - 1, (FEW if base.large else MANY) + 2)[1:-1].astype(int)
    targets = [trees.index(labels, picks) for labels in (plain, reverse)]
    words = hashlib.sha256(frames.identity(rows[picks])).hexdigest()
    key = trees.digest([*targets, frames.state[rows[picks]], *frames.text(rows[picks])])
    key = hashlib.sha256(f"{base.fingerprint} {words} {key}".encode()).hexdigest()
    if (known := caches.noted("conventions", key)) is not None:
        return _said(json.loads(known))
    seen = frames.observe(rows[picks])
    found: dict[str, list[float]] = {}
    size = features.ONE if base.large else len(picks)
    with (
        progress(description="conventions, views", total=len(VIEWS), delay=1.0) as bar,
        waiting(bar, "compiling") as go,
    ):
        for name, view in VIEWS.items():
            turned = seen._replace(images=seen.images[(np.s_[:], np.s_[:], *view)])
            parts = [trees.index(turned, np.s_[at : at + size]) for at in range(0, len(picks), size)]
            contexts = [features.advanced(params, part, graph=graph, stage="context") for part in parts]
            context = jax.tree.map(lambda *leaves: np.concatenate(leaves), *contexts)
            found[name] = [float(loss) for loss in _losses(params, context, targets, graph, len(signs))]
            go()
            bar.update()
    caches.note("conventions", key, json.dumps(found))
    return _said(found)


@partial(jax.jit, static_argnames=("graph", "action_dim"))
def _losses(
    params: Any, context: PyTree, targets: list[ActionChunk], graph: nnx.GraphDef, action_dim: int
) -> list[jax.Array]:
    model: Policy = nnx.merge(graph, params)
    key = jax.random.key(0)
    return [stages.loss(model, context, target, key, draws=4, action_dim=action_dim) for target in targets]


def _said(found: Mapping[str, Sequence[float]]) -> list[str]:
    """Of the losses in each view: with the gripper as it is, and reversed."""
    known, reverse_loss = found[AS_IT_IS]
    best = min(found, key=lambda name: found[name][0])
    said = []
    if found[best][0] < BETTER * known:
        said.append(f"the base fits the pictures better {best} (loss {found[best][0]:.2f}, not {known:.2f})")
    if reverse_loss < BETTER * known:
        said.append(
            f"the base fits the gripper better with its sign reversed (loss {reverse_loss:.2f}, not {known:.2f})"
        )
    return said
