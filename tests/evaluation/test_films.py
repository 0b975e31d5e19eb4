"""Films: two halves side by side, the shorter one holding its last picture, with captions; refused before any work."""

import importlib.util

import numpy as np
import pytest

from metalora_jax.evaluation.protocol import filming, films
from metalora_jax.machine.processes import in_processes

ENCODER = ("imageio", "imageio_ffmpeg")


def write_and_read(path, halves):
    import imageio.v3 as iio

    return iio.imread(filming.write(path, halves))


@pytest.mark.metaworld  # which brings the encoder
def test_film(tmp_path):
    before, after = (np.full((n, 64, 64, 3), shade, np.uint8) for n, shade in ((4, 50), (7, 200)))
    after[-1] = 120
    # In another process: the encoder forks, which JAX's threads must not see.
    (film,) = in_processes(write_and_read, [(tmp_path / "videos" / "task.mp4", [before, after])], 1)
    assert film.shape == (7 + filming.RATE // 2, 64, 128, 3)
    for frame, right in ((0, 200), (6, 120), (-1, 120)):
        np.testing.assert_allclose(film[frame, :, :60].mean(), 50, atol=6)
        np.testing.assert_allclose(film[frame, :, 68:].mean(), right, atol=6)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["task.mp4"]


def moving(length: int) -> np.ndarray:
    """A square that wanders over noise."""
    frames = np.tile(np.random.default_rng(0).integers(0, 60, (64, 64, 3), dtype=np.uint8), (length, 1, 1, 1))
    for number, frame in enumerate(frames):
        frame[10:30, number % 40 : number % 40 + 20] = (250, 20, 20)
    return frames


def read_gif(path):
    from PIL import Image, ImageSequence

    with Image.open(path) as file:
        found = [(np.asarray(each.convert("RGB")), each.info["duration"]) for each in ImageSequence.Iterator(file)]
        frames, durations = zip(*found, strict=True)
        return np.stack(frames), durations, file.info


def test_gif(tmp_path):
    path = filming.write_gif(tmp_path / "made" / "scene.gif", [moving(31), moving(10), moving(22)])
    frames, durations, info = read_gif(path)
    assert frames.shape[1:] == (64, 3 * 64, 3)
    assert info["loop"] == 0  # for ever
    pictures = -(-(31 + filming.RATE // 2) // filming.GIF_EVERY)
    assert sum(durations) == pictures * 1000 * filming.GIF_EVERY // filming.RATE  # equal pictures are kept as one
    square = frames[2, 12:28, 2 * filming.GIF_EVERY + 2 :][:, :16].astype(int)
    np.testing.assert_allclose(square.mean((0, 1)), (250, 20, 20), atol=25)
    last = frames[-1, 12:28, 64 + 9 + 2 : 64 + 9 + 18].astype(int)  # of the shorter one, which it holds
    np.testing.assert_allclose(last.mean((0, 1)), (250, 20, 20), atol=25)
    assert [each.name for each in path.parent.iterdir()] == ["scene.gif"]


def test_a_gif_is_made_smaller_until_it_fits_or_refused(tmp_path):
    whole = filming.write_gif(tmp_path / "whole.gif", [moving(60)]).stat().st_size
    path = filming.write_gif(tmp_path / "small.gif", [moving(60)], limit=whole - 1)
    assert path.stat().st_size < whole
    assert read_gif(path)[0].shape[1] in [round(64 * scale) for scale in filming.GIF_SCALES[1:]]
    with pytest.raises(ValueError, match="at its smallest, allowed are 100; film less"):
        filming.write_gif(tmp_path / "none.gif", [moving(60)], limit=100)
    assert not (tmp_path / "none.gif").exists()


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


def test_a_film_that_cannot_be_written_is_refused_before_it_is_played(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", {}.get)
    with pytest.raises(ValueError, match=r"films need imageio and imageio-ffmpeg: install both$"):
        filming.check_encoder()


@pytest.mark.metaworld
def test_caption():
    frames = np.full((2, filming.SIZE, filming.SIZE, 3), 90, np.uint8)
    shown = filming.captioned(frames, "adapted")
    assert shown.dtype == np.uint8
    assert set(np.unique(shown)) == {90, 255}
    assert (shown[:, 40:] == 90).all()
