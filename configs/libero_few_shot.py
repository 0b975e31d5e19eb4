"""New LIBERO tasks from one, three and five demonstrations: meta-learned adapters against every baseline.

    python experiments/collect.py --config=configs/libero_demos.py:picking
    python experiments/pretrain.py --config=configs/nano_libero.py --workdir=runs/libero/suite
    python experiments/few_shot.py --config=configs/libero_few_shot.py --workdir=runs/libero/few_shot

What is held out follows a colon, `--config=configs/libero_few_shot.py:composition`; it needs a base of its own, which
has seen the training tasks of that split alone (runs/libero/<split>/base), and demonstrations in
runs/libero/demos/clean.

- suite (the default): two tasks of each of three suites, by instruction and by what is moved from where to where.
- across: five of libero_object's tasks, whose scene no training task has.
- composition: an object at a place, each of which training knows, but never together.
"""

import re
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.training.augmentation import SymmetryConfig


def _object(*things: str) -> tuple[str, ...]:
    return tuple(f"pick_up_the_{thing}_and_place_it_in_the_basket" for thing in things)


def _spatial(*places: str) -> tuple[str, ...]:
    return tuple(f"pick_up_the_black_bowl_{place}_and_place_it_on_the_plate" for place in places)


# The tasks of the four ten-task suites that ask for picking and placing alone; those in LONG ask for two
# things, or for a longer way.
OBJECT = _object(
    *("alphabet_soup", "bbq_sauce", "butter", "chocolate_pudding", "cream_cheese", "ketchup", "milk", "orange_juice"),
    *("salad_dressing", "tomato_sauce"),
)
SPATIAL = _spatial(
    *("between_the_plate_and_the_ramekin", "from_table_center", "in_the_top_drawer_of_the_wooden_cabinet"),
    *("next_to_the_cookie_box", "next_to_the_plate", "next_to_the_ramekin", "on_the_cookie_box", "on_the_ramekin"),
    *("on_the_stove", "on_the_wooden_cabinet"),
)
GOAL = (
    "push_the_plate_to_the_front_of_the_stove",
    "put_the_bowl_on_the_plate",
    "put_the_bowl_on_the_stove",
    "put_the_bowl_on_top_of_the_cabinet",
    "put_the_cream_cheese_in_the_bowl",
    "put_the_wine_bottle_on_the_rack",
    "put_the_wine_bottle_on_top_of_the_cabinet",
)
LONG = (
    "LIVING_ROOM_SCENE1_put_both_the_alphabet_soup_and_the_cream_cheese_box_in_the_basket",
    "LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket",
    "LIVING_ROOM_SCENE2_put_both_the_cream_cheese_box_and_the_butter_in_the_basket",
    "LIVING_ROOM_SCENE5_put_the_white_mug_on_the_left_plate_and_put_the_yellow_and_white_mug_on_the_right_plate",
    "LIVING_ROOM_SCENE6_put_the_white_mug_on_the_plate_and_put_the_chocolate_pudding_to_the_right_of_the_plate",
    "STUDY_SCENE1_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy",
)
SHORT = OBJECT + SPATIAL + GOAL


def _scene(scene: str, *tasks: str) -> tuple[str, ...]:
    return tuple(f"{scene}_{task}" for task in tasks)


# Tasks of libero_90, which no base here is pretrained on: what the base cannot do yet is where adapting can be learned.
# Those that open or close drawers are left out: they turn the hand far outside the base's statistics, and would
# outweigh the others; meta-training names such tasks.
MORE = (
    *_scene(
        "KITCHEN_SCENE2",
        "stack_the_black_bowl_at_the_front_on_the_black_bowl_in_the_middle",
        "stack_the_middle_black_bowl_on_the_back_black_bowl",
    ),
    *_scene("KITCHEN_SCENE3", "put_the_moka_pot_on_the_stove", "turn_on_the_stove"),
    *_scene(
        "KITCHEN_SCENE4",
        "put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet",
        "put_the_wine_bottle_in_the_bottom_drawer_of_the_cabinet",
    ),
    *_scene("KITCHEN_SCENE6", "put_the_yellow_and_white_mug_to_the_front_of_the_white_mug"),
    *_scene("KITCHEN_SCENE7", "put_the_white_bowl_on_the_plate", "put_the_white_bowl_to_the_right_of_the_plate"),
    *_scene("KITCHEN_SCENE8", "put_the_right_moka_pot_on_the_stove"),
    *_scene("KITCHEN_SCENE9", "turn_on_the_stove"),
    *_scene(
        "LIVING_ROOM_SCENE1",
        *(f"pick_up_the_{thing}_and_put_it_in_the_basket" for thing in ("alphabet_soup", "tomato_sauce")),
        "pick_up_the_cream_cheese_box_and_put_it_in_the_basket",
    ),
    *_scene(
        "LIVING_ROOM_SCENE2",
        *(f"pick_up_the_{thing}_and_put_it_in_the_basket" for thing in ("butter", "orange_juice")),
    ),
    *_scene(
        "LIVING_ROOM_SCENE3",
        *(
            f"pick_up_the_{thing}_and_put_it_in_the_tray"
            for thing in ("alphabet_soup", "butter", "cream_cheese", "ketchup", "tomato_sauce")
        ),
    ),
    *_scene(
        "LIVING_ROOM_SCENE4",
        *(
            f"pick_up_the_{thing}_and_put_it_in_the_tray"
            for thing in ("black_bowl_on_the_left", "chocolate_pudding", "salad_dressing")
        ),
    ),
    *_scene(
        "LIVING_ROOM_SCENE5",
        *("put_the_red_mug_on_the_left_plate", "put_the_red_mug_on_the_right_plate"),
        *("put_the_white_mug_on_the_left_plate", "put_the_yellow_and_white_mug_on_the_right_plate"),
    ),
    *_scene(
        "LIVING_ROOM_SCENE6",
        *(f"put_the_chocolate_pudding_to_the_{side}_of_the_plate" for side in ("left", "right")),
        *("put_the_red_mug_on_the_plate", "put_the_white_mug_on_the_plate"),
    ),
    *_scene(
        "STUDY_SCENE1",
        *(f"pick_up_the_book_and_place_it_in_the_{side}_compartment_of_the_caddy" for side in ("left", "right")),
        "pick_up_the_yellow_and_white_mug_and_place_it_to_the_right_of_the_caddy",
    ),
    *_scene("STUDY_SCENE2", "pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy"),
    *_scene("STUDY_SCENE3", "pick_up_the_red_mug_and_place_it_to_the_right_of_the_caddy"),
)
UNSTEADY = GOAL[:1]  # where the scripted expert, pushed off its course, fails two times in three
DIRECTORY = "runs/libero/demos"
DEMOS = f"{DIRECTORY}/clean"
CAMERAS = ("agentview", "eye_in_hand")


class Held(NamedTuple):
    """One way to hold tasks out of some; training keeps those that share none of the facts with them."""

    among: tuple[str, ...]
    facts: tuple[str, ...]  # what two splits may not share, besides the text
    train: tuple[str, ...]  # the base is pretrained on these
    more: tuple[str, ...]  # adapters are meta-trained on these, too; they share none of the facts either
    validation: tuple[str, ...]
    test: tuple[str, ...]


def _without(tasks: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(task for task in tasks if task not in names)


def _apart(others: tuple[str, ...]) -> tuple[str, ...]:
    """Of MORE, what shares neither scene nor instruction with `others`, all of which have a scene in their name."""
    taken = {part for task in others for part in _parts(task)}
    return tuple(task for task in MORE if taken.isdisjoint(_parts(task)))


def _parts(task: str) -> tuple[str, str]:
    scene, number, instruction = re.split(r"_SCENE(\d+)_", task)
    return scene + number, instruction


_SUITE = (
    (*_object("ketchup"), *_spatial("on_the_ramekin"), "put_the_wine_bottle_on_the_rack"),
    (
        *_object("milk", "salad_dressing"),
        *_spatial("next_to_the_plate", "on_the_stove"),
        "put_the_bowl_on_top_of_the_cabinet",
        "put_the_cream_cheese_in_the_bowl",
    ),
)
_COMPOSITION = (
    _object("chocolate_pudding"),
    (*_object("cream_cheese"), "put_the_bowl_on_top_of_the_cabinet"),
)
SPLITS = {
    "suite": Held(SHORT, ("motion",), _without(SHORT, *_SUITE[0], *_SUITE[1]), MORE, *_SUITE),
    "across": Held(SHORT + LONG, ("scene",), SPATIAL + GOAL, _apart(LONG), LONG, OBJECT[::2]),
    "composition": Held(
        SHORT + LONG,
        ("composition",),
        # Two of libero_10's tasks put cream cheese into the basket, too.
        _without(SHORT + LONG, *_COMPOSITION[0], *_COMPOSITION[1], LONG[0], LONG[2]),
        _without(MORE, *_scene("LIVING_ROOM_SCENE1", "pick_up_the_cream_cheese_box_and_put_it_in_the_basket")),
        *_COMPOSITION,
    ),
}


def get_config(split: str = "suite") -> ConfigDict:
    """Five draws of demonstrations and two starts for each: ten episodes a task and point."""
    if split not in SPLITS:
        raise ValueError(f"no split named {split!r}; choose from {', '.join(SPLITS)}")
    held = SPLITS[split]
    here = Path(__file__)
    conditions = SimpleNamespace(**run_path(str(here.with_name("metaworld_conditions.py"))))
    config = run_path(str(here.with_name("few_shot_conditions.py")))["get_config"]()

    def recipe(method: str) -> ConfigDict:
        made = conditions.get_config(method)
        made.data = dict(directory=DEMOS, tasks=held.train + held.more, demos=4, cameras=CAMERAS)
        with made.unlocked():
            made.conditions = None
        with made.batch.unlocked():
            made.batch.update(meta_batch=8, query_frames=32, kept=held.train, kept_frames=32, replay_frames=16)
        # Each task of libero_90 counts twice: its mirror image is one of its own, which the base has not seen either.
        made.symmetries = SymmetryConfig("libero", ("mirror",), held.more)._asdict()
        made.meta.update(inner_steps=10, rate=0.5)
        made.outer.rate = 0.005
        if method == "multitask":  # as many frames in each step as support and query together, half of them kept
            made.batch.update(query_frames=192, kept_frames=192, replay_frames=0)
        else:
            made.meta.optimizer = "learned_each"
            made.outer.rate_of_rates = 0.05
        return made

    config.base = f"runs/libero/{split}/base"
    config.meta_seeds = (0, 1)
    full = recipe("multitask")
    full.placement = (dict(pattern=conditions.EXPERT, kind="dense"),)
    full.outer.rate = 1e-3
    with config.unlocked():
        config.conditions = None
        config.arms.meta = recipe("fomaml_rates").to_dict()
        config.arms.control = recipe("multitask").to_dict()
        config.arms.full_expert = full.to_dict()
    for name, tasks in (("validation", held.validation), ("test", held.test)):
        config[name] = dict(directory=DEMOS, tasks=tasks, demos=8, cameras=CAMERAS)
    with config.unlocked():  # what the base learned from: every arm replays it as it adapts
        config.replay = dict(directory=DEMOS, tasks=held.train, demos=4, cameras=CAMERAS)
    config.protocol.update(
        distribution="tasks",
        steps=(0, 1, 3, 5, 10, 100),
        shots=(1, 3, 5),
        shots_steps=(1, 10),
        draws_per_task=5,
        episodes=2,
        retention_steps=10,
    )
    with config.protocol.unlocked():
        # Draw d's episodes begin at initial state 10 d + first_episode, see envs.libero.episode_start.
        config.protocol.update(first_episode=0, instruction_steps=10, held_out=held.facts)
        # Replayed frames are a third of each support minibatch.
        config.protocol.update(retention_tasks=held.train, frames=64, replay_frames=32)
    config.control = dict(
        execute=2,  # of ten planned; with five the base solves 25 of 36 episodes, not 33
        ensemble=placeholder(float),
        max_steps=dict(libero_spatial=220, libero_object=280, libero_goal=300, libero_10=520, libero_90=400),
        world="libero",
        image_size=64,
        simulator=dict(settle_steps=10, fast=True),
        timeout=900.0,
        platform="cpu",  # one frame of a nano policy gains nothing on a GPU, which all workers would share
    )
    config.films = dict(tasks=held.test[::2], steps=10)
    config.report.update(title=f"New LIBERO tasks ({split}), one demonstration", steps=10)
    with config.report.unlocked():
        config.report.labels.full_expert = "Multi-task, then full expert fine-tuning"
    return config
