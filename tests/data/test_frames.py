"""Chunks, and frames by row number."""

import numpy as np
import pytest

from metalora_jax.adaptation import features
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.chunks import chunk_actions
from metalora_jax.data.frames import gather, pick, rows_and_labels
from metalora_jax.data.normalize import normalize_actions
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos, make_frames


def test_chunks_repeat_the_last_action_and_call_it_padding():
    chunks, is_pad = chunk_actions(np.array([[1.0], [2.0], [3.0]]), chunk=4)
    assert chunks[..., 0].tolist() == [[1, 2, 3, 3], [2, 3, 3, 3], [3, 3, 3, 3]]
    assert is_pad.astype(int).tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]


def test_rows_lead_back_to_the_recording():
    frames, base = make_frames(), make_base()
    assert frames.demos == {"reach": 4, "push": 4}
    for task in INSTRUCTIONS:
        for i, demo in enumerate(make_demos(task)):
            rows, labels = rows_and_labels(frames, task, [i])
            np.testing.assert_array_equal(frames.images[rows], demo.images)
            tokens, mask = base.encode_text(demo.instruction)
            np.testing.assert_array_equal(frames.tokens[rows], np.tile(tokens, (len(rows), 1)))
            np.testing.assert_array_equal(frames.token_mask[rows], np.tile(mask, (len(rows), 1)))
            now = normalize_actions(base.statistics, demo.actions, base.sizes.action)
            np.testing.assert_array_equal(labels.actions[:, 0], now)
            assert labels.is_pad.sum(axis=1).tolist() == [max(0, 5 - left) for left in range(len(rows), 0, -1)]


def test_observations_are_in_the_policy_s_range():
    frames = make_frames()
    seen = frames.observe(np.array([[0, 1, 2], [5, 4, 3]]))
    assert seen.images.shape == (2, 3, 1, 64, 64, 3)
    assert seen.image_mask.shape == (2, 3, 1)
    assert seen.image_mask.all()
    pixels = frames.images[[[0, 1, 2], [5, 4, 3]]]
    np.testing.assert_allclose(seen.images, pixels / 127.5 - 1, atol=1e-6)
    assert seen.images[pixels == 255].max() == 1
    assert seen.images[pixels == 0].min() == -1


def test_relabelling_happens_before_normalisation_and_leaves_frames_alone():
    frames, base = make_frames(), make_base()
    plain, _ = rows_and_labels(frames, "push", [1, 3])
    rows, labels = rows_and_labels(frames, "push", [1, 3], lambda actions: 2 * actions)
    np.testing.assert_array_equal(rows, plain)
    demo = make_demos("push")[3]
    wanted = normalize_actions(base.statistics, 2 * demo.actions, base.sizes.action)
    np.testing.assert_array_equal(labels.actions[-len(demo.actions) :, 0], wanted)


def test_a_task_without_demonstrations():
    base = make_base()
    with pytest.raises(ValueError, match="push: no demonstrations"):
        gather({"reach": make_demos("reach"), "push": []}, base.preprocessor)


def test_an_instruction_that_is_too_long():
    base, [demo] = make_base(), make_demos("reach", count=1)
    wordy = demo._replace(instruction="reach " * 30)
    with pytest.raises(ValueError, match="the limit is 14"):
        gather({"reach": [wordy]}, base.preprocessor)


def reworded(variants):
    base, told = make_base(), ("to the goal", "go and reach the goal")
    push = [demo._replace(paraphrases=told) for demo in make_demos("push")]
    augment = ImageAugmentation(variants=variants)
    demos = {"reach": make_demos("reach"), "push": push}
    return gather(demos, base.preprocessor, augment), told


def test_variants_are_told_in_other_words():
    frames, told = reworded(variants=3)
    base, count = make_base(), len(make_frames().state)
    orders = set()
    for i, (start, demo) in enumerate(zip(frames.first_row["push"], make_demos("push"), strict=True)):
        rows = start + np.arange(len(demo.actions))
        said = []
        for variant in range(3):
            seen = frames.observe(variant * count + rows)
            words = {base.tokenizer.decode(t[m].tolist()) for t, m in zip(seen.tokens, seen.token_mask, strict=True)}
            assert len(words) == 1, i
            said.append(words.pop().strip())
        assert said[0] == demo.instruction
        assert sorted(said[1:]) == sorted(told)
        orders.add(said[1])
    assert orders == set(told)  # demonstrations begin with different ones
    rows, _ = rows_and_labels(frames, "reach", range(4))
    for variant in (1, 2):  # no paraphrases, no other words
        np.testing.assert_array_equal(frames.text(rows + variant * count)[0], frames.text(rows)[0])


def test_other_words_have_other_keys_in_the_cache():
    frames, _ = reworded(variants=2)
    plain = frames._replace(tokens=make_frames().tokens, token_mask=make_frames().token_mask)
    count = len(frames.state)

    def key(frames, row):
        return features._key(frames, np.array([row]), "context", "f")

    push = frames.first_row["push"][0]
    assert key(frames, push) == key(plain, push)
    assert key(frames, push + count) != key(plain, push + count)
    assert key(frames, count) == key(plain, count)  # of a task without paraphrases


@pytest.mark.parametrize("augment", [None, ImageAugmentation(variants=1)])
def test_paraphrases_need_variants(augment):
    base, [demo] = make_base(), make_demos("reach", count=1)
    demos = {"reach": [demo._replace(paraphrases=("go to the goal",))]}
    with pytest.raises(ValueError, match=r"set augment\.variants or --variants to 2 or more"):
        gather(demos, base.preprocessor, augment)


def test_picking_uses_all_frames_before_any_comes_again():
    rows, labels = rows_and_labels(make_frames(), "reach", [0])  # 6 frames
    picked, chosen = pick(np.random.default_rng(0), rows, labels, (3, 15))
    assert picked.shape == (3, 15)
    assert chosen.actions.shape == (3, 15, *labels.actions.shape[1:])
    for line in picked:
        assert sorted(line[:6]) == sorted(line[6:12]) == sorted(rows)
        assert len(set(line[12:])) == 3
    assert not np.array_equal(picked[0], picked[1])


def test_labels_stay_with_their_frames():
    rows, labels = rows_and_labels(make_frames(), "reach", [2, 0])
    picked, chosen = pick(np.random.default_rng(1), rows, labels, (2, 9))
    at = {row: i for i, row in enumerate(rows)}
    order = np.vectorize(at.get)(picked)
    np.testing.assert_array_equal(chosen.actions, labels.actions[order])
    np.testing.assert_array_equal(chosen.is_pad, labels.is_pad[order])


def test_picking_is_pure_in_the_generator_and_earlier_minibatches_do_not_depend_on_later_ones():
    rows, labels = rows_and_labels(make_frames(), "reach", [0, 1])
    few, _ = pick(np.random.default_rng(3), rows, labels, (2, 4))
    many, _ = pick(np.random.default_rng(3), rows, labels, (7, 4))
    np.testing.assert_array_equal(few, many[:2])


def thinned(each, demos=None, augment=None):
    base = make_base()
    demos = demos or {task: make_demos(task) for task in INSTRUCTIONS}
    return gather(demos, base.preprocessor, augment, each)


def test_a_few_frames_of_each_demonstration_keep_their_chunks():
    few, every = thinned(3), make_frames()
    assert few.demos == every.demos
    assert len(few.state) == len(few.images) == len(few.tokens) == 2 * 4 * 3
    for task in INSTRUCTIONS:
        for i, demo in enumerate(make_demos(task)):
            rows, labels = rows_and_labels(few, task, [i], lambda actions: np.cumsum(actions, axis=0))
            all_rows, all_labels = rows_and_labels(every, task, [i], lambda actions: np.cumsum(actions, axis=0))
            steps = [len(demo.actions) * part // 6 for part in (1, 3, 5)]  # the middles of three equal parts
            np.testing.assert_array_equal(few.images[rows], demo.images[steps])
            for one, other in zip(few.observe(rows), every.observe(all_rows[steps]), strict=True):
                np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(labels.actions, all_labels.actions[steps])
            np.testing.assert_array_equal(labels.is_pad, all_labels.is_pad[steps])


def test_as_many_frames_as_there_are_is_all_of_them():
    [demo] = make_demos("reach", count=1)
    for one, other in zip(thinned(6, {"reach": [demo]})[:4], thinned(None, {"reach": [demo]})[:4], strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_words_are_told_to_the_frames_that_are_used():
    push = [demo._replace(paraphrases=("to the goal",)) for demo in make_demos("push")]
    frames = thinned(2, {"reach": make_demos("reach"), "push": push}, ImageAugmentation(variants=2))
    assert len(frames.tokens) == 2 * len(frames.state) == 2 * 2 * 8
    tokens, mask = frames.text(np.arange(4 * 8))
    said = [make_base().tokenizer.decode(t[m].tolist()).strip() for t, m in zip(tokens, mask, strict=True)]
    reach, push, reworded = ([words] * 8 for words in ("reach the goal", "push the puck to the goal", "to the goal"))
    assert said == reach + push + reach + reworded


@pytest.mark.parametrize("each", [0, -1, 7])
def test_frames_that_a_demonstration_has_not(each):
    with pytest.raises(
        ValueError, match=rf"{each} frames of each .* reach has one of 6 frames: set data.frames or --data_frames to 1"
    ):
        thinned(each)
