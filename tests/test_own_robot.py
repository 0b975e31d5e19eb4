"""The page "Your own robot": its commands fit the flags, and its recipe fits the robots that it names."""

import ast
import functools
import re
import shlex
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from metalora_jax.adaptation import base as bases
from metalora_jax.commands import recipes
from metalora_jax.commands.main import summaries
from metalora_jax.data import sources
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.training import meta_train, validation
from metalora_jax.training.recipe import Recipe
from tests import own_robot
from tests.own_robot import ALOHA, CARTESIAN, PAGE, SO100

ROOT = Path(__file__).parents[1]
TASKS = ("pick up the cube", "put the cube in the box")
COMMANDS = own_robot.commands()


def flags_of(command: str) -> set[str]:
    """The flags that a command's module defines."""
    tree = ast.parse((ROOT / "metalora_jax" / "commands" / f"{command}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr.startswith("DEFINE_")
    }


def test_the_page_goes_from_the_data_to_a_robot():
    used = [words[1] for words in COMMANDS]
    assert used[:2] == ["doctor", "convert"]
    assert {"meta_train", "adapt", "evaluate_offline", "export"} <= set(used)
    assert "lerobot-rollout --policy.path=" in PAGE.read_text()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[1:3]))
def test_every_command_on_the_page_exists_with_its_flags(words, monkeypatch):
    command = words[1]
    if command not in summaries():
        pytest.skip(f"no command {command} yet")
    given = [re.fullmatch(r"--([\w.]+)(?:=(.*))?", word, re.DOTALL) for word in words[2:]]
    assert all(given), words
    flags = {match[1]: match[2] for match in given}
    assert {name for name in flags if "." not in name} <= flags_of(command)
    if fields := {name for name in flags if "." in name}:
        [path] = [word.partition("=")[2] for word in recipes.resolve([f"--config={flags['config']}"])]
        made = run_path(path.partition(":")[0])["get_config"]
        if ":" in path:  # it reads the data that follow; its fields are those of any dataset
            monkeypatch.setattr(sources, "open", lambda *_: SimpleNamespace(names=lambda: ("a", "b", "c")))
            monkeypatch.setattr(sources, "cameras_of", lambda *_: {"top": "top"})
            config = made(path.partition(":")[2])
        else:
            config = made()
        for name in fields:
            section = config
            for part in name.split(".")[1:]:
                assert part in section, name
                section = section[part]


FIELDS = re.findall(r"^\|.*\|", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "flags", [flags for row in FIELDS for flags in re.findall(r"`(--config[^`]*)`", row)], ids=lambda flags: flags[9:30]
)
def test_a_field_that_the_page_changes_makes_a_recipe(flags):
    config = run_path(str(ROOT / "configs" / "own_robot.py"))["get_config"]()
    for flag in shlex.split(flags):
        path, _, value = flag.removeprefix("--config.").partition("=")
        *sections, name = path.split(".")
        section = functools.reduce(lambda part, key: part[key], sections, config)
        section[name] = ast.literal_eval(value) if value else True
    assert Recipe.from_config(config.to_dict())


def recipe(data: Path, base: Path, name: str = "own_robot", **fields) -> Recipe:
    config = run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()
    config.base, config.data.directory = str(base), str(data)
    config.augment = config.symmetries = None
    made = Recipe.from_config(config.to_dict())
    return made._replace(data=made.data._replace(**fields))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A policy, and for each robot a dataset and a base."""
    pytest.importorskip("av")
    there = tmp_path_factory.mktemp("robots")
    policy = own_robot.write_policy(there / "policy")
    for name, kind in (("so100", SO100), ("aloha", ALOHA), ("arm", CARTESIAN)):
        source = sources.open(own_robot.write(there / name, kind, TASKS, 4), kind.cameras)
        demos = [demo for task in TASKS for demo in source.demos(task)]
        base, _ = bases.convert(policy, demos, embodiment=source.embodiment)
        bases.save(there / f"{name}_base", base)
    return there


@pytest.mark.parametrize(("name", "kind"), [("so100", SO100), ("aloha", ALOHA), ("arm", CARTESIAN)])
def test_the_recipe_fits_the_robot(folder, name, kind):
    asked = recipe(folder / name, folder / f"{name}_base")
    known = meta_train.setting(asked)
    assert known.frames.demos == dict.fromkeys(TASKS, 3)  # validation looks at the last of each
    assert known.frames.images.shape[1] == len(kind.cameras)
    assert known.frames.actions[TASKS[0]][0].shape[1] == len(kind.names)
    rows = meta_train.batches(asked, known.frames)(0)
    assert np.isfinite(rows.support.target.actions).all()


def test_the_few_shot_recipe_reads_tasks_and_cameras_from_the_data(tmp_path):
    tasks = (*TASKS, "push the cube")
    data = own_robot.write(tmp_path / "data", ALOHA, tasks, 2)
    get_config = run_path(str(ROOT / "configs" / "own_robot_few_shot.py"))["get_config"]
    made = Comparison.from_config(get_config(str(data)).to_dict())
    parts = made.trained["meta"].data, made.validation, made.test
    assert [task for part in parts for task in part.tasks] == list(sources.open(data, ()).names())
    assert {tuple(part.cameras) for part in parts} == {ALOHA.cameras}
    assert {name: type(arm).__name__ for name, arm in made.arms.items()} == dict(
        meta="Recipe", control="Recipe", lora="Fresh", head_lora="Fresh"
    )
    asked = get_config(f"{data}:cam_high")
    assert asked.test.cameras == ("cam_high",)
    assert asked.arms.meta.data.get_type("frames") is int  # so that it can be set on the command line
    with pytest.raises(ValueError, match="name the dataset after a colon"):
        get_config()
    with pytest.raises(ValueError, match="has 2 tasks, and three are the least: one to learn, one to choose"):
        get_config(str(own_robot.write(tmp_path / "few", ALOHA, TASKS, 1)))


def test_validation_looks_at_episodes_of_those_that_are_named(folder):
    asked = recipe(folder / "so100", folder / "so100_base", episodes=(0, 1, 2, 3, 4, 5), tasks=TASKS)
    left = validation.learned(asked.data, asked.validation)
    assert left.episodes == [0, 1, 2, 3]
    assert left.open().tasks() == dict.fromkeys(TASKS, 2)


def test_deployments_are_tasks_too(folder):
    asked = recipe(folder / "so100", folder / "so100_base")
    known = meta_train.setting(asked._replace(deployments=asked.deployments._replace(copies=2, offset=5.0)))
    assert len(known.frames.demos) == 6
    plain, moved = (known.frames.actions[task][0] for task in (TASKS[0], f"{TASKS[0]}@deployment_1"))
    assert 0.5 < np.abs(moved - plain).max() <= 5


def test_conditions_that_do_not_fit_are_refused_before_data_are_read(folder, monkeypatch):
    def read(*_):
        raise AssertionError("demonstrations are read")

    monkeypatch.setattr(meta_train, "read_demos", read)
    asked = recipe(folder / "so100", folder / "so100_base", "smolvla", tasks=(), cameras=(), demos=3)
    with pytest.raises(ValueError, match=r"those of the base have 6: set --config\.conditions=None"):
        meta_train.setting(asked)
    with pytest.raises(AssertionError, match="are read"):
        meta_train.setting(asked._replace(conditions=None))
    arm = recipe(folder / "arm", folder / "arm_base", "smolvla", tasks=(), cameras=(), demos=3)
    with pytest.raises(AssertionError, match="are read"):
        meta_train.setting(arm)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(held_out_episodes=("last:1",)), "'pick up the cube' has 2 demonstrations to learn from, .* are 3"),
        (dict(held_out_episodes=("last:2",)), "'pick up the cube' has 1 demonstration to learn from, .* are 3"),
        (
            dict(cameras=("a", "b", "c", "d")),
            r"4 cameras .* and the base takes 3: choose some, .*, with --config\.data\.cameras; .*:DATASET:CAMERA",
        ),
        (dict(directory=""), r"data\.directory is not set"),
    ],
)
def test_what_is_missing_is_said_before_data_are_read(folder, fields, message):
    with pytest.raises(ValueError, match=message):
        meta_train.setting(recipe(folder / "so100", folder / "so100_base", **fields))
