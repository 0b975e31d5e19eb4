"""Pictures that are decoded when they are looked at: indexed like arrays, and not decoded again once known."""

import numpy as np
import pytest

from metalora_jax.adaptation.frozen_front import frozen_output
from metalora_jax.data import content, lerobot_v3, sources
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.film import Film
from metalora_jax.data.frames import gather
from metalora_jax.data.sources import pictures
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos

pytestmark = pytest.mark.parquet
CAMERAS, FPS = ["agentview"], 10


@pytest.fixture(params=["png", "h264-lossless"])
def kept(tmp_path, request, monkeypatch):
    """Demonstrations, and the same ones read from a dataset."""
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path / "cache"))
    demos = make_demos("reach")
    lerobot_v3.write(tmp_path / "set", demos, CAMERAS, FPS, pictures=request.param)
    return demos, lambda: sources.read(sources.open(tmp_path / "set", CAMERAS), [INSTRUCTIONS["reach"]])


def played(monkeypatch) -> list[int]:
    """From which frame on pictures are decoded, each time that they are."""
    found: list[int] = []
    for kind in (pictures.Shots, pictures.Cells):
        play, picture = kind.play, kind.picture
        monkeypatch.setattr(kind, "play", lambda self, first, play=play: (found.append(first), play(self, first))[1])
        if kind is pictures.Cells:
            monkeypatch.setattr(kind, "picture", lambda self, f, one=picture: (found.append(f[0]), one(self, f))[1])
    return found


@pytest.mark.parametrize(
    "key", [3, -1, np.s_[:], np.s_[2:5], np.s_[::-2], [4, 0, 4], np.array([[5], [1]]), np.s_[:, 0], np.s_[..., 0]]
)
def test_a_film_is_indexed_like_an_array(kept, key):
    (array, *_), read = kept
    film = next(iter(read().values()))[0].images
    assert isinstance(film, Film)
    assert (film.shape, film.dtype, len(film)) == (array.images.shape, array.images.dtype, len(array.images))
    np.testing.assert_array_equal(film[key], array.images[key])


def test_frames_in_order_are_decoded_once(kept, monkeypatch):
    (*_, longest), read = kept
    film, found = next(iter(read().values()))[-1].images, played(monkeypatch)
    for first in range(0, len(film), 2):
        np.testing.assert_array_equal(
            film[np.arange(first, min(first + 2, len(film)))], longest.images[first : first + 2]
        )
    assert found.count(0) <= 2  # begun once; of PNGs each picture is one, too
    assert len(found) <= 1 + len(film)


def test_the_policy_sees_the_same_bits_and_keeps_its_front_without_decoding_again(kept, monkeypatch):
    demos, read = kept
    base, augment = make_base(), ImageAugmentation(variants=2)
    arrays = gather({"reach": demos}, base.preprocessor, augment)
    films = gather({"reach": next(iter(read().values()))}, base.preprocessor, augment)
    some = np.array([[0, 7], [25, 3]])
    for rows in (np.arange(26), some, some + len(arrays.state)):
        np.testing.assert_array_equal(films.observe(rows).images, arrays.observe(rows).images)
    first = frozen_output(base, films, "features")
    for one, other in zip(first, frozen_output(base, arrays, "features"), strict=True):
        np.testing.assert_array_equal(one, other)
    found = played(monkeypatch)
    again = gather({"reach": next(iter(read().values()))}, base.preprocessor, augment)
    for one, other in zip(first, frozen_output(base, again, "features"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert set(found) <= {0}  # one frame, for the shape of the output


def test_what_stands_for_pictures_differs_where_they_do(kept):
    base, demos = make_base(), next(iter(kept[1]().values()))
    frames = gather({"reach": demos}, base.preprocessor)
    every = [frames.identity(np.array(rows)) for rows in ([0, 1], [1, 0], [0, 2], [6, 7])]
    assert len(set(every)) == len(every)
    few = gather({"reach": demos}, base.preprocessor, each=2)
    assert few.identity(np.array([0])) == frames.identity(few.moments["reach"][0][:1])
    np.testing.assert_array_equal(few.pictures(np.array([1])), frames.pictures(few.moments["reach"][0][1:2]))


def test_a_sound_video_is_decoded_for_its_digest_once(kept, monkeypatch):
    demos, read = kept
    assert content.digest(read()) == content.digest({INSTRUCTIONS["reach"]: demos})
    found = played(monkeypatch)
    assert content.digest(read()) == content.digest({INSTRUCTIONS["reach"]: demos})
    assert found == []


def test_a_video_that_changes_is_checked_again(tmp_path, monkeypatch):
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path / "cache"))
    lerobot_v3.write(tmp_path / "set", make_demos("reach"), CAMERAS, FPS, pictures="h264-lossless")
    source = sources.open(tmp_path / "set", CAMERAS)
    assert list(source.faults()) == []
    video = next((tmp_path / "set").rglob("*.mp4"))
    content_ = video.read_bytes()
    video.write_bytes(content_[:2000] + bytes(len(content_) - 4000) + content_[-2000:])
    with pytest.raises(ValueError, match=str(video.name)):
        list(sources.open(tmp_path / "set", CAMERAS).demos(INSTRUCTIONS["reach"]))
