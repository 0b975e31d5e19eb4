"""Which episodes are run: every one once, paired between methods, and only those that are missing."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from metalora_jax.adaptation.identification import ActionMap
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.envs.control import Control
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import few_shot, identified, plan
from metalora_jax.evaluation.protocol.arms import Arm
from metalora_jax.evaluation.protocol.checks import check_retention
from metalora_jax.evaluation.protocol.few_shot import DataSet, Protocol
from metalora_jax.evaluation.protocol.identified import Fitted, Identifier
from metalora_jax.evaluation.reports.contrasts import pair_key
from metalora_jax.evaluation.reports.records import EpisodeLog, RecordError
from metalora_jax.machine.processes import ALONE, Host
from tests.evaluation.fake_world import make_world
from tests.evaluation.test_few_shot import PROTOCOL

WORLD = make_world({"a": "push a", "b": "push b", "c": "push b", "old": "close it", "older": "open it"})
DEMOS = {"a": 4, "b": 4, "c": 4}
ARM = (0, 1, 2)  # dimensions of a command
STAMPS = {("base", 0): "0", ("meta", 0): "1", ("meta", 1): "2"}
TASKS = PROTOCOL._replace(
    distribution="tasks",
    steps=(0, 1, 3),
    shots=(1, 2),
    shots_steps=(3,),
    demonstration_draws=2,
    episodes=2,
    retention_steps=3,
    retention_tasks=("old", "older"),
    instruction_steps=1,
)


@dataclasses.dataclass
class Frames:
    demos: dict


def arms():
    theta = {"theta": {"a": np.zeros(4, np.float32)}}
    return [Arm("meta", seed, None, (), theta, None) for seed in (0, 1)]


def planned(log, monkeypatch, protocol: Protocol = TASKS, conditions=None, host=ALONE):
    """Every record that the plan lists, by batch, and which adaptations it asked for."""
    made = {k: few_shot.cells(protocol, "test", DEMOS, conditions, k, 0) for k in protocol.shots}
    adapted = []

    def adapted_at(arm, adapt, choices, cell, data, protocol, wanted):
        adapted.append((arm.meta_seed, cell.task, cell.draw, cell.shots, tuple(wanted)))
        for step in wanted:
            yield step, f"{cell.task}{cell.draw}", 0.5 * step, None

    monkeypatch.setattr(few_shot, "adapted_at", adapted_at)
    test = DataSet(Frames(DEMOS), {}, made, "digest")
    batches = list(plan.plan(arms(), {"meta": {}}, None, test, protocol, WORLD, log, STAMPS, host, "meta"))
    return [[(job, rollout.key[0]) for job in jobs for rollout in job.rollouts] for jobs in batches], adapted


def policy(record):
    return record.meta_seed, record.adapted_to or record.task, record.draw, record.shots, record.steps


@pytest.fixture
def log(tmp_path):
    with EpisodeLog(tmp_path / "episodes.jsonl") as opened:
        yield opened


def test_every_episode_is_listed_once(log, monkeypatch):
    [listed], adapted = planned(log, monkeypatch)
    records = [record for _, record in listed]
    assert len({record.key for record in records}) == len(records)
    assert len(adapted) == 2 * 2 * 6  # seeds, shots, cells
    own = [r for r in records if r.method == "meta" and r.split == "test" and r.told is None]
    assert len(own) == 2 * 6 * 2 * (3 + 1)  # seeds, cells, episodes, steps on one and on two demonstrations
    assert all(job.task == record.task for job, record in listed)
    for seed in (0, 1):
        assert {r.fingerprint for r in records if r.method == "meta" and r.meta_seed == seed} == {STAMPS["meta", seed]}


def test_methods_start_where_the_others_do(log, monkeypatch):
    [listed], _ = planned(log, monkeypatch)
    groups = {}
    for _, r in listed:
        if r.split == "test":
            seedless = pair_key(dataclasses.replace(r, meta_seed=0))
            groups.setdefault((r.method, r.meta_seed, r.shots, r.steps, r.told is None), set()).add(seedless)
    assert len(set(map(frozenset, groups.values()))) == 1


def test_hosts_share_all_episodes_whatever_they_have_done(log, tmp_path, monkeypatch):
    def records(log, host=ALONE):
        batches, _ = planned(log, monkeypatch, host=host)
        return [record for batch in batches for _, record in batch]

    parts = [records(log, Host(number, 3)) for number in range(3)]
    keys = [record.key for part in parts for record in part]
    assert all(parts)
    assert len(set(keys)) == len(keys)
    assert set(keys) == {record.key for record in records(log)}
    with EpisodeLog(tmp_path / "second.jsonl") as second:
        for record in parts[1][:4]:
            second.append(record)
        left = records(second, Host(1, 3))
    assert {record.key for record in left} == {record.key for record in parts[1][4:]}


def test_a_comparison_that_is_stopped_early_lacks_draws_and_no_method(log, monkeypatch):
    def run(batches):
        """The episodes in the order in which one worker runs them."""
        monkeypatch.setattr(rollout, "in_processes", lambda _, episodes, *args, **kwargs: (job for _, job in episodes))
        control = Control((), 1, 1)
        return [
            [
                job.rollouts[0].key[0]
                for job in rollout.run(list({id(j): j for j, _ in batch}.values()), None, control, 1)
            ]
            for batch in batches
        ]

    [order] = run(planned(log, monkeypatch)[0])
    assert [record.draw for record in order] == sorted(record.draw for record in order)
    simulators = sum(one.task != other.task for one, other in itertools.pairwise(order)) + 1
    assert simulators == len({(record.draw, record.task) for record in order})
    own = [record for record in order if record.split == "test"]
    first = [dataclasses.replace(record, episode_seed=0).key for record in own if record.draw == 0]
    whole = [dataclasses.replace(record, draw=0, episode_seed=0).key for record in own]
    assert set(first) == set(whole)
    monkeypatch.setattr(plan, "MEMORY", 3 * 16)  # three adapted policies at a time
    draws = [record.draw for batch in run(planned(log, monkeypatch)[0]) for record in batch if record.shots]
    assert draws == sorted(draws)


def test_the_first_episode_is_the_config_s(log, monkeypatch):
    def starts(protocol):
        batches, _ = planned(log, monkeypatch, protocol)
        return {record.episode_seed for batch in batches for _, record in batch if record.task == "a"}

    first = starts(TASKS._replace(episodes=1))
    assert first == {WORLD.episode_start("a", draw, 0) for draw in range(2)}
    assert starts(TASKS._replace(episodes=1, first_episode=7)) == {start + 7 for start in first}


def test_retention_is_measured_on_earlier_tasks_with_a_partner_for_each(log, monkeypatch):
    [listed], _ = planned(log, monkeypatch)
    on = [(job, r) for job, r in listed if r.split == "base" and r.adapter_on]
    off = {(r.task, r.episode_seed) for _, r in listed if not r.adapter_on}
    assert {r.task for _, r in on} == {"old", "older"}
    assert {(r.task, r.episode_seed) for _, r in on} == off
    assert {(r.steps, r.shots) for _, r in on} == {(3, 1)}
    assert all(job.theta == f"{r.adapted_to}{r.draw}" for job, r in on)
    assert len(on) == 2 * 6 * 2


def test_retention_under_new_conditions_is_the_task_without_its_shift(log, monkeypatch):
    turned = TASKS._replace(distribution="conditions", retention_tasks=(), instruction_steps=0)
    [listed], _ = planned(log, monkeypatch, turned, ConditionRange(yaw=(-3.0, 3.0)))
    kept = [r for _, r in listed if r.split == "base" and r.adapter_on]
    assert {r.task for r in kept} == set(DEMOS)
    assert all(r.condition == {} and r.adapted_to is None for r in kept)
    assert all(r.condition for _, r in listed if r.split == "test")


def test_each_policy_runs_several_earlier_tasks_in_turn(log, monkeypatch):
    [listed], _ = planned(
        log, monkeypatch, TASKS._replace(retention_tasks=("old", "older", "b", "c"), retention_per_cell=2)
    )
    on = [r for _, r in listed if r.split == "base" and r.adapter_on]
    assert len(on) == 2 * 6 * 2 * 2  # seeds, cells, earlier tasks, episodes
    assert set(collections.Counter(r.task for r in on).values()) == {len(on) // 4}
    policies = collections.Counter(policy(r) for r in on)
    assert set(policies.values()) == {2 * 2}
    off = [(r.task, r.episode_seed) for _, r in listed if not r.adapter_on]
    assert len(off) == len(set(off))
    assert set(off) == {(r.task, r.episode_seed) for r in on}


def test_scaled_policies_run_their_own_task_and_the_earlier_ones(log, monkeypatch):
    def scaled(theta, placement, factor):
        return f"{factor} of {theta}"

    monkeypatch.setattr(plan.adapters, "scaled", scaled)
    [listed], adapted = planned(log, monkeypatch, TASKS._replace(retention_scales=(0.25, 0.5)))
    assert len(adapted) == 2 * 2 * 6  # as without: they are adapted once
    some = [(job, r) for job, r in listed if r.scale is not None]
    assert all(job.theta == f"{r.scale} of {r.adapted_to or r.task}{r.draw}" for job, r in some)
    whole = {r.key for _, r in listed if r.scale is None}
    for scale in (0.25, 0.5):
        here = [r for _, r in some if r.scale == scale]
        assert {(r.method, r.steps, r.shots, r.told) for r in here} == {("meta", 3, 1, None)}
        assert len([r for r in here if r.split == "test"]) == len([r for r in here if r.split == "base"]) == 2 * 6 * 2
        assert all(dataclasses.replace(r, scale=None).key in whole for r in here)


def test_a_gated_policy_runs_one_episode_of_the_base_s(log, monkeypatch):
    [listed], _ = planned(log, monkeypatch, TASKS._replace(retention_gated=True))
    gated = [(job, r) for job, r in listed if r.gated]
    assert len(gated) == 2 * 6  # seeds, cells
    assert all(job.only_for == (WORLD.instruction(r.adapted_to),) for job, r in gated)
    assert all(job.theta == f"{r.adapted_to}{r.draw}" for job, r in gated)
    off = {(r.task, r.episode_seed) for _, r in listed if not r.adapter_on}
    assert {(r.task, r.episode_seed) for _, r in gated} <= off
    assert all(job.only_for is None for job, r in listed if not r.gated)


def test_the_wrong_instruction_is_another_one(log, monkeypatch):
    [listed], _ = planned(log, monkeypatch)
    told = [(job, rollout) for job, r in listed if r.told for rollout in job.rollouts if rollout.key[0] == r]
    assert {(r.key[0].task, r.told) for _, r in told} == {("a", "push b"), ("b", "push a"), ("c", "push a")}
    assert {r.key[0].steps for _, r in told} == {1}
    own = {r.key for _, r in listed if r.told is None}
    assert all(dataclasses.replace(r.key[0], told=None).key in own for _, r in told)


def test_only_what_is_missing_is_adapted_and_run(log, monkeypatch):
    [listed], _ = planned(log, monkeypatch)
    records = [record for _, record in listed]
    left = [r for r in records if (r.meta_seed, r.task, r.draw, r.steps) == (1, "b", 1, 3) and r.split == "test"]
    for record in records:
        if record not in left:
            log.append(record)
    [again], adapted = planned(log, monkeypatch)
    assert sorted(r.key for _, r in again) == sorted(r.key for r in left)
    assert adapted == [(1, "b", 1, 1, (3,)), (1, "b", 1, 2, (3,))]
    for record in left:
        log.append(record)
    assert planned(log, monkeypatch) == ([], [])


def test_another_fingerprint_is_refused(log, monkeypatch):
    [listed], _ = planned(log, monkeypatch)
    log.append(dataclasses.replace(listed[-1][1], fingerprint="other"))
    with pytest.raises(RecordError, match="recorded under fingerprint other"):
        planned(log, monkeypatch)


def test_adapted_policies_wait_in_batches_that_fit_the_memory(log, monkeypatch):
    [whole], _ = planned(log, monkeypatch)
    monkeypatch.setattr(plan, "MEMORY", 3 * 16)  # three adapted policies
    batches, _ = planned(log, monkeypatch)
    assert len(batches) > 10
    assert sum(map(len, batches)) == len(whole)
    assert {r.key for batch in batches for _, r in batch} == {r.key for _, r in whole}
    policies = [{policy(r) for _, r in batch if r.shots} for batch in batches]
    assert max(map(len, policies)) == 3


def test_retention_on_new_tasks_needs_earlier_ones():
    check_retention(TASKS)
    check_retention(TASKS._replace(retention_tasks=(), retention_steps=0))
    with pytest.raises(ValueError, match=r"name some in protocol\.retention_tasks, or set retention_steps to 0"):
        check_retention(TASKS._replace(retention_tasks=()))


def test_one_task_alone_has_no_wrong_instruction(log, monkeypatch):
    monkeypatch.setitem(DEMOS, "a", 4)
    alone = make_world({"b": "push b", "c": "push b", "old": "", "older": ""})
    monkeypatch.delitem(DEMOS, "a")
    monkeypatch.setattr("tests.evaluation.test_plan.WORLD", alone)
    with pytest.raises(ValueError, match="needs two test tasks with different instructions"):
        planned(log, monkeypatch)


def test_the_references_inputs_are_replaced_once(log, monkeypatch):
    protocol = TASKS._replace(altered=("noise", "no_words", "other_words"), altered_steps=3)
    [listed], _ = planned(log, monkeypatch, protocol)
    records = [record for _, record in listed if record.altered]
    assert {(r.method, r.meta_seed, r.shots, r.steps, r.split) for r in records} == {("meta", 0, 1, 3, "test")}
    assert len(records) == 3 * 6 * 2  # inputs, cells, episodes
    assert {(r.altered, r.told) for r in records if r.task == "a"} == {
        *(("noise", None), ("no_words", ""), ("other_words", "push b"))
    }
    by_key = {record.key for _, record in listed}
    assert all(dataclasses.replace(r, altered=None, told=None).key in by_key for r in records)


def test_an_arm_that_takes_no_steps_runs_everything_once(log, monkeypatch):
    made = {k: few_shot.cells(TASKS, "test", DEMOS, None, k, 0) for k in TASKS.shots}
    fitted = []

    def fit(arm, choices, cell, data):
        fitted.append((cell.task, cell.draw, cell.shots))
        return Fitted(ActionMap(np.eye(4), np.zeros(4)), 0.25, 0.5)

    monkeypatch.setattr(identified, "fit", fit)
    arm = Identifier("yaw", "yaw", 0, None, None, ARM, {})
    test, stamps = DataSet(Frames(DEMOS), {}, made, "digest"), STAMPS | {("yaw", 0): "3"}
    [jobs] = plan.plan([arm], {"yaw": {}}, None, test, TASKS, WORLD, log, stamps)
    mapped = [(job, rollout.key) for job in jobs if job.action_map is not None for rollout in job.rollouts]
    records = [record for _, (record, _, _) in mapped]
    assert len(fitted) == len(set(fitted)) == 6 * 2  # cells, shots
    assert all(job.theta is None for job, _ in mapped)
    assert {(seconds, loss) for _, (_, seconds, loss) in mapped} == {(0.25, 0.5)}
    assert {(r.method, r.identified, r.meta_seed, r.steps, r.fingerprint) for r in records} == {
        ("yaw", "yaw", 0, 0, "3")
    }
    assert len({record.key for record in records}) == len(records)
    own = [r for r in records if r.split == "test" and r.told is None]
    assert len(own) == 6 * 2 * 2  # cells, episodes, shots
    assert len([r for r in records if r.split == "base"]) == len([r for r in records if r.told is not None]) == 6 * 2
