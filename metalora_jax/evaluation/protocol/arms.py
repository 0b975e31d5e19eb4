"""The competitors of a few-shot comparison: where each starts, and how it adapts."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalora_jax import adapters, trees
from metalora_jax.adaptation.learner import Learner
from metalora_jax.meta import InnerOptions
from metalora_jax.training.adapt import program
from metalora_jax.training.methods import OPTIMIZERS
from metalora_jax.types import Batch, PyTree


class Arm(NamedTuple):
    """One method with one seed, before it has seen the task."""

    name: str
    meta_seed: int
    learner: Learner
    placement: adapters.Placement
    meta_params: PyTree  # {"theta": ...} and, where they were learned, {"log_rates": ...}
    max_norm: float | None  # clips every inner gradient
    fast: tuple[str, ...] | None = None  # leaf paths that the inner loop moves; None is all (see ANIL)
    data: str | None = ""  # digest of the demonstrations that the start was learned from; "": none, None: unknown

    @property
    def fingerprint(self) -> str:
        """Digest of the start."""
        return trees.digest(self.meta_params)[:16]


class Choice(NamedTuple):
    """An inner optimiser with its rate; for "learned" the rate is a factor on the learned ones."""

    optimizer: str
    learning_rate: float


class Snapshots(NamedTuple):
    """Theta after some numbers of steps."""

    thetas: dict[int, PyTree]  # steps -> theta, numpy leaves
    losses: np.ndarray  # (steps,) on the support minibatches
    seconds: dict[int, float]  # steps -> wall clock, in proportion to the steps, without compilation [s]


def candidates(arm: Arm, search: Mapping[str, Sequence[float]]) -> list[Choice]:
    """What the search may try for an arm: learned rates where it has them, else the optimisers and rates listed."""
    kinds = ["learned"] if "log_rates" in arm.meta_params else [kind for kind in search if kind in OPTIMIZERS]
    return [Choice(kind, float(rate)) for kind in kinds for rate in search[kind]]


class Adaptation:
    """Compiled adaptation: one for each (placement, optimiser, step counts, shapes), whatever the arm's values."""

    def __init__(self, draws: int):
        """Sets the flow samples per frame, which are the same for all arms."""
        self._draws = draws
        self._compiled: dict[tuple, Any] = {}
        self._compiling = threading.Lock()  # cells are adapted in several threads

    def __call__(self, arm: Arm, choice: Choice, support: Batch, seed: int, steps: Sequence[int]) -> Snapshots:
        """Adapts `arm` on `support` (leaves (K, frames, ...), K = max(steps)) and keeps theta at each of `steps`."""
        args = (arm.learner, arm.meta_params, support, jax.random.key(seed), jnp.float32(choice.learning_rate))
        options = InnerOptions(fast=arm.fast, max_norm=arm.max_norm)
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves((arm.meta_params, support)))
        key = (arm.placement, options, choice.optimizer, tuple(steps), shapes)
        with self._compiling:
            if key not in self._compiled:
                run = program(choice.optimizer, self._draws, options, tuple(steps))
                self._compiled[key] = run.lower(*args).compile()
        start = time.perf_counter()
        result = jax.block_until_ready(self._compiled[key](*args))
        seconds = time.perf_counter() - start
        kept = jax.tree.map(np.asarray, result.kept)
        thetas = {step: trees.index(kept, i) for i, step in enumerate(steps)}
        return Snapshots(thetas, np.asarray(result.losses), {step: seconds * step / max(steps) for step in steps})
