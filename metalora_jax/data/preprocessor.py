"""From a robot's own units to what one policy reads, and back: the only place where observations are made."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from metalora_jax.data import relative
from metalora_jax.data.normalize import (
    Statistics,
    normalize_actions,
    normalize_state,
    unnormalize_actions,
    unnormalize_state,
)
from metalora_jax.types import Observation, Sizes


class Preprocessor(NamedTuple):
    """What a policy asks of its inputs. Made by `adaptation.base.Base`; knows no model."""

    statistics: Statistics
    sizes: Sizes
    # (..., H, W, 3) uint8 -> (..., size, size, 3) float32 in [-1, 1]
    prepare_images: Callable[[np.ndarray], np.ndarray]
    # (instruction, normalised states (n, state_dim)) -> token ids (n, L), mask (n, L); ValueError where it is too long
    tokenize: Callable[[str, np.ndarray], tuple[np.ndarray, np.ndarray]]
    # the same -> (n,) by how many tokens the prompts are cut
    excess: Callable[[str, np.ndarray], np.ndarray] = lambda _, states: np.zeros(len(states), int)

    @property
    def state_dim(self) -> int:
        """The robot's own state dimensions."""
        return len(self.statistics.state_mean)

    def normalize_state(self, state: np.ndarray) -> np.ndarray:
        """(..., state_dim) in the robot's units -> (..., max_state_dim), zero beyond state_dim."""
        return normalize_state(self.statistics, state, self.sizes.state)

    def text(self, instruction: str, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n, L) and mask (n, L) of n frames, from normalised states (n, max_state_dim)."""
        return self.tokenize(instruction, states[:, : self.state_dim])

    def cut(self, instruction: str, states: np.ndarray) -> np.ndarray:
        """By how many tokens `text` cuts each of n prompts, (n,) int; none where long ones are refused."""
        return self.excess(instruction, states[:, : self.state_dim])

    def observe(self, images: np.ndarray, state: np.ndarray, instruction: str) -> Observation:
        """What the policy sees of B frames, all told the same.

        Args:
          images: (B, C, H, W, 3) uint8, cameras in the order of the policy's training.
          state: (B, state_dim) in the robot's units.
          instruction: what the robot is told.

        Raises:
          ValueError: images are no uint8, there are no frames, more cameras than the policy has, another number of
            frames or state dimensions, a state that is not finite, or a text that is too long.
        """
        images, state = np.asarray(images), np.asarray(state)
        if images.ndim != 5 or images.dtype != np.uint8:
            raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (B, C, H, W, 3)")
        if min(images.shape) == 0 or images.shape[-1] != 3:
            raise ValueError(f"images have shape {images.shape}, expected (B, C, H, W, 3) with at least one frame")
        if images.shape[1] > self.sizes.cameras:
            raise ValueError(
                f"images show {images.shape[1]} cameras, the policy has {self.sizes.cameras}: give those that it was "
                "trained with, in their order"
            )
        if state.shape != (len(images), self.state_dim):
            raise ValueError(
                f"state has shape {state.shape}, expected ({len(images)}, {self.state_dim}): a row for each frame"
            )
        if not np.isrealobj(state) or not np.isfinite(state).all():
            raise ValueError("the state is not finite: check the sensor that it comes from")
        known = self.normalize_state(state)
        mask = np.ones(images.shape[:2], bool)
        return Observation(self.prepare_images(images), mask, *self.text(instruction, known), known)

    def unnormalize_state(self, state: np.ndarray) -> np.ndarray:
        """(..., max_state_dim) normalised -> (..., state_dim) in the robot's units."""
        return unnormalize_state(self.statistics, state)

    def labels(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """What is to be predicted: chunks of commands (..., chunk, action_dim) -> normalised (..., max_action_dim).

        `state` (..., state_dim), in the robot's units, is that at each chunk's start: relative actions are held against
        it, see `data.relative`.
        """
        predicted = relative.subtracted(actions, state, self.statistics.relative)
        return normalize_actions(self.statistics, predicted, self.sizes.action)

    def commands(self, chunk: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The inverse of `labels`: normalised chunks (..., chunk, max_action_dim) -> commands, in the robot's units."""
        return relative.added(unnormalize_actions(self.statistics, chunk), state, self.statistics.relative)
