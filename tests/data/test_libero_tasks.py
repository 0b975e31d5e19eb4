"""What LIBERO's tasks are, and that nothing held out can be learned from under another name."""

import pytest

from metalora_jax.data.libero_tasks import compositions, parse, read
from metalora_jax.data.tasks import Splits, check_disjoint
from metalora_jax.envs import libero_files
from tests.data.libero_golden import libero_tasks
from tests.data.splits import check_recombined, hold_out

TEXT = """
(define (problem A_Room)
  (:domain robosuite) ; a remark (in brackets)
  (:language Put the left Mug on the plate and close the drawer)
  (:regions (left_region (:target table_1) (:ranges ((0.1 -0.2 0.3 0.4)))))
  (:fixtures table_1 - table  cabinet_1 - wooden_cabinet)
  (:objects mug_1 mug_2 - red_mug  plate_1 - plate)
  (:init (On mug_1 table_1_left_region) (On mug_2 plate_1) (Open cabinet_1_top_region))
  (:goal (And (On mug_1 plate_1) (Close cabinet_1_top_region)))
)
"""


def test_a_file_s_facts():
    task = parse("some_suite", "KITCHEN_SCENE12_put_the_mug_away", TEXT)
    assert task.instruction == "put the mug away"
    assert task.facts == {
        "text": ("put the mug away", "put the left mug on the plate and close the drawer"),
        "scene": ("KITCHEN_SCENE12",),
        "motion": ("red_mug on plate from table left_region", "wooden_cabinet top_region close"),
        "composition": ("red_mug on plate", "wooden_cabinet top_region close"),
    }
    assert parse("some_suite", "put_the_mug_away", TEXT).scene == "A_Room with table, wooden_cabinet"


@pytest.mark.parametrize(
    ("cut", "put"),
    [
        (")\n)\n", ")\n"),  # truncated
        ("(define", "(define)\n(define"),
        ("(:goal", "(:wish"),
        ("(On mug_1 plate_1)", "(On mug_3 plate_1)"),
        ("(On mug_1 table_1_left_region)", ""),
        ("(:language", "(:speech"),
    ],
)
def test_damaged_files_are_named(cut, put):
    assert cut in TEXT
    with pytest.raises(ValueError, match=r"some_suite/task\.bddl is not a LIBERO task"):
        parse("some_suite", "task", TEXT.replace(cut, put))


def test_reading_a_folder(tmp_path):
    with pytest.raises(ValueError, match="holds no BDDL files"):
        read(tmp_path)
    for suite, name in (("one", "a"), ("two", "b")):
        (tmp_path / suite).mkdir()
        (tmp_path / suite / f"{name}.bddl").write_text(TEXT)
    assert {task.suite for task in read(tmp_path).values()} == {"one", "two"}
    (tmp_path / "two" / "a.bddl").write_text(TEXT)
    with pytest.raises(ValueError, match="has the same name as a task of one"):
        read(tmp_path)


@pytest.mark.libero
def test_the_table_in_the_tests_is_that_of_the_installed_files():
    assert read(libero_files.package() / "bddl_files") == libero_tasks()


def test_suites():
    counts = {suite: sum(t.suite == suite for t in libero_tasks().values()) for suite in ("libero_90", "libero_10")}
    assert counts == {"libero_90": 90, "libero_10": 10}
    assert len(libero_tasks()) == 130


def test_compositions():
    table = compositions(libero_tasks())
    assert len(table) == 60
    assert table["wine_bottle", "on wooden_cabinet top_side"] == ("put_the_wine_bottle_on_top_of_the_cabinet",)
    suites = {libero_tasks()[name].suite for name in table["akita_black_bowl", "on plate"]}
    assert suites == {"libero_spatial", "libero_goal", "libero_90"}
    assert all(where for _, where in table)  # opening a drawer puts nothing anywhere


def labels(*facts):
    return {
        name: [f"{fact} {text!r}" for fact in facts for text in task.facts[fact]]
        for name, task in libero_tasks().items()
    }


def suite(name):
    return [task.name for task in libero_tasks().values() if task.suite == name]


def test_training_gives_way_to_what_is_held_out():
    everything = list(libero_tasks())
    splits = hold_out(everything, suite("libero_goal"), suite("libero_10"), labels("text"))
    instructions = {name: task.instruction for name, task in libero_tasks().items()}
    check_disjoint(splits, instructions, labels=labels("text"))
    gone = set(suite("libero_90")) - set(splits.train)
    assert "KITCHEN_SCENE3_turn_on_the_stove" in gone  # libero_goal asks for it in the same words
    assert "STUDY_SCENE2_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy" in gone  # libero_10
    # By scene, nothing of libero_10 is new to libero_90: the suites share their rooms.
    assert {libero_tasks()[name].scene for name in suite("libero_10")} <= {
        libero_tasks()[name].scene for name in suite("libero_90")
    }
    with pytest.raises(ValueError, match=r"scene 'KITCHEN_SCENE\d' is in both train and validation"):
        check_disjoint(
            Splits(tuple(suite("libero_90")), tuple(suite("libero_10")), tuple(suite("libero_object"))),
            instructions,
            labels=labels("scene"),
        )


def test_recombination():
    train = ("put_the_bowl_on_the_plate", "put_the_wine_bottle_on_top_of_the_cabinet")
    bowl_on_cabinet, bowl_on_stove = ("put_the_bowl_on_top_of_the_cabinet",), ("put_the_bowl_on_the_stove",)
    check_recombined(Splits(train, (), bowl_on_cabinet), libero_tasks())
    with pytest.raises(ValueError, match="no training task has 'on flat_stove cook_region' in any composition"):
        check_recombined(Splits(train, (), bowl_on_stove), libero_tasks())
    with pytest.raises(ValueError, match="no training task has 'akita_black_bowl'"):
        check_recombined(Splits(train[1:], (), bowl_on_cabinet), libero_tasks())
    again = ("KITCHEN_SCENE1_put_the_black_bowl_on_the_plate",)
    with pytest.raises(ValueError, match="akita_black_bowl on plate is held out, but a training task asks for it too"):
        check_recombined(Splits(train, (), again), libero_tasks())
