"""Films: two halves side by side, the shorter one holding its last picture, with captions; refused before any work."""

import importlib.util

import numpy as np
import pytest

from metalora_jax.evaluation.protocol import films
from metalora_jax.machine.processes import in_processes

ENCODER = ("imageio", "imageio_ffmpeg")


def write_and_read(path, halves):
    import imageio.v3 as iio

    return iio.imread(films._write(path, halves))


@pytest.mark.metaworld  # which brings the encoder
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


@pytest.mark.parametrize("missing", [*ENCODER, None])
@pytest.mark.parametrize("tasks", [("drawer-open",), ()])
def test_films_that_cannot_be_written_are_refused_where_they_are_wanted(monkeypatch, missing, tasks):
    there = {name: object() for name in ENCODER if name != missing}
    monkeypatch.setattr(importlib.util, "find_spec", there.get)
    wanted = films.Films(tasks, 3)
    if missing and tasks:
        with pytest.raises(ValueError, match=r"install both, or set --config\.films\.tasks='\(\)'"):
            films.check(wanted)
    else:
        films.check(wanted)


@pytest.mark.metaworld
def test_caption():
    frames = np.full((2, films.SIZE, films.SIZE, 3), 90, np.uint8)
    shown = films._captioned(frames, "adapted")
    assert shown.dtype == np.uint8
    assert set(np.unique(shown)) == {90, 255}
    assert (shown[:, 40:] == 90).all()
