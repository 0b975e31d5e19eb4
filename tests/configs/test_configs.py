"""Every recipe in configs/ loads, names only what exists, and keeps what is held out apart."""

import ast
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from runpy import run_path

import pytest
from flax import nnx

from metalora_jax.adaptation import base as bases
from metalora_jax.data import instructions
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.config import DataConfig
from metalora_jax.data.tasks import Splits, check_disjoint
from metalora_jax.envs import metaworld, so101
from metalora_jax.envs.collect import Collection
from metalora_jax.envs.metaworld import INSTRUCTIONS
from metalora_jax.envs.world import played
from metalora_jax.evaluation.offline.against_success import Study
from metalora_jax.evaluation.protocol.checks import check_retention, check_splits
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.protocol.few_shot import Protocol
from metalora_jax.evaluation.protocol.grid import expand
from metalora_jax.policies.pi0 import presets as pi0_presets
from metalora_jax.policies.smolvla import presets
from metalora_jax.training import methods, pretrain
from metalora_jax.training.augmentation import other_texts
from metalora_jax.training.meta_train import outer_optimizer
from metalora_jax.training.recipe import Pretraining, Recipe
from tests.data.libero_golden import libero_tasks
from tests.data.splits import check_recombined, hold_out
from tests.evaluation.fake_world import make_world

CONFIGS = Path(__file__).parents[2] / "configs"
RESULTS = Path(__file__).parents[2] / "experiments" / "results"
COMMON = run_path(str(CONFIGS / "common.py"))
RECIPES = [path for path in sorted(CONFIGS.glob("*.py")) if path.stem != "common"]
NAMES = {path.stem: run_path(str(path)) for path in RECIPES}
FIRST_EVALUATION_SEED = 1_000_000  # see metaworld.episode_start
LIBERO = make_world(
    {name: task.instruction for name, task in libero_tasks().items()},
    {name: task.facts for name, task in libero_tasks().items()},
)
WORLDS = {
    "metaworld": metaworld.WORLD,
    "so101": so101.WORLD,
    "libero": LIBERO._replace(cameras=("agentview", "eye_in_hand"), state_dim=8, action_dim=7),
}


def configs_with(field: str) -> list:
    return [pytest.param(made, id=name) for name, made in all_configs() if field in made]


def choices(name: str, get_config: Callable) -> tuple:
    """What may follow the colon."""
    if not get_config.__code__.co_argcount:
        return (None,)
    own = {
        "smolvla": presets.NAMES,
        "pi0": pi0_presets.NAMES,
        "pi05": pi0_presets.NAMES,
        "own_robot": presets.NAMES,
        "own_robot_few_shot": (),  # the user's dataset: tests/test_own_robot.py
        "libero_demos": ("picking",),
        "libero_randomised": ("picking",),
        "libero_small": tuple(COMMON["SPLITS"]),
        "libero_few_shot": tuple(COMMON["SPLITS"]),
        "nano_libero": tuple(COMMON["SPLITS"]),
        "nano_so101": ("smolvla", "pi0", "pi05"),
        "few_shot_so101": ("smolvla", "pi0", "pi05"),
        "smolvla_libero": (*COMMON["SPLITS"], "dry"),
    }
    return own.get(name, COMMON["METHODS"])


def all_configs():
    for name, namespace in NAMES.items():
        for choice in choices(name, namespace["get_config"]):
            made = (namespace["get_config"]() if choice is None else namespace["get_config"](choice)).to_dict()
            yield f"{name}:{choice}" if choice else name, expand(made) if "grid" in made else made


def world_of(config: dict):
    return WORLDS[config["control"].get("world", "metaworld")]


def check_data(data: DataConfig, known=metaworld.WORLD) -> None:
    assert {played(task) for task in data.tasks} <= set(known.tasks())
    assert len(set(data.tasks)) == len(data.tasks)
    assert set(data.cameras) <= set(known.cameras)


def check_training(recipe: Recipe, known=metaworld.WORLD) -> None:
    check_data(recipe.data, known)
    if recipe.data.demos is not None:
        assert recipe.batch.shots + recipe.batch.query_demos <= recipe.data.demos
    outer_optimizer(recipe.outer)
    told = recipe.data.tasks, recipe.data.cameras, recipe.symmetries, recipe.paraphrases
    other_texts(*told, known.instruction)
    methods.build(lambda theta, batch, key: 0.0, recipe.meta)
    assert recipe.meta.inner_steps > 0


@pytest.mark.parametrize("config", configs_with("meta"))
def test_training_recipes(config):
    check_training(Recipe.from_config(config))


@pytest.mark.parametrize("config", configs_with("arms"))
def test_comparisons(config):
    comparison, known = Comparison.from_config(config), world_of(config)
    protocol, report = comparison.protocol, comparison.report
    check_splits(comparison, known)
    for part in (comparison.validation, comparison.test):
        check_data(part, known)
    assert max(protocol.shots) < min(comparison.validation.demos, comparison.test.demos)
    assert list(protocol.steps) == sorted(set(protocol.steps))
    asked = {*protocol.shots_steps, protocol.retention_steps, protocol.instruction_steps}
    assert asked <= {0, *protocol.steps}
    assert comparison.films.steps in protocol.steps or not comparison.films.tasks
    check_retention(protocol)
    for recipe in comparison.trained.values():
        check_training(recipe, known)
        # The shift is the question: trained and tested under another one, a comparison says nothing.
        assert recipe.conditions == comparison.conditions
    assert (comparison.conditions is None and not comparison.recorded) == (protocol.distribution == "tasks")
    assert set(comparison.films.tasks) <= set(comparison.test.tasks)
    assert report.steps in protocol.steps
    assert set(comparison.arms) <= set(report.labels)


@pytest.mark.parametrize("config", configs_with("arms"))
def test_a_run_s_config_is_read_back_whole(config):
    comparison = Comparison.from_config(config)
    assert Comparison.from_config(json.loads(json.dumps(comparison.to_json()))) == comparison


@pytest.mark.parametrize("split", COMMON["SPLITS"])
def test_libero_splits_hold_out_what_they_say(split):
    """Training has every task of the four suites that it may have, and no other."""
    held, tasks = COMMON["SPLITS"][split], libero_tasks()
    labels = {name: [text for fact in ("text", *held.facts) for text in tasks[name].facts[fact]] for name in tasks}
    allowed = hold_out(held.among, held.validation, held.test, labels)
    assert allowed == Splits(held.train, held.validation, held.test)
    assert hold_out(COMMON["MORE"], held.validation, held.test, labels).train == held.more
    check_disjoint(allowed, {name: task.language for name, task in tasks.items()}, labels=labels)
    if split == "composition":
        check_recombined(allowed, tasks)


def test_the_comparison_on_libero_is_the_whole_protocol():
    config = NAMES["libero_few_shot"]["get_config"]().to_dict()
    protocol = Protocol.from_config(config["protocol"])
    assert protocol.shots == (1, 3, 5)
    assert 10 <= protocol.demonstration_draws * protocol.episodes <= 20
    assert protocol.retention_steps
    assert protocol.instruction_steps
    assert len(config["meta_seeds"]) > 1
    for arm in ("meta", "control", "full_expert"):
        assert 4 <= config["arms"][arm]["batch"]["meta_batch"] <= 16
    assert set(config["arms"]) == {"meta", "control", "lora", "head_lora", "full_head", "full_expert"}


@pytest.mark.parametrize("config", configs_with("arms"))
def test_controls_train_on_the_same_data_for_as_long(config):
    trained = list(Comparison.from_config(config).trained.values())
    assert trained
    for recipe in trained:
        assert (recipe.data, recipe.symmetries) == (trained[0].data, trained[0].symmetries)


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("**/config.json")), ids=lambda path: str(path.parent.relative_to(RESULTS))
)
def test_the_config_of_a_committed_run_is_read(path):
    config = json.loads(path.read_text())
    if "arms" in config:
        assert set(Comparison.from_config(config).arms) == set(config["arms"])
    elif "held_out" in config:
        assert json.loads(json.dumps(Study.from_config(config).to_json())) == config
    else:
        assert config.keys() == {"control", "tasks"} or "type" in config  # of evaluate_base.py, or a base's


def demonstrations(config: dict) -> dict:
    return config.get("demos", config)


@pytest.mark.parametrize("config", [*configs_with("parts"), *configs_with("demos")])
def test_recorded_seeds_never_meet(config):
    jobs = Collection.from_config(demonstrations(config)).jobs()
    assert {job.task for job in jobs} <= set(WORLDS[jobs[0].world].tasks())
    taken: dict[str, set[int]] = {}
    for job in jobs:
        tried = set(range(job.first_seed, job.first_seed + 2 * job.demos + 11))  # at most, with failures
        assert max(tried) < FIRST_EVALUATION_SEED
        assert not taken.setdefault(job.task, set()) & tried
        taken[job.task] |= tried


def test_what_is_read_is_recorded():
    known = [NAMES[name]["get_config"]() for name in ("metaworld_demos", "so101_demos", "so101_shifted_demos")]
    known += [NAMES["libero_demos"]["get_config"]("picking")]
    recorded = {job.path: job.demos for config in known for job in Collection.from_config(config.to_dict()).jobs()}
    for name, config in all_configs():
        if name.startswith(("smolvla_libero", "own_robot")):  # the official demonstrations; the user's
            continue
        if name == "quickstart":
            own = {job.path: job.demos for job in Collection.from_config(config["demos"]).jobs()}
        sections = [config[key] for key in ("validation", "test") if key in config]
        sections += [arm["data"] for arm in config.get("arms", {}).values() if "data" in arm]
        if "data" in config:
            sections += [config["data"]] if "directory" in config["data"] else config["data"].values()
        for data in sections:
            for task in data["tasks"]:
                there = (own if name == "quickstart" else recorded)[Path(data["directory"], f"{task}_demo.hdf5")]
                assert data["demos"] <= there, (name, task)


def test_new_tasks_are_new():
    known, validation, test = COMMON["TASKS"] + COMMON["NEW"], COMMON["VALIDATION"], COMMON["TEST"]
    check_disjoint(Splits(known, validation, test), INSTRUCTIONS)


@pytest.mark.parametrize(("name", "texts"), [("metaworld", INSTRUCTIONS), ("libero", None)])
def test_paraphrases_are_of_known_tasks_and_keep_what_a_mirror_swaps(name, texts):
    table = instructions.read(CONFIGS / "paraphrases" / f"{name}.json")
    if texts is None:  # LIBERO's benchmark reads the instruction off the task's name
        texts = {task: re.sub(r"^[A-Z_]+_SCENE\d+_", "", task).replace("_", " ") for task in table}
        assert len(table) == 130
    assert set(table) == set(texts)
    for task, told in table.items():
        own = instructions.normal(texts[task])
        assert len(told) >= 2, task
        assert own not in map(instructions.normal, told), task
        sides = [re.findall(r"\b(?:left|right)\b", text) for text in (own, *told)]
        assert all(found == sides[0] for found in sides), task


def test_liberos_paraphrases_are_short_enough_for_its_base():
    base = bases.load(RESULTS / "libero_strong_base" / "base")
    for told in instructions.read(CONFIGS / "paraphrases" / "libero.json").values():
        for text in told:
            base.encode_text(text)  # refuses what is too long


def test_reworded_new_tasks_are_new():
    known, validation, test = COMMON["TASKS"] + COMMON["NEW"], COMMON["VALIDATION"], COMMON["TEST"]
    table = instructions.read(CONFIGS / "paraphrases" / "metaworld.json")
    check_disjoint(Splits(known, validation, test), INSTRUCTIONS, table)


@pytest.mark.parametrize("config", [each for each in configs_with("model") if "nano" in str(each.id)])
def test_base_recipes(config):
    recipe, known = Pretraining.from_config(config), world_of(config)
    sizes = nnx.eval_shape(lambda: pretrain.create(recipe)).sizes
    assert recipe.augment == ImageAugmentation(variants=1)  # the base in the package was made without
    assert recipe.symmetries == (recipe.control.world, (), ())
    for data in recipe.data.values():
        check_data(data, known)
        assert len(data.cameras) == sizes.cameras
        assert (known.state_dim, known.action_dim) == (sizes.state, sizes.action)
        assert recipe.control.execute <= sizes.chunk


@pytest.mark.parametrize("config", configs_with("held_out"))
def test_studies_of_offline_error(config):
    study, known = Study.from_config(config), world_of(config)
    assert set(study.cameras) <= set(known.cameras)
    for task in study.tasks:
        assert study.control.cap(task)
    last = study.first_demo + 100 * len(study.cells)
    assert study.first_demo > 30_000  # the base has learned from lower starts, see so101_demos
    assert last < FIRST_EVALUATION_SEED
    offsets = [condition.joint_offset for condition in study.conditions.values() if condition.joint_offset]
    assert {tuple(-degrees for degrees in offset) for offset in offsets} == set(offsets)


def test_conditions_go_all_around():
    assert COMMON["YAW"] == (-math.pi, math.pi)


def test_unknown_recipe():
    with pytest.raises(ValueError, match="no recipe named 'mamml'; choose from maml_rates"):
        NAMES["metaworld_conditions"]["get_config"]("mamml")


def loaded(source: str) -> list[str]:
    """Of a config's source text, what brings in another file of configs/."""
    found, configs = [], {"configs", *(path.stem for path in CONFIGS.glob("*.py"))}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or "."]
            found += [name for name in names if name.split(".")[0] in configs | {""}]
        elif isinstance(node, ast.Call) and re.search(r"\b(run_|import_|load_|exec)", ast.unparse(node.func)):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_common_and_no_other(path):
    assert loaded(path.read_text()) == ["run_path(str(Path(__file__).with_name('common.py')))"]
    assert loaded((CONFIGS / "common.py").read_text()) == []


def test_the_index_has_every_recipe_and_what_it_names_exists():
    text = (CONFIGS / "README.md").read_text()
    rows = re.findall(r"^\| \[(.+?)\.py\]\((.+?)\.py\) \|(.*)", text, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == [path.stem for path in RECIPES]
    for name, link, row in rows:
        assert link == name
        assert f"--config=configs/{name}.py" in row or name == "quickstart"
        assert len(row.split("|")) == 7
    for link in re.findall(r"\]\((.+?)\)", text):
        assert (CONFIGS / link).exists(), link
