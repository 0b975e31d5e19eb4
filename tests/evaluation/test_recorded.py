"""Robots: demonstrations that were recorded under a condition, which the episodes of a comparison share."""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.data.config import DataConfig
from metalora_jax.envs import collect
from metalora_jax.envs.collect import Collection
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import world
from metalora_jax.evaluation.protocol import checks, recorded
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.protocol.few_shot import Cell, cells, starts
from tests.evaluation.test_few_shot import PROTOCOL
from tests.tiny_base import make_demos

RECIPE = Path(__file__).parents[2] / "configs" / "few_shot_so101.py"
SHIFT = dict(joint_offset=(10.0, 0.0), camera=0.03)
PART = dict(tasks=("reach", "push"), robots=2, demos=3, first_seed=50, apart=20, noise=0.0, conditions=SHIFT)


def jobs(**changes):
    fields = dict(directory="runs", world="so101", image_size=64, workers=1, parts={"train": PART | changes})
    return Collection.from_config(fields).jobs()


def write(root, task, conditions):
    path = root / f"{task}{libero_hdf5.SUFFIX}"
    known = {"seeds": [50, 51], "noise": 0.0, "conditions": [each.to_json() for each in conditions]}
    libero_hdf5.write(path, make_demos("reach")[: len(conditions)], ("agentview",), task, known)


def data(root, *tasks):
    return DataConfig(str(root), tasks, cameras=("agentview",))


def test_a_robot_is_the_same_in_all_tasks_and_shares_no_start():
    made = jobs()
    assert [job.path.name for job in made] == [
        f"{task}@{robot}_demo.hdf5" for robot in (0, 1) for task in ("reach", "push")
    ]
    one, other = {job.condition for job in made[:2]}, {job.condition for job in made[2:]}
    assert len(one) == len(other) == 1
    assert one != other
    assert {job.of(seed) for job in made[:1] for seed in range(9)} == one
    starts = [set(range(job.first_seed, job.first_seed + 20)) for job in made]
    assert len(set.union(*starts)) == sum(map(len, starts))


def test_two_robots_do_not_share_the_scenes_of_a_task():
    """Else sixteen robots would be tested in as many scenes as one."""
    protocol, where = PROTOCOL._replace(episodes=2, first_episode=1), world("so101")
    made = [Cell("test", f"lift-red@{robot}", None, 1, 0, (0,), (1,)) for robot in range(3)]
    found = [start for cell in made for start in starts(cell, "lift-red", 0, 2, protocol, where)]
    assert found == [where.episode_start("lift-red", 0, number) for number in range(1, 7)]
    alone = made[0]._replace(task="lift-red")
    assert starts(alone, "lift-red", 0, 2, protocol, where) == found[:2]


def test_robots_of_two_splits_differ():
    held_out = {job.condition for job in jobs(split="test", robots=40)}
    assert not held_out & {job.condition for job in jobs(robots=40)}
    arcs = [
        {int((job.condition.joint_offset[0] / 10 + 1) / 2 * 72) % 6 for job in jobs(split=split, robots=40)}
        for split in ("train", "test")
    ]
    assert arcs[0] <= {0, 1, 3, 4}
    assert arcs[1] == {5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [(dict(conditions={}), "there are none; set conditions"), (dict(robots=0, split="test"), "none; set robots")],
)
def test_robots_without_a_difference_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        jobs(**changes)


def test_a_file_of_another_robot_is_not_taken_as_finished(tmp_path):
    write(tmp_path, "reach@0", [Condition(light=0.5)] * 2)
    [job, *_] = jobs()
    job = job._replace(path=tmp_path / "reach@0_demo.hdf5")
    collect.check_recorded(job._replace(condition=Condition(light=0.5)))
    with pytest.raises(ValueError, match="was recorded on another robot"):
        collect.check_recorded(job)


def test_conditions_come_from_the_files(tmp_path):
    shifted = Condition(light=0.5, joint_offset=(1.0, 2.0))
    write(tmp_path, "reach@0", [shifted] * 2)
    write(tmp_path, "push@0", [shifted, Condition()])
    assert recorded.conditions(data(tmp_path, "reach@0")) == {"reach@0": shifted}
    with pytest.raises(ValueError, match=r"push@0_demo\.hdf5 names 2 conditions; with `recorded`, all demonstrations"):
        recorded.conditions(data(tmp_path, "push@0"))
    with pytest.raises(ValueError, match=r"away_demo\.hdf5 does not say what it was recorded under"):
        recorded.conditions(data(tmp_path, "away"))


def test_what_was_recorded_under_a_condition_is_not_relabelled():
    shifted = Condition(yaw=0.5)
    [cell, *_] = cells(PROTOCOL, "test", {"reach@3": 4}, None, 1, 0, {"reach@3": shifted})
    assert (cell.task, cell.plays, cell.condition) == ("reach@3", "reach", shifted)
    assert cell.relabel is None
    drawn = Cell("test", "reach", shifted, 1, 0, (0,), (1,))
    assert drawn.plays == "reach"
    assert drawn.relabel is not None


def test_a_robot_belongs_to_one_split(tmp_path):
    write(tmp_path, "reach@0", [Condition(light=0.5)] * 2)
    write(tmp_path, "push@0", [Condition(light=0.5)] * 2)
    write(tmp_path, "push@1", [Condition(light=0.6)] * 2)

    def comparison(test):
        trained = {"meta": SimpleNamespace(data=data(tmp_path, "reach@0"))}
        return SimpleNamespace(test=data(tmp_path, test), validation=data(tmp_path, test), trained=trained)

    with pytest.raises(ValueError, match="test and validation share a robot"):
        checks.check_recorded(comparison("push@1"))
    apart = comparison("push@1")
    apart.validation = data(tmp_path)
    checks.check_recorded(apart)
    apart.test = data(tmp_path, "push@0")
    with pytest.raises(ValueError, match=r"test and arms\.meta\.data share a robot, {'light': 0\.5}"):
        checks.check_recorded(apart)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(recorded=False, conditions=dict(joint_offset=(9.0,) * 6)),
            r"conditions\.joint_offset needs demonstrations",
        ),
        (dict(recorded=False, conditions=dict(light=(0.5, 2.0))), r"conditions\.light needs demonstrations"),
        (dict(conditions=dict(latency=(0, 2))), "with `recorded` the files of demonstrations say"),
    ],
)
def test_a_comparison_relabels_nothing_that_it_cannot(changes, message):
    config = run_path(str(RECIPE))["get_config"]().to_dict()
    assert Comparison.from_config(config).recorded
    with pytest.raises(ValueError, match=message):
        Comparison.from_config(config | changes)
