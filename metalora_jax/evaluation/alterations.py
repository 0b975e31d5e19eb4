"""What a policy uses: the same episodes with one of its inputs replaced.

A policy that succeeds with noise for pictures has learned its motions by heart; one that succeeds under any instruction
does not listen. LIBERO-PRO (arXiv:2510.03827) and LIBERO-plus (arXiv:2510.13626) found both of large policies.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # reports name alterations, and are made without JAX
    from metalora_jax.envs.world import Frame

OTHER_SCENE = "other_scene"
OTHER_WORDS, NO_WORDS = "other_words", "no_words"
_BLACK = "black_"
MEANING = {
    "noise": "pictures of uniform noise",
    "grey": "grey pictures",
    "first_picture": "the first pictures, all the time",
    OTHER_SCENE: "the first pictures of another start, all the time",
    "first_state": "the first state, all the time",
    NO_WORDS: "an empty instruction",
    OTHER_WORDS: "another task's instruction",
}


def known(cameras: Sequence[str]) -> tuple[str, ...]:
    """All alterations for a policy with these cameras: MEANING's, and each camera black where there are several."""
    return (*MEANING, *(_BLACK + camera for camera in cameras if len(cameras) > 1))


def meaning(name: str) -> str:
    """What the policy gets, in words."""
    return f"camera {name.removeprefix(_BLACK)} black" if name.startswith(_BLACK) else MEANING[name]


def check(names: Sequence[str], cameras: Sequence[str], field: str) -> None:
    """Raises ValueError, beginning with `field` and naming the closest, if one of the names is no alteration."""
    for name in names:
        if name not in (there := known(cameras)):
            near = difflib.get_close_matches(name, there, n=3, cutoff=0.4)
            raise ValueError(f"{field}: no alteration named {name!r}; choose from {', '.join(near or there)}")


class Altered:
    """The frames of one episode, as an alteration makes them; None changes nothing."""

    def __init__(self, name: str | None, cameras: Sequence[str], seed: int, scene: np.ndarray | None = None):
        """`seed` is of the noise; `scene` (C, H, W, 3) is what `other_scene` shows."""
        self._name, self._cameras, self._scene = name, cameras, scene
        self._rng = np.random.default_rng(seed)
        self._first: Frame | None = None

    def __call__(self, frame: Frame) -> Frame:
        """What the policy gets in place of `frame`, the next one of the episode."""
        self._first = first = self._first or frame
        images, name = frame.images, self._name or ""
        if name == "noise":
            return frame._replace(images=self._rng.integers(0, 256, images.shape, dtype=np.uint8))
        if name == "grey":
            return frame._replace(images=np.full_like(images, 128))
        if name == "first_picture":
            return frame._replace(images=first.images)
        if name == OTHER_SCENE:
            assert self._scene is not None
            return frame._replace(images=self._scene)
        if name == "first_state":
            return frame._replace(state=first.state)
        if name.startswith(_BLACK):
            images = images.copy()
            images[list(self._cameras).index(name.removeprefix(_BLACK))] = 0
            return frame._replace(images=images)
        return frame
