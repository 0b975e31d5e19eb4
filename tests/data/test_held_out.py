"""Which episodes are held out, and that nobody learns from them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources.held_out import held_out
from metalora_jax.data.sources.selection import Episode, selection, without
from metalora_jax.data.sources.source import Source


class Numbered(Source):
    """Episodes 0, 1, ... of two tasks in turn; or, with several files, from 0 in each."""

    path = Path("somewhere")

    def __init__(self, count, several=False, **chosen):
        self.several, self.selection, self._count = several, selection(**chosen), count

    def listing(self, task=None):
        every = [(("reach", "push")[i % 2], i // 2 if self.several else i) for i in range(self._count)]
        kept = [(name, number) for name, number in every if self.selection.keeps(name, number)]
        return [Episode(name, self.path, number) for name, number in kept if task in (None, name)]

    def stream(self, episodes):
        raise AssertionError("nothing is read")


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (["3"], (3,)),
        ([3, "4"], (4, 3)),  # in the order of the tasks
        (["2-5"], (2, 4, 3, 5)),
        (["last:1"], (8, 9)),
        (["every:2"], (2, 6, 3, 7)),
        (["every:5", "last:1"], (8, 9)),
    ],
)
def test_rules(rule, names):
    assert held_out(Numbered(10), ["reach", "push"], rule) == names


def test_tasks_that_number_their_own_are_named_with_them():
    assert held_out(Numbered(10, several=True), ["reach", "push"], ["last:1"]) == ("reach:4", "push:4")
    assert held_out(Numbered(10, several=True), ["reach", "push"], ["push:2"]) == ("push:2",)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (["11"], "there are none of reach"),
        (["evry:5"], "'evry:5': expected the dataset's own numbers .* last:2 or every:10"),
        (["final"], "expected the dataset's own numbers"),
        (["last:0"], "'last:0': expected the dataset's own numbers"),
        (["²"], "'²': expected the dataset's own numbers"),
        (["every:1"], "all 5 episodes of 'reach' would be held out"),
        (["last:9"], "all 5 episodes of 'reach' would be held out"),
    ],
)
def test_what_cannot_be_held_out(rule, message):
    with pytest.raises(DemoError, match=message):
        held_out(Numbered(10), ["reach", "push"], rule)


def test_named_episodes_lose_those_that_are_held_out_of_them():
    assert without(None, (3,)) is None
    assert without(["1", 3, "push:3", "5"], (3, "5")) == ["1", "push:3"]
    chosen = ["reach:1", "reach:4", "push:0", "push:2"]
    names = held_out(Numbered(10, True, episodes=chosen), ["reach", "push"], ["last:1"])
    left = Numbered(10, True, episodes=without(chosen, names), drop=names)
    assert [(e.task, e.number) for e in left.listing()] == [("push", 0), ("reach", 1)]


@given(
    st.integers(4, 30),
    st.booleans(),
    st.lists(st.one_of(st.integers(1, 3).map("last:{}".format), st.integers(2, 5).map("every:{}".format)), min_size=1),
)
def test_dropping_them_leaves_the_others_and_nothing_is_in_both(count, several, rule):
    try:
        names = held_out(Numbered(count, several), ["reach", "push"], rule)
    except DemoError:
        return
    left = set(Numbered(count, several, drop=names).listing())
    judged = set(Numbered(count, several, episodes=names).listing())
    assert judged
    assert not left & judged
    assert left | judged == set(Numbered(count, several).listing())
    assert {e.task for e in left} == {"reach", "push"}
