"""Films: two halves side by side, the shorter one holding its last picture, with captions."""

import numpy as np
import pytest

from metalora_jax.evaluation import films
from metalora_jax.processes import in_processes

pytestmark = pytest.mark.metaworld


def write_and_read(path, halves):
    import imageio.v3 as iio

    return iio.imread(films._write(path, halves))


def test_film(tmp_path):
    before, after = (np.full((n, 64, 64, 3), shade, np.uint8) for n, shade in ((4, 50), (7, 200)))
    after[-1] = 120
    # In another process: the encoder forks, which JAX's threads must not see.
    (film,) = in_processes(write_and_read, [(tmp_path / "videos" / "task.mp4", [before, after])], 1)
    assert film.shape == (7 + films.RATE // 2, 64, 128, 3)
    for frame, right in ((0, 200), (6, 120), (-1, 120)):
        np.testing.assert_allclose(film[frame, :, :60].mean(), 50, atol=6)
        np.testing.assert_allclose(film[frame, :, 68:].mean(), right, atol=6)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["task.mp4"]


def test_caption():
    frames = np.full((2, films.SIZE, films.SIZE, 3), 90, np.uint8)
    shown = films._captioned(frames, "adapted")
    assert shown.dtype == np.uint8
    assert set(np.unique(shown)) == {90, 255}
    assert (shown[:, 40:] == 90).all()
