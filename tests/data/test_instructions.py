"""Paraphrases: a table that means what it says, and words that depend on seed, demonstration and variant alone."""

import json

import numpy as np
import pytest

from metalora_jax.data import instructions
from tests.tiny_base import make_demos

TOLD = ("go to the goal", "move to the goal", "get there")


def test_a_table_is_read_as_written(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"reach": TOLD, "push": []}))
    assert instructions.read(path) == {"reach": TOLD, "push": ()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"reach": ["a"], "reach": ["b"]}', "reach appears twice"),
        ('{"reach": "go"}', "paraphrases of reach: expected a list of non-empty texts"),
        ('{"reach": ["go", " "]}', "paraphrases of reach: expected a list of non-empty texts"),
        ('{"reach": ["go  there", "Go there"]}', "paraphrases of reach: a text appears twice"),
        ('["go"]', "paraphrases are a list"),
        ('{"reach": ', "not valid JSON from line 1, column 11 on"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"table.json: {message}"):
        instructions.read(path)


def test_no_table():
    with pytest.raises(ValueError, match=r"absent\.json: cannot read paraphrases"):
        instructions.read(instructions.Path("absent.json"))


def test_demonstrations_take_their_task_s_paraphrases():
    demos = {"reach": make_demos("reach"), "push": make_demos("push")}
    made = instructions.paraphrased(demos, {"reach": TOLD, "push": (), "another": ("x",)})
    assert [demo.paraphrases for demo in made["reach"]] == [TOLD] * 4
    assert made["push"][0].paraphrases == ()
    assert made["reach"][0].instruction == "reach the goal"
    assert demos["reach"][0].paraphrases == ()


def test_tables_that_do_not_fit_the_tasks():
    with pytest.raises(ValueError, match="no paraphrases of push; add the task"):
        instructions.paraphrased({"push": make_demos("push")}, {"reach": TOLD})
    with pytest.raises(ValueError, match="reach: 'Reach  the goal' is the instruction itself"):
        instructions.paraphrased({"reach": make_demos("reach")}, {"reach": ("Reach  the goal",)})


def test_words_of_variants():
    demo = make_demos("reach", count=1)[0]._replace(paraphrases=TOLD)

    def said(seed, row, variants=range(1, 4), demo=demo):
        found = [instructions.said(demo, seed, row, variant, np.arange(5)) for variant in variants]
        assert all(len(parts) == 1 and list(parts[0][1]) == [0, 1, 2, 3, 4] for parts in found)
        return [parts[0][0] for parts in found]

    assert said(0, 7, [0]) == [demo.instruction]
    assert said(0, 7) == said(0, 7) == said(0, 7, range(4, 7))  # after the last, the first
    assert sorted(said(0, 7)) == sorted(TOLD)
    assert len({tuple(said(0, row)) for row in range(20)}) > 1
    assert len({tuple(said(seed, 7)) for seed in range(20)}) > 1
    assert said(0, 7, [2], demo._replace(paraphrases=())) == [demo.instruction]


def test_steps_are_said_from_their_frame_on():
    demo = make_demos("reach", count=1)[0]._replace(steps=((3, "go there"), (6, "stay")))

    def said(variant, demo=demo, moments=(0, 2, 3, 5, 6, 9)):
        found = instructions.said(demo, 0, 0, variant, np.array(moments))
        return {text: [moments[i] for i in where] for text, where in found}

    assert said(0) == {demo.instruction: [0, 2], "go there": [3, 5], "stay": [6, 9]}
    assert said(0, moments=(7, 3)) == {"go there": [3], "stay": [7]}
    [(text, where)] = said(1, demo._replace(paraphrases=TOLD[:1])).items()
    assert (text, where) == (TOLD[0], [0, 2, 3, 5, 6, 9])
    assert instructions.later(demo.steps, 4) == ((0, "go there"), (2, "stay"))
    assert instructions.later(demo.steps, 2) == ((1, "go there"), (4, "stay"))
    assert instructions.later((), 2) == ()
