"""Image augmentation that the frozen front can be cached under: a fixed number of variants of every frame.

A variant depends only on the seed, the row of its frame and its own number, so it is the same in every run, and its
features are computed once. Only what leaves the right action unchanged is here: colour, noise, crops and shifts of a
few pixels. Flips and rotations need the matching change of the action: see `data.symmetry`.

Nothing here adds noise to actions: it would blur the labels, and show the policy nothing new. What helps is to push the
expert while it is recorded, and to label what it does about it (Laskey et al. 2017, arXiv:1703.09327), as
`envs.experts.record` does.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.fields import from_fields


class ImageAugmentation(NamedTuple):
    """How the variants differ from the picture; each value is drawn uniformly from its range; 0 disables it."""

    variants: int  # of every frame; the first is the picture itself
    crop: float = 0.05  # largest share of the side that is cut away, anywhere; the rest is resized to the original size
    shift: float = 0.05  # largest move along each axis, as a share of the side; borders are repeated
    brightness: float = 0.2  # largest relative change
    contrast: float = 0.2  # largest relative change, about the picture's mean
    colour: float = 0.1  # largest relative change of each channel
    noise: float = 4.0  # standard deviation [of 255]
    seed: int = 0

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "ImageAugmentation":
        """Reads the section `augment`; see `fields.from_fields`. Raises ValueError if a range is invalid."""
        self = from_fields(cls, fields, "augment")
        if self.variants < 1:
            raise ValueError(f"augment.variants = {self.variants} must be at least 1 (the picture itself)")
        for name in ("crop", "shift", "brightness", "contrast", "colour"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augment.{name} = {getattr(self, name)} must lie in [0, 1)")
        if not 0 <= self.noise <= 255:
            raise ValueError(f"augment.noise = {self.noise} must lie in [0, 255]")
        return self

    def apply(self, images: np.ndarray, row: int, variant: int) -> np.ndarray:
        """One variant of one frame: (C, H, W, 3) uint8 -> the same; all cameras change colour alike."""
        if variant == 0:
            return images
        rng = np.random.default_rng([self.seed, row, variant])
        seen = np.stack([self._window(rng, image) for image in images])
        gain = 1 + rng.uniform(-self.colour, self.colour, 3)
        gain = gain * (1 + rng.uniform(-self.brightness, self.brightness))
        contrast = 1 + rng.uniform(-self.contrast, self.contrast)
        mean = seen.mean(axis=(1, 2, 3), keepdims=True)
        changed = (mean + contrast * (seen - mean)) * gain.reshape(1, 1, 1, 3).astype(np.float32)
        changed += self.noise * rng.standard_normal(changed.shape, np.float32)
        return np.clip(np.rint(changed), 0, 255).astype(np.uint8)

    def _window(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """A crop, moved by a shift: (H, W, 3) -> the same size, float32, resampled bilinearly."""
        keep = 1 - rng.uniform(0, self.crop)
        for axis, side in enumerate(image.shape[:2]):
            first = rng.uniform(0, 1 - keep) * side + np.rint(rng.uniform(-self.shift, self.shift) * side)
            at = np.clip(first + (np.arange(side) + 0.5) * keep - 0.5, 0, side - 1)  # pixel centres
            below = np.floor(at).astype(int)
            above, weight = np.minimum(below + 1, side - 1), np.expand_dims(at - below, 1 - axis)[..., None]
            image = (1 - weight) * image.take(below, axis) + weight * image.take(above, axis)
        return image.astype(np.float32)
