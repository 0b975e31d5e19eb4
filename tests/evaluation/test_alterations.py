"""What a policy gets in place of its inputs."""

import numpy as np
import pytest

from metalora_jax.envs.world import Frame
from metalora_jax.evaluation import alterations
from metalora_jax.evaluation.alterations import Altered

CAMERAS = ("front", "wrist")


def frames() -> list[Frame]:
    rng = np.random.default_rng(0)
    return [
        Frame(rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8), rng.normal(size=3).astype(np.float32)) for _ in "ab"
    ]


def seen(name, scene=None) -> list[Frame]:
    altered = Altered(name, CAMERAS, 0, scene)
    return [altered(frame) for frame in frames()]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b)


def test_nothing_changes_without_an_alteration_or_with_one_of_words():
    for name in (None, "no_words", "other_words"):
        assert all(
            same(a.images, b.images) and same(a.state, b.state) for a, b in zip(seen(name), frames(), strict=True)
        )


def test_pictures():
    first, second = frames()
    assert all((frame.images == 128).all() for frame in seen("grey"))
    assert same(seen("first_picture")[1].images, first.images)
    scene = np.full_like(first.images, 7)
    assert all(same(frame.images, scene) for frame in seen("other_scene", scene))
    one, other = seen("noise")
    assert not same(one.images, other.images)
    assert same(one.images, seen("noise")[0].images)  # by the episode's seed
    assert all(same(frame.state, own.state) for frame, own in zip(seen("grey"), (first, second), strict=True))


def test_one_camera_goes_black_and_the_other_stays():
    black, own = seen("black_wrist")[1], frames()[1]
    assert not black.images[1].any()
    assert same(black.images[0], own.images[0])


def test_state():
    assert same(seen("first_state")[1].state, frames()[0].state)
    assert same(seen("first_state")[1].images, frames()[1].images)


def test_names_are_checked_and_every_one_has_a_meaning():
    assert all(alterations.meaning(name) for name in alterations.known(CAMERAS))
    assert "black_front" not in alterations.known(("front",))  # that is no picture at all
    with pytest.raises(ValueError, match=r"protocol\.altered: no alteration named 'nois'; choose from noise"):
        alterations.check(("nois",), CAMERAS, "protocol.altered")
