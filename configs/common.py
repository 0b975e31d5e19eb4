"""What recipes share: names of tasks, and sections of a config as plain functions. README.md says how they read it."""

import math
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.training.augmentation import SymmetryConfig

METHODS = ("maml_rates", "fomaml_rates", "maml", "fomaml", "anil", "reptile", "multitask")
YAW = (-math.pi, math.pi)  # [rad]
EXPERT = r"expert/.*|action_.*"
HEADS = r"action_.*"
LABELS = dict(
    meta="Meta-learned LoRA",
    control="Multi-task LoRA (control)",
    lora="LoRA from scratch",
    head_lora="Head-only LoRA",
    full_head="Full head fine-tuning",
    identify_yaw="Identified yaw (closed form)",
    identify_linear="Identified linear map (closed form)",
    base="Frozen base",
)

# Meta-World's tasks. The base in the package knows the first; it has seen none of the others.
TASKS = (
    "button-press",
    "button-press-topdown",
    "coffee-button",
    "door-close",
    "door-open",
    "drawer-close",
    "drawer-open",
    "faucet-close",
    "faucet-open",
    "handle-press",
    "handle-press-side",
    "plate-slide",
    "window-close",
    "window-open",
)
NEW = ("button-press-wall", "door-lock", "handle-pull", "plate-slide-back", "plate-slide-side")
VALIDATION = ("dial-turn", "handle-pull-side")
TEST = ("door-unlock", "lever-pull", "plate-slide-back-side", "sweep-into")


def data(directory: str, tasks: tuple[str, ...], demos: int, cameras: tuple[str, ...] = ("agentview",)) -> dict:
    """The first `demos` demonstrations of each task."""
    return dict(directory=directory, tasks=tasks, demos=demos, cameras=cameras)


def lora(pattern: str, b_std: float = 0.0) -> tuple[dict, ...]:
    """A placement: LoRA of rank 4 where a layer's name matches."""
    return (dict(pattern=pattern, kind="lora", rank=4, alpha=8.0, dropout=0.0, rslora=False, b_std=b_std),)


def dense(pattern: str) -> tuple[dict, ...]:
    """A placement: whole layers."""
    return (dict(pattern=pattern, kind="dense"),)


def training(method: str, data: dict, conditions: dict | None, steps: int = 1000) -> ConfigDict:
    """A whole recipe of meta-training with one of METHODS; it has only the fields that the method uses.

    An arm of a comparison is one, too: `training(...).to_dict()`.
    """
    if method not in METHODS:
        raise ValueError(f"no recipe named {method!r}; choose from {', '.join(METHODS)}")
    name, _, learned = method.partition("_")
    config = ConfigDict()
    config.base = ""  # a base directory; empty is the nano SmolVLA in the package
    config.seed = 0
    config.data = data
    config.conditions = conditions
    config.augment = ImageAugmentation(variants=1)._asdict()  # the picture itself alone
    config.symmetries = SymmetryConfig("metaworld")._asdict()  # none: the camera stands in a corner
    # B starts non-zero where it is meta-learned: at B = 0 no gradient reaches A.
    config.placement = lora(EXPERT, 0.0 if method == "multitask" else 0.02)
    config.batch = dict(meta_batch=6, shots=1, frames=16, query_demos=2, query_frames=32, noise_draws=1)
    if method == "multitask":  # as many frames in each step as the others' support and query together
        config.batch.update(query_demos=3, query_frames=3 * 16 + 32)
    config.meta = ConfigDict(
        dict(
            method=name,
            inner_steps=3,
            optimizer="learned" if learned else "sgd",
            inner_learning_rate=0.1,
            max_norm=1.0,
            same_draws=False,
            micro_batch=placeholder(int),
            head=(HEADS,) if method == "anil" else None,
        ),
        allow_dotted_keys=True,
    )
    config.outer = dict(steps=steps, learning_rate=1e-2, learning_rate_of_rates=0.03 if learned else None, max_norm=1.0)
    config.checkpoint_every = 50
    return config


def control() -> dict:
    """How a policy is run in Meta-World."""
    return dict(execute=2, max_steps=200, ensemble=placeholder(float))


def protocol(**fields: Any) -> dict:
    """How adapting is measured (`evaluation.protocol.few_shot.Protocol`); what a recipe leaves out is as here."""
    return dict(episodes=1, frames=32, noise_draws=2, max_norm=1.0, short=10) | fields


def report(title: str, steps: int, labels: dict[str, str]) -> dict:
    """What a report is about: every arm against the arm `meta`, after `steps`."""
    return dict(title=title, reference="meta", thresholds=(0.5, 0.6, 0.8), steps=steps, labels=labels)


# The SO-101, see docs/so101.md.

SO101_CAMERAS = ("front", "wrist")
SO101_CUBES = ("red", "green", "blue")
SO101_TASKS = (
    *(f"lift-{cube}" for cube in SO101_CUBES),
    *(f"place-{cube}-{marker}" for cube in SO101_CUBES for marker in ("white", "purple")),
    *(f"push-{cube}" for cube in SO101_CUBES),
)
# What robots differ by from the base's, drawn for each: degrees of the joints, their gains, metres, radians, factor.
SO101_SHIFT = dict(
    joint_offset=(12.0, 12.0, 12.0, 8.0, 0.0, 0.0),
    joint_gain=(0.15, 0.15, 0.15, 0.15, 0.0, 0.0),
    camera=0.03,
    camera_turn=0.1,
    moved=("front",),
    light=(0.6, 1.4),
)


# LIBERO.

LIBERO_DIRECTORY = "runs/libero/demos"
LIBERO_DEMOS = f"{LIBERO_DIRECTORY}/clean"
LIBERO_CAMERAS = ("agentview", "eye_in_hand")
LIBERO_EPISODES = dict(libero_spatial=220, libero_object=280, libero_goal=300, libero_10=520, libero_90=400)  # [steps]
LIBERO_SHORT_EPISODES = dict.fromkeys(LIBERO_EPISODES, 180)  # all but 2 of 216 undisturbed demonstrations are shorter
LIBERO_LABELS = LABELS | dict(full_expert="Multi-task, then full expert fine-tuning")


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


def split_named(split: str) -> Held:
    """One of SPLITS."""
    if split not in SPLITS:
        raise ValueError(f"no split named {split!r}; choose from {', '.join(SPLITS)}")
    return SPLITS[split]


def libero_data(tasks: tuple[str, ...], demos: int) -> dict:
    """What `libero_demos.py:picking` records, as it should be."""
    return data(LIBERO_DEMOS, tasks, demos, LIBERO_CAMERAS)


def libero_training(method: str, held: Held, demos: int = 4) -> ConfigDict:
    """`training`, on a split of LIBERO: ten inner steps, a learned rate for each parameter, earlier tasks replayed."""
    config = training(method, libero_data(held.train + held.more, demos), None)
    config.batch.update(meta_batch=8, query_frames=32, retained_tasks=held.train, retained_frames=32, replay_frames=16)
    # Each task of libero_90 counts twice: its mirror image is one of its own, which the base has not seen either.
    config.symmetries = SymmetryConfig("libero", ("mirror",), held.more)._asdict()
    config.meta.update(inner_steps=10, inner_learning_rate=0.5)
    config.outer.learning_rate = 0.005
    if method == "multitask":  # as many frames in each step as support and query together, half of them kept
        config.batch.update(query_frames=192, retained_frames=192, replay_frames=0)
    else:
        config.meta.optimizer = "learned_each"
        config.outer.learning_rate_of_rates = 0.05
    return config


def libero_full_expert(held: Held) -> ConfigDict:
    """The control, with whole layers instead of adapters."""
    config = libero_training("multitask", held)
    config.placement = dense(EXPERT)
    config.outer.learning_rate = 1e-3
    return config


def libero_control(**changes: Any) -> dict:
    """How a policy is run in LIBERO; `changes` are fields of it."""
    return (
        dict(
            execute=2,  # of ten planned; with five the base solves 25 of 36 episodes, not 33
            ensemble=placeholder(float),
            max_steps=LIBERO_EPISODES,
            world="libero",
            image_size=64,
            simulator=dict(settle_steps=10, fast=True),
            timeout=900.0,
            platform="cpu",  # one frame of a nano policy gains nothing on a GPU, which all workers would share
        )
        | changes
    )


def libero_protocol(held: Held, **fields: Any) -> dict:
    """`protocol`, on a split of LIBERO."""
    return (
        protocol(
            distribution="tasks",
            # Draw d's episodes begin at initial state 10 d + first_episode, see envs.libero.episode_start.
            first_episode=0,
            held_out=held.facts,
            retention_tasks=held.train,
        )
        | fields
    )
