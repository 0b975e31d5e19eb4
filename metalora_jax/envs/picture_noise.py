"""LIBERO-plus's spoiled pictures (Fei et al. 2025, arXiv:2510.13626), drawn anew for every picture and repeatable.

`_noise_<n>` in a variant's name: 1 to 10 motion blur, 11 to 20 Gaussian blur, 21 to 30 zoom blur, 31 to 40 fog, each
weaker to stronger. There a picture that is seen twice differs, for one generator serves the whole process; here what
is drawn depends on the episode and the control step. Lengths are in pixels of its 256, and scale with the picture. Its
glass (41 to 50) is left out: it shuffles pixels one by one, and too slowly.
"""

import numpy as np
from scipy import ndimage

_SIDE = 256  # [px] of the pictures that the lengths are meant for
_MOTION = ((5, 2), (8, 3), (10, 4), (12, 5), (15, 6), (18, 8), (20, 10), (25, 12), (30, 15), (35, 20))  # radius, sigma
_LARGEST = (1.11, 1.16, 1.21, 1.26, 1.31, 1.36, 1.41, 1.46, 1.51, 1.56)  # zooms, up to which np.arange goes
_FINER = (0.01, 0.01, 0.02, 0.02, 0.03, 0.01, 0.01, 0.02, 0.02, 0.03)  # their steps
_FOG = ((0.5, 3), (1, 2.8), (1.5, 2.5), (2, 2.2), (2.5, 2), (3, 1.8), (3.5, 1.6), (4, 1.5), (4.5, 1.4), (5, 1.3))


def spoiled(picture: np.ndarray, number: int, episode: int, step: int) -> np.ndarray:
    """A picture under LIBERO-plus's noise.

    Args:
      picture: (H, W, 3) uint8, square, as policies see it: LIBERO-plus spoils it before it is turned.
      number: 1 to 40.
      episode, step: what is drawn depends on: a start, and the control steps since.
    """
    rng = np.random.default_rng([episode, step, number])
    kind, strength = divmod(number - 1, 10)
    changed = (_motion, _gaussian, _zoom, _fog)[kind](picture[::-1, ::-1] / 255.0, strength, rng)
    return (np.clip(changed, 0, 1) * 255).astype(np.uint8)[::-1, ::-1]


def _motion(picture: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    """ImageMagick's MotionBlurImage: half a Gaussian along a line that starts at each pixel."""
    scale = len(picture) / _SIDE
    radius, sigma = (scale * length for length in _MOTION[strength])
    angle = np.radians(rng.uniform(-45, 45))
    away = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(away**2) / (2 * sigma**2))
    down, right = (np.ceil(away * part - 0.5).astype(int) for part in (np.sin(angle), np.cos(angle)))
    places, last, smeared = np.arange(len(picture)), len(picture) - 1, np.zeros_like(picture)
    for weight, row, column in zip(weights / weights.sum(), down, right, strict=True):
        smeared += weight * picture[np.clip(places + row, 0, last)][:, np.clip(places + column, 0, last)]
    return (np.rint(smeared * 255) + 0.5) / 255  # what is cut off below is the half


def _gaussian(picture: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    sigma = (strength + 1) * len(picture) / _SIDE
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="nearest", truncate=4.0)


def _zoom(picture: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of the picture and of its middle, enlarged more and more."""
    zooms = np.arange(1, _LARGEST[strength], _FINER[strength])
    picture = picture.astype(np.float32)
    total = np.zeros_like(picture)
    for zoom in zooms:
        total += _enlarged(picture, zoom)
    return (picture + total) / (len(zooms) + 1)


def _enlarged(picture: np.ndarray, zoom: float) -> np.ndarray:
    side = len(picture)
    middle = int(np.ceil(side / zoom))
    first = (side - middle) // 2
    cut = picture[first : first + middle, first : first + middle]
    large = ndimage.zoom(cut, (zoom, zoom, 1), order=1)
    first = (len(large) - side) // 2
    return large[first : first + side, first : first + side]


def _fog(picture: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    thickness, decay = _FOG[strength]
    brightest = picture.max()
    rows, columns = (np.arange(side) * _SIDE // side for side in picture.shape[:2])
    cloud = _cloud(decay, rng)[rows][:, columns, None]
    return (picture + thickness * cloud) * brightest / (brightest + thickness)


def _cloud(decay: float, rng: np.random.Generator) -> np.ndarray:
    """Diamond-square noise (_SIDE, _SIDE) in [0, 1], periodic (Fournier, Fussell and Carpenter 1982)."""
    cloud, step, height = np.zeros((_SIDE, _SIDE)), _SIDE, 100.0

    def middle(total: np.ndarray) -> np.ndarray:
        return total / 4 + height * rng.uniform(-height, height, total.shape)

    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]
        rows = corners + np.roll(corners, -1, axis=0)
        cloud[half::step, half::step] = middle(rows + np.roll(rows, -1, axis=1))
        centres = cloud[half::step, half::step]
        beside, along = corners + np.roll(corners, -1, axis=1), corners + np.roll(corners, -1, axis=0)
        cloud[::step, half::step] = middle(centres + np.roll(centres, 1, axis=0) + beside)
        cloud[half::step, ::step] = middle(centres + np.roll(centres, 1, axis=1) + along)
        step, height = half, height / decay
    cloud -= cloud.min()
    return cloud / cloud.max()
