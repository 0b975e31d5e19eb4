"""The first scene: what is played is what the config says, what is claimed is what the episodes showed."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from metalora_jax.envs.condition_range import _ARC_COUNT, _ARCS, ConditionRange
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.evaluation.protocol import scene
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.protocol.scene import Opening, Played, Tried
from metalora_jax.evaluation.rollout import Outcome
from tests.tiny_base import make_base

RECIPE = run_path(str(Path(__file__).parents[2] / "configs" / "quickstart.py"))["get_config"]()
CONFIG = Comparison.from_config(RECIPE.to_dict())
FIELDS = dict(task="drawer-open", condition=dict(yaw=1.0), demo_start=1, episode_start=2)


def outcome(success: bool) -> Outcome:
    return Outcome("episode", success, 0.0, 7, np.zeros((7, 4), np.float32), None)


def tried(task: str, yaw: float, before: bool, after: bool) -> Tried:
    return Tried(Opening(task, Condition(yaw=yaw), 1, 2), before, after, (200, 60))


@pytest.mark.metaworld
def test_the_scene_of_the_quickstart_is_solved_after_adapting_and_not_before(tmp_path):
    lines = []
    played = scene.first_scene(CONFIG.scene, CONFIG.control, tmp_path, lines.append)
    assert (played.before.success, played.after.success) == (False, True)
    assert played.before.length == CONFIG.control.max_steps
    assert sorted(path.name for path in tmp_path.iterdir()) == [scene.GIF, scene.FILM]
    assert (tmp_path / scene.GIF).stat().st_size <= 2_000_000
    stages = [line for line in lines if line.endswith(" ...")]
    ends = [line for line in lines if line.endswith(" s]")]
    assert len(stages) == len(ends) == 5
    assert played.verdict in lines[-1]


def test_the_scene_of_the_quickstart_is_one_of_the_survey_and_held_out():
    common = run_path(str(Path(__file__).parents[2] / "configs" / "common.py"))
    opening = CONFIG.scene
    assert opening in scene.openings(common["TASKS"], CONFIG.conditions, draws=2, seed=CONFIG.seed)
    arc = int((opening.condition.yaw + np.pi) / (2 * np.pi) * _ARC_COUNT)
    assert arc % 6 in _ARCS["test"]


def test_a_survey_has_every_task_under_conditions_of_its_own():
    made = scene.openings(("door-open", "drawer-open"), ConditionRange(yaw=(-np.pi, np.pi)), draws=3, seed=0)
    assert [opening.task for opening in made] == ["door-open"] * 3 + ["drawer-open"] * 3
    assert len({opening.condition for opening in made}) == 6
    assert len({opening.episode_start for opening in made}) == 6
    assert not {opening.episode_start for opening in made} & {opening.demo_start for opening in made}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episode_start": 1}, "are both 1; use two starts"),
        ({"turn": 1.0}, r"no field scene\.turn"),
        ({"condition": {"jaw": 1.0}}, r"no field condition\.jaw"),
    ],
)
def test_a_scene_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Opening.from_config(FIELDS | change)


def test_a_scene_is_held_against_its_world_before_anything_is_opened():
    opening, control = Opening.from_config(FIELDS), Control(("agentview",), 1, 100)
    with pytest.raises(ValueError, match="'drawer-opne'"):
        scene.check([opening._replace(task="drawer-opne")], make_base(), control)
    with pytest.raises(ValueError, match="condition yaw does not fit the world so101"):
        scene.check([opening._replace(task="lift-red")], make_base(), control._replace(world="so101"))
    narrow = make_base().statistics._replace(action_mean=np.zeros(3, np.float32), action_std=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="the world metaworld: actions have 4 dimensions, the base's 3"):
        scene.check([opening], make_base()._replace(statistics=narrow), control)


def test_a_config_gives_an_opening():
    assert Opening.from_config(FIELDS) == Opening("drawer-open", Condition(yaw=1.0), 1, 2, steps=3)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (False, True, "failed, after it the same episode succeeded"),
        (False, False, "did not help"),
        (True, True, "needed no adapting"),
        (True, False, "did harm"),
    ],
)
def test_what_is_said_is_what_the_episodes_show(before, after, words):
    assert words in Played(outcome(before), None, None, outcome(after)).verdict


def test_captions_say_how_each_episode_ended():
    played = Played(outcome(False), DEMO, None, outcome(False))
    captions = [caption for caption, _, _ in scene._takes(Opening.from_config(FIELDS), played)]
    assert captions == ["before: failed", "one demonstration", "after 3 steps: failed"]
    starts = [take.start for _, take, _ in scene._takes(Opening.from_config(FIELDS), played)]
    assert starts == [2, 1, 2]


class DEMO:
    actions = np.zeros((5, 4), np.float32)


def test_the_scene_to_show_is_the_largest_turn_of_those_that_only_adapting_solves():
    found = [
        tried("a", 0.5, False, True),
        tried("b", -2.0, False, True),
        tried("c", 3.0, True, True),
        tried("d", 3.1, False, False),
    ]
    assert scene.chosen(found) == found[1]
    assert scene.chosen(found[2:]) is None
    text = "\n".join(scene.table(found))
    assert "| b | -115 | failed, 200 | solved, 60 |" in text
    assert "| all | | 1 of 4 | 3 of 4 |" in text
    assert scene.table(found[2:])[-1] == "none is solved by adapting alone"
