"""The values that travel between the rooms: what a policy sees, what it does, what one demonstration holds.

Letters used in shapes throughout the package::

    B  frames in a batch         C  cameras                H, W  image height and width [px]
    L  instruction tokens        S  prefix tokens          T     steps of one demonstration
    M  noise draws per frame      D  (max) action width     K     inner steps
"""

from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array | np.ndarray
PyTree = Any


class Pictures(Protocol):
    """An array of pictures (T, C, H, W, 3) uint8, or a `data.film.Film`, which is read like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, C, H, W, 3)."""

    @property
    def dtype(self) -> Any:
        """Of the pixels."""

    @property
    def ndim(self) -> int:
        """Five."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> Any: ...

    def __array__(self) -> np.ndarray: ...

    def astype(self, dtype: Any) -> np.ndarray:
        """All of it in memory, in another type."""


class Observation(NamedTuple):
    """What a policy sees at B moments, in its own units: see `data.preprocessor`."""

    images: Array  # (B, C, H, W, 3) float32 in [-1, 1]; padding and absent cameras are -1
    image_mask: Array  # (B, C) bool; False where a camera is absent
    tokens: Array  # (B, L) int32 token ids of the instruction, padded on the right
    token_mask: Array  # (B, L) bool; True on real tokens
    state: Array  # (B, max_state_dim) float32, normalised proprioception, zero beyond the robot's own dimensions


class Sizes(NamedTuple):
    """The widths of a policy's inputs and outputs, which demonstrations are brought to."""

    state: int  # D of the state
    action: int  # D of an action
    chunk: int  # control steps in a chunk
    image: int  # [px] side of the square that pictures are brought to
    cameras: int  # C
    tokens: int  # L of a prompt
    vocabulary: int  # token ids are below it


class ActionChunk(NamedTuple):
    """What a policy is to do over the next `chunk` control steps after each of B moments."""

    actions: Array  # (B, chunk, max_action_dim) float32, normalised, zero beyond the robot's own dimensions
    is_pad: Array  # (B, chunk) bool; True on steps after the end of the demonstration


class Batch(NamedTuple):
    """One supervised batch. `inputs` is an Observation, or a later stage's output where the front is frozen."""

    inputs: PyTree  # Observation, or encode() features with state and tokens, or a condition() context
    target: ActionChunk


class TaskBatch(NamedTuple):
    """What one meta-step consumes. Every leaf of both parts has a leading task axis."""

    support: Batch  # leaves (tasks, K, B, ...): one minibatch for each inner step
    query: Batch  # leaves (tasks, B, ...)


class Demo(NamedTuple):
    """One recorded demonstration, in the robot's own units."""

    instruction: str
    images: Pictures  # (T, C, H, W, 3) uint8, as policies see them; an array, or decoded when they are looked at
    # (T, state_dim) float32; Meta-World: hand x, y, z [m], gripper opening [0, 1]; LIBERO: hand x, y, z [m], axis-angle
    # [rad] (3), fingers [m] (2)
    state: np.ndarray
    actions: np.ndarray  # (T, action_dim) float32, in the simulator's units, each in [-1, 1]
    paraphrases: tuple[str, ...] = ()  # other wordings of the instruction, see `data.instructions`
    steps: tuple[tuple[int, str], ...] = ()  # (first frame, text) of what is said in its place from there on, in order
