"""Policies and trivial rivals on held-out episodes: predicted chunks, and how far they are from the demonstrations.

    result = evaluate(base, {"adapted": start.learner, "base": None}, held_out, training)
    result.errors["adapted"].error      # (E, D) mean absolute error of each episode and joint, in the robot's units
    result.scaled("adapted")            # (E,) mean over joints, in standard deviations of the base's data

This is no success rate. Errors compound in closed loop, and many actions can be right where one was demonstrated:
offline error need not agree with how a policy drives (Codevilla et al. 2018, arXiv:1809.04843) or manipulates
(Mandlekar et al. 2021, arXiv:2108.03298).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.frozen_front import frozen_outputs
from metalora_jax.adaptation.learner import Learner, learner
from metalora_jax.adaptation.prediction import Prediction, Recorded, predict, recorded
from metalora_jax.data.action_errors import Errors, errors
from metalora_jax.evaluation.offline import rivals
from metalora_jax.evaluation.offline.rivals import Meaning
from metalora_jax.fields import check_positive
from metalora_jax.machine.progress import progress
from metalora_jax.policies.policy import Stage
from metalora_jax.types import Demo, PyTree

NO_SUCCESS_RATE = (
    "Offline error is no success rate. It compares single chunks with one demonstration each; in closed loop errors "
    "compound, and another action may be as good. Two policies with equal offline error can differ widely in how well "
    "they drive (Codevilla et al. 2018, arXiv:1809.04843), and the policy with the least validation loss is often not "
    "the one that succeeds most (Mandlekar et al. 2021, arXiv:2108.03298). It finds policies that are no better than "
    "trivial rivals; it does not show that a better one works."
)


class Settings(NamedTuple):
    """How policies are measured."""

    stride: int = 5  # frames from one that is looked at to the next, from the second frame of an episode on
    most: int | None = None  # frames of each episode at most, spread evenly; None: all that the stride gives
    samples: int = 4  # draws of the flow's noise; 0: zero noise alone, half as much work as one draw besides
    ahead: int | None = None  # only the first so many steps of a chunk count, such as those that are executed
    seed: int = 0  # of the noise
    actions: str = "auto"  # what actions command: "absolute", "relative", or "auto"

    def checked(self) -> "Settings":
        """Itself; ValueError names the field that is out of range."""
        check_positive(self, "offline", ("stride", "most", "ahead"))
        if self.samples < 0:
            raise ValueError(f"offline.samples is {self.samples}; it must not be negative")
        if self.actions not in rivals.ACTIONS:
            raise ValueError(f"offline.actions is {self.actions!r}; choose from {', '.join(rivals.ACTIONS)}")
        return self


DEFAULT = Settings()


class Offline(NamedTuple):
    """What E held-out episodes say, from N of their frames. Actions are in the robot's own units; D joints."""

    held_out: tuple[Demo, ...]  # the E episodes
    joints: tuple[str, ...]  # D names
    scale: np.ndarray  # (D,) standard deviations of the base's data
    meaning: Meaning  # what standing still is
    demo: np.ndarray  # (N,) int in 0..E-1, the episode of each frame
    moment: np.ndarray  # (N,) int, the frame's number in its episode
    actions: np.ndarray  # (N, chunk, D) demonstrated
    is_pad: np.ndarray  # (N, chunk) bool, True on steps that do not count
    predictions: Mapping[str, Prediction]  # by policy, the rivals after the policies
    errors: Mapping[str, Errors]  # by policy

    def scaled(self, name: str) -> np.ndarray:
        """(E,) mean over joints of a policy's error, in standard deviations of the base's data."""
        return self.errors[name].scaled(self.scale)

    def in_units(self, name: str) -> float:
        """Mean over episodes and joints of a policy's error, which says little where joints have different units."""
        return float(self.errors[name].error.mean())

    def by_frame(self, name: str) -> np.ndarray:
        """(N,) mean over samples, steps and joints, in standard deviations of the base's data."""
        off = (np.abs(self.predictions[name].samples - self.actions) / self.scale).mean(axis=(0, 3))
        real = ~self.is_pad
        return np.where(real, off, 0.0).sum(axis=1) / np.maximum(real.sum(axis=1), 1)

    def loss(self, name: str) -> np.ndarray | None:
        """(E,) mean flow-matching loss; None for rivals."""
        loss = self.predictions[name].loss
        return None if loss is None else np.bincount(self.demo, loss) / np.bincount(self.demo)


def evaluate(
    base: Base,
    policies: Mapping[str, Learner | None],
    held_out: Mapping[str, Sequence[Demo]],
    training: Mapping[str, Sequence[Demo]],
    settings: Settings = DEFAULT,
    joints: Sequence[str] = (),
    loss: bool = True,
) -> Offline:
    """Measures policies on held-out episodes, beside the rivals of `rivals`. All policies get the same noise.

    Args:
      base: the frozen policy.
      policies: name -> adapters on it, whose theta acts; None is the base alone.
      held_out: task -> episodes that nobody has learned from.
      training: task -> what the rivals may use: the demonstrations that the policies were adapted to.
      settings: frames and samples.
      joints: names of the action's dimensions; without them they are numbered.
      loss: whether the flow-matching loss is measured too.

    Raises:
      ValueError: a setting is out of range, a policy is on another base, carries a rival's name or is not for the
        demonstrations' instruction, demonstrations do not fit the base, or predictions are not finite.
    """
    settings.checked()
    if taken := set(policies) & set(rivals.NAMES):
        raise ValueError(f"a policy is named {min(taken)!r}, which is a rival's name; call it otherwise")
    seen = recorded(held_out, base.preprocessor, stride=settings.stride, most=settings.most)
    episodes = tuple(demo for demos in held_out.values() for demo in demos)
    plain = learner(base, (), jax.random.key(0))
    learners = {name: plain if adapted is None else adapted for name, adapted in policies.items()}
    for name, adapted in learners.items():
        if others := [demo.instruction for demo in episodes if not adapted.applies(demo.instruction)]:
            raise ValueError(
                f"{name} is only for {' or '.join(map(repr, adapted.only_for or ()))}; under {others[0]!r} it acts as "
                "the base, whose error is measured anyway: leave such episodes out (--task)"
            )
    fronts = {
        stage: frozen_outputs(base, [seen.frames], stage)[0]
        for stage in dict.fromkeys(adapted.stage for adapted in learners.values())
    }
    return judged(base, learners, seen, fronts, episodes, training, settings, joints, loss)


def judged(
    base: Base,
    policies: Mapping[str, Learner],
    seen: Recorded,
    fronts: Mapping[Stage, PyTree],
    held_out: Sequence[Demo],
    training: Mapping[str, Sequence[Demo]],
    settings: Settings = DEFAULT,
    joints: Sequence[str] = (),
    loss: bool = True,
) -> Offline:
    """`evaluate`, for frames whose frozen front is known.

    Args:
      base: the frozen policy.
      policies: name -> adapters on it.
      seen: frames of the episodes.
      fronts: the frozen front's output for all of `seen.frames`, up to the stage of every policy.
      held_out: the E episodes.
      training: see `evaluate`.
      settings: samples and what counts; which frames is up to `seen`.
      joints, loss: see `evaluate`.

    Raises:
      ValueError: a policy is on another base, or predictions are not finite.
    """
    predictions: dict[str, Prediction] = {}
    with progress(description="predictions, frames", total=len(policies) * len(seen.demo)) as bar:
        for name, adapted in policies.items():
            predictions[name] = predict(
                base,
                adapted,
                fronts[adapted.stage],
                seen.target,
                seen.states,
                rows=seen.rows,
                samples=settings.samples,
                seed=settings.seed,
                loss=loss,
                done=bar.update,
            )
    known = rivals.meaning([demo for demos in training.values() for demo in demos], settings.actions, joints)
    for rival in rivals.NAMES:
        chunk = rivals.predicted(rival, seen, held_out, training, known)
        predictions[rival] = Prediction(chunk[None], chunk)
    return assembled(base, seen, held_out, predictions, known, settings, joints)


def assembled(
    base: Base,
    seen: Recorded,
    held_out: Sequence[Demo],
    predictions: Mapping[str, Prediction],
    known: Meaning,
    settings: Settings = DEFAULT,
    joints: Sequence[str] = (),
) -> Offline:
    """The result, from predictions of `seen`'s frames."""
    actions, is_pad = seen.actions, np.array(seen.target.is_pad)
    if settings.ahead is not None:
        is_pad[:, settings.ahead :] = True
    found = {name: errors(each.samples, each.quiet, actions, is_pad, seen.demo) for name, each in predictions.items()}
    named = tuple(joints) or tuple(f"action {i}" for i in range(actions.shape[-1]))
    scale = base.statistics.of_commands().action_std
    return Offline(tuple(held_out), named, scale, known, seen.demo, seen.moment, actions, is_pad, predictions, found)


def verdict(result: Offline, name: str, label: str) -> str:
    """One sentence: whether a policy is better than standing still."""
    own, still = (float(result.scaled(each).mean()) for each in (name, rivals.HOLD))
    units = f"{result.in_units(name):.3g} against {result.in_units(rivals.HOLD):.3g} in the robot's units"
    if own < still:
        return f"{label} is {1 - own / still:.0%} nearer to the demonstrations than standing still ({units})."
    return f"{label} is NOT better than standing still: {units}, {own:.2f} against {still:.2f} standard deviations."
