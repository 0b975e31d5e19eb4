"""Statistics of a base that is made from a public policy: its own, or those of demonstrations, in its own modes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metalora_jax.data import normalize, relative, relative_statistics
from metalora_jax.data.normalize import Statistics
from metalora_jax.policies import registry
from metalora_jax.policies.policy import Checkpoint, Normalization
from metalora_jax.types import Demo

UNLIKE = 5.0  # times the share of numbers that quantiles leave out: those of other data, or means of the episodes'
NOTABLE = 1e-3  # share of a scale that eps is, which is said
_FEATURES = {"STATE": "observation.state", "ACTION": "action"}
_BY = {
    normalize.MEAN_STD: "mean and standard deviation",
    normalize.IDENTITY: "nothing, as they are",
    "MIN_MAX": "smallest and largest value",
    "QUANTILES": "1st and 99th percentile",
    "QUANTILE10": "10th and 90th percentile",
    normalize.OPENPI_QUANTILES: "1st and 99th percentile",
}


class Scaling(NamedTuple):
    """Statistics, and what there is to say about them."""

    statistics: Statistics
    source: str  # where they came from
    doubts: tuple[str, ...] = ()  # what looks wrong, a sentence each


def of_policy(source: str | Path, found: Checkpoint, data_set: str = "") -> Scaling:
    """A public policy's own statistics.

    Args:
      source: the policy, for messages.
      found: what it holds.
      data_set: whose statistics to take; "" is the set without a name, which is the one that lerobot itself would use.

    Raises:
      ValueError: there are none, or they contradict each other or the policy's config.
    """
    known = _of(found)
    if known.wrong:
        raise ValueError(f"{source}: {known.wrong[0]}; provide your own statistics, of training demonstrations")
    parts, doubts = [], list(known.said)
    for kind, feature in _FEATURES.items():
        stats = found.statistics.get(data_set, {}).get(feature)
        if stats is None:
            named = ", ".join(f"{name} ({' and '.join(each)})" for name, each in found.statistics.items() if name)
            raise ValueError(
                f"{source} has no statistics of {feature} "
                + (f"of the data set {data_set!r}" if data_set else "that are in force")
                + (f", only of the data sets {named}; choose one (metalora convert --asset), or" if named else ";")
                + " give those of your training tasks"
            )
        mode = known.modes[kind]
        try:
            shift, scale = normalize.shift_and_scale(stats, mode, known.eps)
        except ValueError as error:
            raise ValueError(f"{source}: {feature}: {error}; give statistics of your training tasks") from None
        if len(shift) != (stated := known.widths.get(kind, len(shift))):
            raise ValueError(
                f"{source}: the statistics of {feature} have {len(shift)} dimensions, config.json says {stated}; they "
                "are of another robot"
            )
        at, (shift, scale, constant) = shift, normalize.held(shift, scale, mode)
        doubts += [
            f"{feature} is constant in dimension {i} of the policy's statistics, at {at[i]:.3g}; its scale is "
            f"raised to {normalize.FLOOR:g}"
            for i in constant
        ]
        doubts += [
            f"{what} of {feature}, in {_dimensions(numbers)}: its statistics are of different data"
            for what, numbers in normalize.impossible(stats)
        ]
        if mode == normalize.MEAN_STD and (share := float((known.eps / scale).max())) > NOTABLE:
            doubts.append(
                f"eps is {known.eps:g}, {share:.1%} of the scale of {feature}: it is part of the scale here, as the "
                "policy was trained; lerobot leaves it out when it undoes actions"
            )
        if close := normalize.averaged(stats, mode):
            doubts.append(
                f"the quantiles of {feature} are too close together for its mean and standard deviation, in "
                f"{_dimensions(close)}: they look averaged over episodes. They are kept: the policy learned under "
                "them"
            )
        parts += [shift, scale]
    state_mean, state_std, action_mean, action_std = parts
    mask = None if known.relative is None else np.array(known.relative)
    statistics = Statistics(state_mean, state_std, action_mean, action_std, mask).checked()
    return Scaling(statistics, f"the policy's own, in {known.source}: {_by(known)}", tuple(doubts))


def of_demos(
    found: Checkpoint,
    demos: Sequence[Demo],
    absolute: bool = False,
    mask: np.ndarray | None = None,
    of_differences: bool = False,
) -> Scaling:
    """Statistics of demonstrations, in the modes that the policy normalises by.

    Args:
      found: the policy.
      demos: of training tasks.
      absolute: the policy was trained on absolute actions, whatever its own statistics look like.
      mask, of_differences: which actions it predicts relative to the state, see `Statistics.relative`.

    Raises:
      ValueError: the policy's own are those of relative actions, see `relative_statistics.are`, and it is said to be
        neither `absolute` nor relative; the demonstrations are not of the kind that is said, see `relative.mismatch`;
        or see `normalize.compute`.
    """
    known = _of(found)
    own, doubts = found.statistics.get("", {}).get(_FEATURES["ACTION"], {}), []
    states, actions = [demo.state for demo in demos], [demo.actions for demo in demos]
    chunk = found.model.sizes.chunk
    if wrong := relative.mismatch(states, actions, mask, of_differences):
        raise ValueError(str(wrong))
    if mask is None and relative_statistics.are(own, states, actions, chunk):
        what = (
            f"the policy's statistics of actions, in {known.source}, are those of actions relative to the state, the "
            "demonstrations' actions are absolute"
        )
        if not absolute:
            raise ValueError(
                f"{what}: it was trained on relative actions, or under statistics that lerobot's "
                "recompute_stats(relative_action=True) wrote. If it predicts actions relative to the state, say which "
                "(metalora convert --relative_actions=all_but_gripper); if you know that it was trained on absolute "
                "ones, say that (--absolute_actions)"
            )
        doubts.append(f"{what}; it is taken to have been trained on absolute ones, as it was told")
    statistics = normalize.compute(
        *(demos, normalize.FLOOR, known.modes, known.eps),
        relative=mask,
        chunk=chunk,
        of_differences=of_differences,
    )
    for kind, name in (("STATE", "state"), ("ACTION", "action")):
        if kind == "ACTION" and mask is not None:
            values = relative.of_episodes(states, actions, mask, chunk)
        else:
            values = np.concatenate(states if kind == "STATE" else actions)
        own, mode = found.statistics.get("", {}).get(_FEATURES[kind], {}), known.modes.get(kind, normalize.MEAN_STD)
        scale = getattr(statistics, f"{name}_std")
        doubts += [
            f"{name} dimension {i} varies by {spread:.2g} only; its scale is raised to {normalize.FLOOR:g}"
            for i, spread in enumerate(values.astype(np.float64).std(axis=0))
            if mode != normalize.IDENTITY and scale[i] == np.float32(normalize.FLOOR)
        ]
        if mode not in normalize.OUTSIDE or any(len(x) != values.shape[1] for n, x in own.items() if n[0] == "q"):
            continue
        if any(n[0] == "q" for n in own):
            share, expected = normalize.outside(own, mode, values), normalize.OUTSIDE[mode]
            if share > min(UNLIKE * expected, 0.5):
                doubts.append(
                    f"{share:.0%} of the demonstrations' {name} numbers lie outside the policy's own quantiles "
                    f"({expected:.0%} expected): those are of other data, or averaged over episodes. The "
                    "demonstrations' are taken"
                )
    frames = sum(len(demo.actions) for demo in demos)
    source = f"of {len(demos)} demonstrations, {frames} frames: {_by(known)}"
    return Scaling(statistics, source, tuple(doubts))


def _of(found: Checkpoint) -> Normalization:
    return found.normalization or Normalization(registry.of_model(found.model).modes, "")


def _by(known: Normalization) -> str:
    return ", ".join(
        f"{name} by {_BY.get(known.modes.get(kind, normalize.MEAN_STD), known.modes.get(kind))}"
        for kind, name in (("STATE", "state"), ("ACTION", "actions"))
    )


def _dimensions(numbers: Sequence[int]) -> str:
    return f"dimension{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
