"""A comparison without a simulator: every part of it, on a random base and made-up demonstrations."""

import json

import numpy as np
import pytest

from metalora_jax.adaptation import base as bases
from metalora_jax.data import libero_hdf5
from metalora_jax.evaluation.offline import comparison as offline
from metalora_jax.evaluation.offline import report, rivals
from metalora_jax.evaluation.offline.records import RECORDS, Log, Row, read
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.reports import provenance
from metalora_jax.evaluation.reports.records import RecordError
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos

MAPPED = ("linear", "calibration")  # without a gradient step
HEADS = dict(pattern="action_.*", kind="lora", rank=2, alpha=4.0, b_std=0.1)
TOLD = INSTRUCTIONS | {"pull": "reach the puck", "lift": "push the goal"}
META = dict(
    method="multitask",
    inner_steps=1,
    optimizer="sgd",
    inner_learning_rate=0.1,
    max_norm=1.0,
    same_draws=False,
    micro_batch=None,
    head=None,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    bases.save(root / "base", make_base())
    for task, told in TOLD.items():
        demos = [demo._replace(instruction=told) for demo in make_demos(task if task in INSTRUCTIONS else "push")]
        libero_hdf5.write(root / f"{task}_demo.hdf5", demos, ("agentview",), task, {})
    data = dict(directory=str(root), demos=3, cameras=("agentview",))
    control = {
        "base": "",
        "seed": 0,
        "data": data | dict(tasks=("lift",)),
        "conditions": None,
        "placement": (HEADS,),
        "batch": dict(meta_batch=1, shots=1, frames=2, query_demos=1, query_frames=2, noise_draws=1),
        "meta": META,
        "outer": dict(steps=2, learning_rate=1e-2, learning_rate_of_rates=None, max_norm=1.0),
        "checkpoint_every": 2,
    }
    return {
        "base": str(root / "base"),
        "seed": 0,
        "meta_seeds": (0, 1),
        "conditions": None,
        "arms": {"lora": dict(placement=(HEADS,)), "control": control} | {kind: dict(identify=kind) for kind in MAPPED},
        "search": dict(adam=(0.01,), ridge=(0.1,)),
        "validation": data | dict(tasks=("pull",)),
        "test": data | dict(tasks=tuple(INSTRUCTIONS)),
        "protocol": dict(
            distribution="tasks",
            steps=(0, 2),
            shots=(1,),
            shots_steps=(),
            demonstration_draws=1,
            episodes=2,
            retention_steps=0,
            frames=3,
            noise_draws=1,
            max_norm=1.0,
            short=10,
            instruction_steps=2,
        ),
        "offline": dict(stride=3, samples=2),
        "workers": 1,
        "report": dict(title="Made up", reference="lora", labels=dict(control="Multi-task <LoRA>")),
    }


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline.experiment, "in_processes", lambda function, jobs, *_: [function(*job) for job in jobs])
        return offline.run(Comparison.from_config(config), workdir)


def test_every_policy_is_judged_on_what_it_was_not_adapted_to(config, finished):
    rows = read(finished / RECORDS)
    own = [row for row in rows if row.told is None]
    arms = [row for row in own if row.method in config["arms"] and row.identified is None]
    assert len(arms) == 2 * 2 * 2 * 2 * 2  # arms, meta-seeds, tasks, steps, demonstrations
    assert {row.method for row in own} - set(config["arms"]) == {"base", *rivals.NAMES}
    mapped = [row for row in own if row.identified]
    found = {(row.method, row.identified, row.meta_seed, row.steps) for row in mapped}
    assert found == {(kind, kind, 0, 0) for kind in MAPPED}
    assert len(mapped) == 2 * 2 * 2  # arms, tasks, demonstrations
    judged = {(row.task, row.draw): set() for row in own}
    for row in own:
        judged[row.task, row.draw].add(row.episode)
    comparison = Comparison.from_config(config)
    for cell in offline.few_shot.cells(comparison.protocol, "test", {"push": 3, "reach": 3}, None, 1, 0):
        assert judged[cell.task, cell.draw] == set(cell.query)
        assert not judged[cell.task, cell.draw] & set(cell.demos)
    assert all(np.isfinite(row.scaled_error) and len(row.error) == 4 for row in rows)


def test_a_pattern_that_names_nothing_is_refused_and_does_not_bind_the_work_directory(config, tmp_path):
    arms = config["arms"] | {"lora": dict(placement=(HEADS, HEADS | {"pattern": "actoin_.*"}))}
    with pytest.raises(ValueError, match=r"arms\.lora\.placement: rule 'actoin_\.\*' places nothing; near paths"):
        offline.run(Comparison.from_config(config | {"arms": arms}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_calibration_needs_positions_and_a_reading_for_each_before_anything_is_trained(config, tmp_path):
    arms = {name: config["arms"][name] for name in ("lora", "control")} | {"joints": dict(identify="calibration")}
    relative = config | {"arms": arms, "offline": dict(stride=3, samples=2, actions="relative")}
    with pytest.raises(ValueError, match=r"arms\.joints: actions are relative.* set offline\.actions to 'absolute'"):
        offline.run(Comparison.from_config(relative), tmp_path / "run")
    base = make_base()
    known = base.statistics
    fewer = known._replace(**{name: getattr(known, name)[:3] for name in known._fields if name.startswith("state_")})
    bases.save(tmp_path / "base", bases.make(base.model, base.tokenizer, fewer))
    other = config | {"arms": arms, "base": str(tmp_path / "base")}
    with pytest.raises(ValueError, match=r"arms\.joints: the base reads 3 numbers and commands 4.* identify 'linear'"):
        offline.run(Comparison.from_config(other), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_instruction_is_another_policy_s_input(config, finished):
    rows = read(finished / RECORDS)
    told = {(*row.policy, row.episode): row for row in rows if row.told is not None}
    assert {row.steps for row in told.values()} == {2}
    assert {row.told for row in told.values()} == set(INSTRUCTIONS.values())
    for row in rows:
        if (other := told.get((*row.policy, row.episode))) and row.told is None:
            assert other.told != INSTRUCTIONS[row.task]
            assert other.scaled_error != row.scaled_error


def test_provenance_is_kept_and_the_report_is_of_the_rows_alone(finished):
    rows = read(finished / RECORDS)
    assert {row.fingerprint for row in rows} == set(provenance.read(finished))
    text = report.write_report(finished).read_text()
    assert "Offline error is no success rate" in text
    assert "1809.04843" in text
    assert "carry one fingerprint" not in text  # the rivals have that of the base, and rightly
    assert "Multi-task &lt;LoRA&gt;" in text
    summary = json.loads((finished / "report" / "summary.json").read_text())
    [point] = [p for p in summary["points"] if (p["method"], p["steps"]) == ("control", 2)]
    mine = [row for row in rows if (row.method, row.steps, row.told) == ("control", 2, None)]
    other = [row for row in rows if (row.method, row.steps, row.told) == ("lora", 2, None)]
    assert point["scaled_error"] == pytest.approx(np.mean([row.scaled_error for row in mine]))
    assert point["versus"]["pairs"] == len(mine) == 8
    difference = np.mean([row.scaled_error for row in mine]) - np.mean([row.scaled_error for row in other])
    assert point["versus"]["mean"] == pytest.approx(difference)
    levels = [p for p in summary["points"] if p["method"] == "linear"]
    assert [p["steps"] for p in levels] == [0, 2]
    assert {p["n"] for p in levels} == {p["versus"]["pairs"] for p in levels} == {4}  # of one meta-seed
    assert "linear, calibration: no gradient steps" in text
    assert "not by success in closed loop" in text
    assert "Choices lie at the edge of what was tried; no grid was widened" in text
    assert {m["method"] for m in summary["wrong_instruction"]} == {"lora", "control"}


def test_a_finished_run_measures_nothing_again(config, finished, monkeypatch):
    before = (finished / RECORDS).read_bytes()
    monkeypatch.setattr(offline.few_shot, "adapted_at", lambda *arguments: iter(assert_nothing(arguments[-1])))
    offline.run(Comparison.from_config(config), finished)
    assert (finished / RECORDS).read_bytes() == before


def assert_nothing(steps):
    assert list(steps) == []
    return ()


def test_the_log_drops_a_torn_line_and_refuses_other_inputs(tmp_path):
    row = Row("lora", "test", "reach", {}, 1, 0, 2, (0.5,), 0.5, None, steps=3, fingerprint="a")
    with Log(tmp_path / RECORDS) as log:
        log.append(row)
        log.append(row)
    with (tmp_path / RECORDS).open("a") as file:
        file.write('{"method": "lo')
    with Log(tmp_path / RECORDS) as log:
        assert log.has(row.policy, 1, "a")
        assert not log.has(row.policy, 2, "a")  # one of its rows is missing
        with pytest.raises(RecordError, match="recorded with other inputs"):
            log.has(row.policy, 1, "b")
    assert read(tmp_path / RECORDS) == [row]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(offline=None), "a section `control` .* or `offline` .*: name one of the two"),
        (dict(films=dict(tasks=("reach",), steps=2)), "need a simulator: not with `offline`"),
        (dict(offline=dict(stride=0)), "offline.stride is 0"),
        (dict(arms=dict(lora=dict(placement=(HEADS,)), y=dict(identify="yaw"))), "nothing says that commands are disp"),
        (dict(arms=dict(hold=dict(placement=(HEADS,)))), "arms: 'hold' is the name of a rival"),
    ],
)
def test_contradictions_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        Comparison.from_config(config | change)


def test_tasks_that_share_an_instruction_are_no_held_out_tasks(config, tmp_path):
    same = config | {"validation": config["validation"] | dict(tasks=("reach",))}
    with pytest.raises(ValueError, match="is in both validation and test"):
        offline.run(Comparison.from_config(same), tmp_path)
