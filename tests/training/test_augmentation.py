"""What a recipe makes of its demonstrations, and that what it says in other words is seen by the leak check."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.frames import gather, rows_and_labels
from metalora_jax.data.normalize import unnormalize_actions
from metalora_jax.data.symmetry import symmetry
from metalora_jax.envs.conditions import Condition, command_labels, execute
from metalora_jax.envs.metaworld import WORLD
from metalora_jax.envs.symmetries import ROBOTS
from metalora_jax.evaluation.protocol.checks import check_splits
from metalora_jax.training import augmentation
from metalora_jax.training.augmentation import SymmetryConfig, augmented
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos

DEMOS = {task: make_demos(task) for task in INSTRUCTIONS}
TOLD = {"reach": ("go left to the goal",), "push": ()}


def recipe(cameras=("topview",), **fields):
    return {"data": dict(tasks=tuple(INSTRUCTIONS), cameras=cameras), **fields}


def mirror(*tasks, **fields):
    return {"world": "metaworld", "names": ("mirror",), "tasks": tasks, **fields}


def test_nothing_asked_nothing_done():
    for fields in ({}, {"symmetries": SymmetryConfig("metaworld")._asdict(), "paraphrases": {}}):
        made = augmented(recipe(("agentview",), **fields), DEMOS)
        assert list(made) == list(DEMOS)
        for task, demos in DEMOS.items():
            assert all(a is b for a, b in zip(made[task], demos, strict=True))


def test_mirrored_tasks_are_reworded_too():
    made = augmented(recipe(paraphrases=TOLD, symmetries=mirror("reach")), DEMOS)
    assert set(made) == {"reach", "push", "reach@mirror"}
    assert made["reach"][0].paraphrases == ("go left to the goal",)
    assert made["reach@mirror"][0].paraphrases == ("go right to the goal",)
    want = symmetry(ROBOTS["metaworld"], ("topview",), "mirror").demo(DEMOS["reach"][2])
    have = made["reach@mirror"][2]
    for name in ("images", "state", "actions"):
        np.testing.assert_array_equal(getattr(have, name), getattr(want, name))
    np.testing.assert_array_equal(have.images, DEMOS["reach"][2].images[..., ::-1, :])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (recipe(("agentview",), symmetries=mirror("reach")), "camera 'agentview' of Meta-World"),
        (recipe(symmetries=mirror("pull")), "tasks names 'pull'"),
        (recipe(symmetries=mirror()), "belong together"),
        (recipe(symmetries=mirror("reach", flip=True)), r"no field symmetries\.flip"),
        (recipe(symmetries=mirror("reach", world="libero")), "the pose of camera 'topview' of LIBERO is unknown"),
        (recipe(paraphrases={"reach": ("go",)}), "no paraphrases of push"),
        (recipe(paraphrases={"reach": "go", "push": ()}), "paraphrases of reach: wanted a list"),
    ],
)
def test_what_cannot_be_is_refused(made, message):
    with pytest.raises(ValueError, match=message):
        augmented(made, DEMOS)


def test_other_texts():
    asked = recipe(paraphrases=TOLD, symmetries=mirror("reach"))
    texts = augmentation.other_texts(asked, lambda task: f"{task} to the right")
    assert texts == {"reach": ("go left to the goal", "reach to the left", "go right to the goal"), "push": ()}
    assert augmentation.other_texts(recipe(), str) == {"reach": (), "push": ()}


@pytest.mark.parametrize(
    ("paraphrases", "leaks"),
    [
        ({"reach": ("go there",), "push": ()}, None),
        ({"reach": ("go there",), "push": ("Shut the  window",)}, None),
        ({"reach": ("go there",), "push": ("slide the window shut",)}, "'slide the window shut' is in both"),
    ],
)
def test_a_comparison_on_new_tasks_refuses_paraphrases_that_leak(paraphrases, leaks):
    config = {
        "arms": {"meta": recipe(paraphrases=paraphrases), "lora": {"placement": ()}},
        "validation": {"tasks": ("dial-turn",)},
        "test": {"tasks": ("window-close",)},
        "control": {},
        "protocol": run_path(str(Path(__file__).parents[2] / "configs/few_shot_tasks.py"))[
            "get_config"
        ]().protocol.to_dict()
        | {"retention_tasks": ()},
    }
    if leaks is None:
        check_splits(config, WORLD)
    else:
        with pytest.raises(ValueError, match=leaks):
            check_splits(config, WORLD)


def test_a_mirrored_task_goes_through_conditions_variants_and_words_like_any_other():
    base, condition = make_base(), Condition(yaw=1.2)
    made = augmented(recipe(paraphrases=TOLD, symmetries=mirror("reach")), DEMOS)
    frames = gather(made, base.preprocessor, ImageAugmentation(variants=2))
    rows, labels = rows_and_labels(frames, "reach@mirror", [1], lambda actions: command_labels(actions, condition))
    moved = made["reach@mirror"][1]
    np.testing.assert_array_equal(frames.pictures(rows), moved.images)
    commands = unnormalize_actions(base.statistics, labels.actions[:, 0])
    np.testing.assert_allclose(execute(commands, condition), moved.actions, atol=1e-5)
    tokens, mask = frames.text(rows + len(frames.state))
    assert base.tokenizer.decode(tokens[0][mask[0]].tolist()).strip() == "go right to the goal"
    assert (frames.pictures(rows + len(frames.state)) != moved.images).mean() > 0.5
