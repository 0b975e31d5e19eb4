"""What a recipe makes of its demonstrations, and that what it says in other words is seen by the leak check."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from metalora_jax.data import instructions
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.frames import gather, rows_and_labels
from metalora_jax.data.normalize import unnormalize_actions
from metalora_jax.data.symmetry import symmetry
from metalora_jax.envs.conditions import Condition, command_labels, execute
from metalora_jax.envs.metaworld import WORLD
from metalora_jax.envs.symmetries import ROBOTS
from metalora_jax.evaluation.protocol.checks import check_splits
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.training import augmentation
from metalora_jax.training.augmentation import SymmetryConfig, augmented
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos

CONFIG = Path(__file__).parents[2] / "configs" / "few_shot_tasks.py"
DEMOS = {task: make_demos(task) for task in INSTRUCTIONS}
TOLD = {"reach": ("go left to the goal",), "push": ()}


def asked(cameras=("topview",), symmetries=None, paraphrases=None):
    """Cameras, symmetries and paraphrases, as a recipe reads them."""
    wanted = None if symmetries is None else SymmetryConfig.from_config(symmetries)
    return cameras, wanted, instructions.checked(paraphrases or {})


def mirror(*tasks, **fields):
    return {"world": "metaworld", "names": ("mirror",), "tasks": tasks, **fields}


def test_nothing_asked_nothing_done():
    for symmetries in (None, SymmetryConfig("metaworld")._asdict()):
        made = augmented(DEMOS, *asked(("agentview",), symmetries))
        assert list(made) == list(DEMOS)
        for task, demos in DEMOS.items():
            assert all(a is b for a, b in zip(made[task], demos, strict=True))


def test_mirrored_tasks_are_reworded_too():
    made = augmented(DEMOS, *asked(paraphrases=TOLD, symmetries=mirror("reach")))
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
        (dict(cameras=("agentview",), symmetries=mirror("reach")), "camera 'agentview' of Meta-World"),
        (dict(symmetries=mirror("pull")), "tasks names 'pull'"),
        (dict(symmetries=mirror()), "belong together"),
        (dict(symmetries=mirror("reach", flip=True)), r"no field symmetries\.flip"),
        (dict(symmetries=mirror("reach", world="libero")), "the pose of camera 'topview' of LIBERO is unknown"),
        (dict(paraphrases={"reach": ("go",)}), "no paraphrases of push"),
        (dict(paraphrases={"reach": "go", "push": ()}), "paraphrases of reach: expected a list"),
    ],
)
def test_what_cannot_be_is_refused(made, message):
    with pytest.raises(ValueError, match=message):
        augmented(DEMOS, *asked(**made))


def test_other_texts():
    told = asked(paraphrases=TOLD, symmetries=mirror("reach"))
    texts = augmentation.other_texts(tuple(INSTRUCTIONS), *told, lambda task: f"{task} to the right")
    assert texts == {"reach": ("go left to the goal", "reach to the left", "go right to the goal"), "push": ()}
    assert augmentation.other_texts(tuple(INSTRUCTIONS), *asked(), str) == {"reach": (), "push": ()}


@pytest.mark.parametrize(
    ("paraphrases", "leaks"),
    [
        ({"reach": ("go there",), "push": ()}, None),
        ({"reach": ("go there",), "push": ("Shut the  window",)}, None),
        ({"reach": ("go there",), "push": ("slide the window shut",)}, "'slide the window shut' is in both"),
    ],
)
def test_a_comparison_on_new_tasks_refuses_paraphrases_that_leak(paraphrases, leaks):
    config = run_path(str(CONFIG))["get_config"]().to_dict()
    config["arms"] = {name: config["arms"][name] for name in ("meta", "lora")}
    config["arms"]["meta"] |= {"data": config["arms"]["meta"]["data"] | {"tasks": tuple(INSTRUCTIONS)}}
    config["arms"]["meta"] |= {"paraphrases": paraphrases}
    config["validation"] |= {"tasks": ("dial-turn",)}
    config["test"] |= {"tasks": ("window-close",)}
    unasked = dict(retention_steps=0, retention_per_cell=1, retention_scales=(), retention_gated=False)
    config["protocol"] |= {"retention_tasks": (), **unasked}
    config["films"] |= {"tasks": ()}
    comparison = Comparison.from_config(config)
    if leaks is None:
        check_splits(comparison, WORLD)
    else:
        with pytest.raises(ValueError, match=leaks):
            check_splits(comparison, WORLD)


def test_a_mirrored_task_goes_through_conditions_variants_and_words_like_any_other():
    base, condition = make_base(), Condition(yaw=1.2)
    made = augmented(DEMOS, *asked(paraphrases=TOLD, symmetries=mirror("reach")))
    frames = gather(made, base.preprocessor, ImageAugmentation(variants=2))
    rows, labels = rows_and_labels(frames, "reach@mirror", [1], lambda actions: command_labels(actions, condition))
    moved = made["reach@mirror"][1]
    np.testing.assert_array_equal(frames.pictures(rows), moved.images)
    commands = unnormalize_actions(base.statistics, labels.actions[:, 0])
    np.testing.assert_allclose(execute(commands, condition), moved.actions, atol=1e-5)
    tokens, mask = frames.text(rows + len(frames.state))
    assert base.tokenizer.decode(tokens[0][mask[0]].tolist()).strip() == "go right to the goal"
    assert (frames.pictures(rows + len(frames.state)) != moved.images).mean() > 0.5
