"""Pictures spoiled as LIBERO-plus does: which way, how much, and the same again."""

import numpy as np
import pytest

from metalora_jax.envs.picture_noise import spoiled

DOT = np.zeros((256, 256, 3), np.uint8)
DOT[128, 128] = 255
SCENE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("first", [1, 11, 21, 31], ids=["motion", "Gaussian", "zoom", "fog"])
def test_each_kind_spoils_more_and_more_and_repeats(first):
    weak, strong = (spoiled(SCENE, n, 7, 3) for n in (first, first + 9))
    assert (strong.shape, strong.dtype) == (SCENE.shape, np.uint8)
    assert 0 < strong.std() < weak.std() < SCENE.std()
    np.testing.assert_array_equal(strong, spoiled(SCENE, first + 9, 7, 3))


def test_what_is_drawn_is_another_in_every_step_and_episode():
    for number in (10, 40):
        seen = {spoiled(SCENE, number, episode, step).tobytes() for episode in (0, 1) for step in (0, 1)}
        assert len(seen) == 4
    for number in (20, 30):  # nothing is drawn
        np.testing.assert_array_equal(spoiled(SCENE, number, 0, 0), spoiled(SCENE, number, 1, 1))


def test_a_gaussian_is_as_wide_as_its_number_at_256_pixels_and_scales():
    for side in (256, 128):
        edge = np.zeros((side, side, 3), np.uint8)
        edge[:, side // 2 :] = 255
        slope = np.diff(spoiled(edge, 18, 0, 0)[0, :, 0].astype(float))
        away = np.arange(len(slope)) - (side // 2 - 1)
        np.testing.assert_allclose(np.sqrt((slope * away**2).sum() / slope.sum()), 8 * side / 256, rtol=0.05)


def test_motion_blur_drags_a_dot_one_way_within_45_degrees():
    for step in range(8):
        rows, columns = np.nonzero(spoiled(DOT, 5, 0, step)[..., 0])
        assert len(rows) > 5
        # Sideways, in the picture as policies see it, and never more up or down than that.
        assert columns.min() == 128 < columns.max() <= 128 + 30
        assert (np.abs(rows - 128) <= columns - 128 + 1).all()


def test_an_even_picture_is_only_fogged():
    even = np.full((64, 64, 3), 80, np.uint8)
    for number in (5, 15, 25):
        assert np.abs(spoiled(even, number, 0, 0).astype(int) - even).max() <= 1
    assert spoiled(even, 35, 0, 0).std() > 5
