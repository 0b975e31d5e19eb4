"""Image augmentation: variants that are always the same, labelled like their frame, and cached like any other frame."""

import jax
import numpy as np
import pytest
from flax import nnx

from metalora_jax.adaptation import features
from metalora_jax.adaptation.feature_cache import FeatureCache
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.training.task_batches import query_rows
from tests.tiny_base import make_base, make_frames

AUGMENT = ImageAugmentation(variants=3)


def frames(**fields):
    return make_frames()._replace(augment=AUGMENT._replace(**fields))


def test_the_first_variant_is_the_picture_and_the_others_are_not():
    made = frames()
    count = len(made.state)
    rows = np.arange(count)
    np.testing.assert_array_equal(made.pictures(rows), made.images)
    for variant in (1, 2):
        changed = made.pictures(rows + variant * count)
        assert changed.dtype == np.uint8
        assert (changed != made.images).mean() > 0.5
        np.testing.assert_array_equal(changed, frames().pictures(rows + variant * count))
    assert (frames(seed=1).pictures(rows + count) != made.pictures(rows + count)).mean() > 0.5


def test_all_but_the_pictures_is_that_of_the_frame():
    made, row = frames(), np.array([[2, 5]])
    plain, varied = made.observe(row), made.observe(row + 2 * len(made.state))
    assert plain.images.shape == varied.images.shape
    for name in ("tokens", "token_mask", "state"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(varied, name))


def test_a_pure_shift_moves_the_picture_and_repeats_its_border():
    only_shift = AUGMENT._replace(crop=0.0, shift=0.25, brightness=0.0, contrast=0.0, colour=0.0, noise=0.0)
    picture = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
    (moved,) = only_shift.apply(picture, 0, 1)
    (original,) = picture
    found = [
        (y, x)
        for y in range(-2, 3)
        for x in range(-2, 3)
        if np.array_equal(moved, original[np.clip(np.arange(8) + y, 0, 7)][:, np.clip(np.arange(8) + x, 0, 7)])
    ]
    assert len(found) == 1


def test_a_pure_crop_enlarges_a_window_of_the_picture():
    only_crop = AUGMENT._replace(crop=0.4, shift=0.0, brightness=0.0, contrast=0.0, colour=0.0, noise=0.0)
    y, x = np.mgrid[:40, :40].astype(np.float64)
    picture = np.stack([5 * y, 5 * x, 0 * x], axis=-1).astype(np.uint8)[None]  # colours tell where they are from
    kept = []
    for row in range(20):
        (seen,) = only_crop.apply(picture, row, 1).astype(float)
        for axis in (0, 1):
            where = seen[..., axis].mean(axis=1 - axis) / 5
            slope = np.polyfit(np.arange(40), where, 1)[0]
            np.testing.assert_allclose(np.diff(where), slope, atol=0.25)
            assert where[0] > -0.6
            assert where[-1] < 39.6
            kept.append(slope)
    assert 0.59 < min(kept) < 0.7 < 0.9 < max(kept) <= 1.01
    np.testing.assert_allclose(kept[::2], kept[1::2], atol=0.02)  # nothing is stretched


def test_the_bank_holds_every_variant_and_the_cache_serves_them(tmp_path):
    made, base = frames(), make_base()
    graph, params = nnx.split(base.model)

    def frozen(cache):
        return features.compute(made, graph, params, "features", lambda _: None, cache, "f")

    plain, stored = frozen(None), frozen(FeatureCache(tmp_path, 2**30))
    served = frozen(FeatureCache(tmp_path, 2**30))
    assert all(len(leaf) == 3 * len(made.state) for leaf in jax.tree.leaves(plain))
    jax.tree.map(np.testing.assert_array_equal, plain, stored)
    jax.tree.map(np.testing.assert_array_equal, plain, served)
    row = np.array([7 + 2 * len(made.state)])
    direct = jax.jit(base.model.encode)(made.observe(row).images)
    np.testing.assert_allclose(plain.features[row], direct, atol=2e-6)


def test_batches_draw_all_variants_and_without_augmentation_nothing_changes():
    def rows(made):
        return query_rows(made, "push", (0, 1), None, 12, np.random.default_rng(0)).rows

    count = len(make_frames().state)
    assert set(rows(frames()) // count) == {0, 1, 2}
    np.testing.assert_array_equal(rows(frames()) % count, rows(make_frames()))
    np.testing.assert_array_equal(rows(frames(variants=1)), rows(make_frames()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(variants=0), "augment.variants = 0 must be at least 1"),
        (dict(variants=2, crop=1.0), "augment.crop = 1.0 must lie in"),
        (dict(variants=2, shift=1.0), "augment.shift = 1.0 must lie in"),
        (dict(variants=2, noise=-1.0), "augment.noise = -1.0 must lie in"),
        (dict(variants=2, flip=True), "no field augment.flip"),
    ],
)
def test_senseless_ranges_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageAugmentation.from_config(fields)
