"""Pixels and words on their way into SmolVLA."""

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.preprocess import pad_width, prepare_image, prepare_images, prepare_text


def test_an_image_of_the_right_size_only_changes_range():
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 8, 8, 3)), jnp.float32)
    np.testing.assert_allclose(prepare_image(image, 8), 2 * image - 1, atol=1e-6)


@pytest.mark.parametrize(("shape", "rows", "columns"), [((4, 8), 4, 0), ((8, 4), 0, 4), ((5, 10), 4, 0)])
def test_padding_is_on_top_and_on_the_left_and_is_minus_one(shape, rows, columns):
    out = prepare_image(jnp.ones((*shape, 3)), 8)
    assert out.shape == (8, 8, 3)
    assert (out[:rows] == -1).all()
    assert (out[:, :columns] == -1).all()
    np.testing.assert_allclose(out[rows:, columns:], 1.0)


def test_resizing_is_bilinear_at_pixel_centres_without_antialiasing():
    row = jnp.arange(8.0) / 8
    image = jnp.broadcast_to(row[None, :, None], (8, 8, 3))
    down = (prepare_image(image, 2)[0, :, 0] + 1) / 2
    np.testing.assert_allclose(down, [(1 + 2) / 16, (5 + 6) / 16])  # centres fall at 1.5 and 5.5: two pixels each
    up = (prepare_image(image, 16)[0, :4, 0] + 1) / 2
    np.testing.assert_allclose(up, [0, 0.25 / 8, 0.75 / 8, 1.25 / 8], atol=1e-7)


def test_absent_cameras_are_blank_and_masked():
    images, mask = prepare_images([None, jnp.ones((2, 6, 4, 3)), jnp.zeros((2, 8, 8, 3))], 8)
    assert images.shape == (2, 3, 8, 8, 3)
    assert (images[:, 0] == -1).all()
    np.testing.assert_array_equal(mask, [[False, True, True]] * 2)


def test_bad_images_are_refused():
    with pytest.raises(ValueError, match="uint8; divide by 255"):
        prepare_image(jnp.zeros((8, 8, 3), jnp.uint8), 8)
    with pytest.raises(ValueError, match="channels last"):
        prepare_image(jnp.zeros((3, 8, 8)), 8)
    with pytest.raises(ValueError, match="no camera"):
        prepare_images([None], 8)


def test_states_are_padded_with_zeros_or_refused():
    np.testing.assert_array_equal(pad_width(np.ones((2, 3)), 5), [[1, 1, 1, 0, 0]] * 2)
    with pytest.raises(ValueError, match="action has width 9, the policy takes at most 4"):
        pad_width(np.ones((2, 9)), 4, "action")


@pytest.fixture
def tokenizer() -> Tokenizer:
    words = ["?", "unused", "pad", "push", "the", "cup", "\n", "far"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(Regex("\n"), "isolated")]
    )
    return tokenizer


CONFIG = SmolVLAConfig.nano(max_tokens=5)


def test_instructions_end_in_one_newline_and_are_padded_on_the_right(tokenizer):
    tokens, mask = prepare_text(tokenizer, ["push the cup", "push\n"], CONFIG)
    np.testing.assert_array_equal(tokens, [[3, 4, 5, 6, 2], [3, 6, 2, 2, 2]])
    np.testing.assert_array_equal(mask, [[True] * 4 + [False], [True] * 2 + [False] * 3])
    assert tokens.dtype == np.int32


def test_a_long_instruction_is_refused_by_name_or_loses_its_beginning(tokenizer):
    long = "push the cup far far"
    with pytest.raises(ValueError, match=r"'push the cup far far' has 6 tokens, the limit is 5"):
        prepare_text(tokenizer, [long], CONFIG)
    np.testing.assert_array_equal(prepare_text(tokenizer, [long], CONFIG, truncate="left")[0], [[4, 5, 7, 7, 6]])


def test_text_that_the_policy_cannot_embed_is_refused(tokenizer):
    with pytest.raises(ValueError, match="token 6, beyond vocab_size=5"):
        prepare_text(tokenizer, ["push"], SmolVLAConfig.nano(vocab_size=5))
    tokenizer.enable_truncation(3)
    with pytest.raises(ValueError, match="no_truncation"):
        prepare_text(tokenizer, ["push"], CONFIG)
    with pytest.raises(ValueError, match="truncate='right'"):
        prepare_text(tokenizer, ["push"], CONFIG, truncate="right")
