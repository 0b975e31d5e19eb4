"""Splits that do not leak, and draws that a resumed run repeats."""

import numpy as np
import pytest

from metalora_jax.data.tasks import Splits, check_disjoint, draw_tasks
from tests.data.splits import hold_out

WORDS = {"a": "open the door", "b": "close the door", "c": " Open  the DOOR", "d": "turn the dial"}


def test_disjoint_splits_pass_unchanged():
    splits = Splits(("a", "c"), ("b",), ("d",))  # one text may stand twice in one split
    assert check_disjoint(splits, WORDS) is splits


@pytest.mark.parametrize(
    ("splits", "complaint"),
    [
        (Splits(("a",), ("b",), ("a",)), "task 'a' is in both train and test"),
        (Splits(("a",), ("b",), ("c",)), "instruction 'open the door' is in both train and test"),
        (Splits(("a",), (), ("d",)), r"split validation contains no tasks: name some in validation\.tasks"),
    ],
)
def test_leaks_are_named(splits, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_disjoint(splits, WORDS)


@pytest.mark.parametrize(
    ("others", "leaks"),
    [
        ({"a": ("pull the door",), "b": ("shut it",)}, None),
        ({"a": ("rotate the dial", "Turn  the dial")}, "instruction 'turn the dial' is in both train and test"),
        ({"b": ("Shut it",), "d": ("shut it",)}, "instruction 'shut it' is in both validation and test"),
    ],
)
def test_paraphrases_leak_too(others, leaks):
    splits = Splits(("a", "c"), ("b",), ("d",))
    if leaks is None:
        assert check_disjoint(splits, WORDS, others) is splits
    else:
        with pytest.raises(ValueError, match=leaks):
            check_disjoint(splits, WORDS, others)


SCENES = {"a": ["scene 'hall'"], "b": ["scene 'hall'"], "c": ["scene 'bath'", "lamp 'on'"], "d": ["scene 'bath'"]}


def test_labels_are_held_apart_too():
    splits = Splits(("a",), ("b",), ("d",))
    with pytest.raises(ValueError, match="scene 'hall' is in both train and validation"):
        check_disjoint(splits, WORDS, labels=SCENES)
    apart = SCENES | {"b": ["scene 'attic'"]}
    assert check_disjoint(splits, WORDS, labels=apart) is splits


def test_training_keeps_what_shares_nothing_with_held_out_tasks():
    assert hold_out("abcd", "", "d", SCENES) == Splits(("a", "b"), (), ("d",))
    assert hold_out("abcd", "a", "c", SCENES) == Splits((), ("a",), ("c",))
    assert hold_out("dcab", "", "c", {task: [task] for task in "abcd"}).train == ("d", "a", "b")


DEMOS = {"a": 5, "b": 4, "d": 9}


def draw(seed=0, step=1, count=40, shots=2, queries=2, demos=DEMOS):
    return draw_tasks(seed, step, count, list(demos), demos, shots, queries, lambda rng: rng.uniform())


def decided(draws):
    return [(d.task, d.shift, d.support, d.query, d.rng.integers(2**62)) for d in draws]


def test_pure_in_seed_and_step():
    assert decided(draw()) == decided(draw())
    assert decided(draw()) != decided(draw(step=2))
    assert decided(draw()) != decided(draw(seed=1))
    assert decided(draw(count=3)) == decided(draw())[:3]


def test_support_and_query_are_disjoint_and_exist():
    for drawn in draw():
        both = {*drawn.support, *drawn.query}
        assert (len(drawn.support), len(drawn.query), len(both)) == (2, 2, 4)
        assert both <= set(range(DEMOS[drawn.task]))


def test_every_task_and_every_demonstration_is_drawn():
    draws = draw(count=300)
    assert np.unique([d.task for d in draws]).tolist() == list(DEMOS)
    assert {i for d in draws if d.task == "d" for i in d.support} == set(range(9))


def test_too_few_demonstrations():
    with pytest.raises(ValueError, match="b has 4 demonstrations; 3 shots and 2 query demonstrations need 5"):
        draw(shots=3)
