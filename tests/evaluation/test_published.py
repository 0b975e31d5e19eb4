"""A comparison's cells as problems for others: the same demonstrations, starts and robots that its own arms have."""

from pathlib import Path
from runpy import run_path

import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.problems import Problem, Problems
from metalora_jax.envs.world import world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import few_shot, plan, posed, published, recorded
from metalora_jax.evaluation.protocol.comparison import Comparison
from tests.evaluation.fake_world import roll_out
from tests.tiny_base import make_demos

CONFIGS = Path(__file__).parents[2] / "configs"
TASKS = ("lift-red@0", "push-blue@1")
YAW = Condition(yaw=0.5)
KNOWN = Problems(
    *("turned", "metaworld", ("agentview",), 64, {}),
    {
        name: Problem(task, task, f"{task}_demo.hdf5", (0,), YAW, (7, 8), 200)
        for name, task in (("door-open/1", "door-open"), ("door-close/1", "door-close"))
    },
)


@pytest.fixture
def comparison(tmp_path):
    """The SO-101's, on two made-up robots."""
    config = run_path(str(CONFIGS / "few_shot_so101.py"))["get_config"]().to_dict()
    config["test"] |= {"directory": str(tmp_path), "tasks": TASKS, "demos": 4}
    config["protocol"]["shots"] = (1, 3)
    for number, task in enumerate(TASKS):
        said = {"seeds": [1, 2, 3, 4], "noise": 0.0, "conditions": [Condition(light=0.5 + number).to_json()] * 4}
        demos = (2 * make_demos("reach"))[:4]
        libero_hdf5.write(tmp_path / f"{task}{libero_hdf5.SUFFIX}", demos, ("front",), task, said)
    return Comparison.from_config(config)


def test_problems_are_what_the_arms_are_judged_by(comparison):
    found = published.problems(comparison)
    assert list(found.problems) == ["lift-red@0/1", "push-blue@1/1", "lift-red@0/3", "push-blue@1/3"]
    known = recorded.conditions(comparison.test)
    where = world("so101")
    for shots in (1, 3):
        for cell in few_shot.cells(comparison.protocol, "test", dict.fromkeys(TASKS, 4), None, shots, 0, known):
            problem = found.problems[f"{cell.task}/{shots}"]
            assert (problem.support, problem.condition) == (cell.demos, cell.condition)
            own = plan._own(cell, 0, comparison.protocol, where)
            assert problem.starts == tuple(record.episode_seed for record in own)
    assert Problems.from_json(found.to_json()) == found


def test_problems_of_relabelled_demonstrations_are_refused():
    config = run_path(str(CONFIGS / "few_shot_conditions.py"))["get_config"]().to_dict()
    with pytest.raises(ValueError, match=r"relabels its demonstrations .* set `recorded`"):
        published.problems(Comparison.from_config(config))


def test_policies_run_every_start_once(monkeypatch, tmp_path):
    """The adapter in the package on all problems; what is recorded is not run again."""
    ran = []

    def run(jobs, *how):
        ran.extend((job.task, each.start, each.condition) for job in jobs for each in job.rollouts)
        return roll_out(jobs)

    monkeypatch.setattr(rollout, "run", run)
    nano = str(Path(posed.adapter.NANO))
    policies = posed.policies(KNOWN, None, nano)
    assert {policy.digest for policy in policies.values()} != {None}
    for _ in range(2):
        episodes = posed.run(KNOWN, policies, 2, 1, tmp_path)
        assert len(episodes) == 4
    assert sorted(ran) == [(task, start, YAW) for task in ("door-close", "door-open") for start in (7, 8)]
    with pytest.raises(ValueError, match=r"runs/door-open@9"):
        posed.policies(KNOWN._replace(problems={"door-open@9": KNOWN.problems["door-open/1"]}), None, "runs/{problem}")


def test_problems_of_one_suite_have_one_limit(tmp_path):
    longer = KNOWN.problems["door-close/1"]._replace(max_steps=300)
    known = KNOWN._replace(problems={**KNOWN.problems, "door-close/1": longer})
    with pytest.raises(ValueError, match=r"door-close/1 allows 300 steps, another of .* 200: split the file"):
        posed.run(known, posed.policies(known, None, None), 2, 1, tmp_path)
