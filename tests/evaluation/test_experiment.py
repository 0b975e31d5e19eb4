"""A whole comparison without a simulator: the recipe for the real SmolVLA, dry, on a small one with random weights."""

import dataclasses
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from runpy import run_path

import jax
import numpy as np
import pytest

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.learner import learner
from metalora_jax.adapters import Rule
from metalora_jax.adapters.placement import from_json
from metalora_jax.data import content, libero_hdf5, normalize
from metalora_jax.data.config import DataConfig, read_demos
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import experiment
from metalora_jax.evaluation.protocol.checks import check_apart, check_gate, check_replay, check_splits
from metalora_jax.evaluation.protocol.comparison import Comparison, Fresh
from metalora_jax.evaluation.reports import provenance, report
from metalora_jax.evaluation.reports.records import read_episodes, read_run
from metalora_jax.machine.processes import Host
from metalora_jax.training import checkpoint
from metalora_jax.training.meta_train import meta_train
from metalora_jax.types import Demo
from tests import lerobot_directory
from tests.adapters.test_attach import Gate
from tests.data.libero_golden import libero_tasks
from tests.evaluation.fake_world import make_world, roll_out

CONFIG = Path(__file__).parents[2] / "configs" / "smolvla_libero.py"
WORLD = make_world(
    {name: task.instruction[:20] + str(i) for i, (name, task) in enumerate(libero_tasks().items())},
    {name: task.facts for name, task in libero_tasks().items()},
)._replace(state_dim=6, action_dim=6)  # of the made-up policy
ARMS = ("meta", "full_head", "identify_linear")  # one that is trained, one that is not, one that takes no steps
TRAINED = ("meta",)


def record(path: Path, task: str, cameras: tuple[str, ...]) -> None:
    rng = np.random.default_rng(len(task))
    demos = [
        Demo(
            WORLD.instruction(task),
            rng.integers(0, 256, (5, len(cameras), 32, 32, 3), dtype=np.uint8),
            rng.uniform(-1, 1, (5, 6)).astype(np.float32),
            rng.uniform(-1, 1, (5, 6)).astype(np.float32),
        )
        for _ in range(4)
    ]
    libero_hdf5.write(path / f"{task}_demo.hdf5", demos, cameras, task, {})


def placements() -> dict:
    config = run_path(str(CONFIG))["get_config"]("dry").to_dict()
    return {name: arm["placement"] for name, arm in config["arms"].items()}


def made(config: dict, **changes) -> Comparison:
    return Comparison.from_config(config | changes)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    config = run_path(str(CONFIG))["get_config"]("dry").to_dict()
    config["arms"] = {name: config["arms"][name] for name in ARMS[:2]} | {ARMS[2]: dict(identify="linear")}
    config["search"]["ridge"] = (0.03,)
    config["protocol"] |= dict(search_episodes=1, search_widenings=2)
    config["protocol"] |= dict(retention_scales=(0.5,), retention_gated=True)
    # On the heads alone: gradients through the decoder compile for a minute.
    config["arms"]["meta"]["placement"] = placements()["head_lora"]
    config["control"]["execute"] = 5  # the chunks of the small policy
    tasks = {*config["arms"]["meta"]["data"]["tasks"], *config["validation"]["tasks"], *config["test"]["tasks"]}
    for task in tasks:
        record(root, task, config["test"]["cameras"])
    for part in (*(config["arms"][name]["data"] for name in TRAINED), config["validation"], config["test"]):
        part["directory"] = str(root)
        part["keys"] = dict(agentview="agentview_rgb")
    policy = lerobot_directory.write(root / "policy", lerobot_directory.small())
    # The recipe replays nothing; this run does.
    config["replay"] = dict(config["arms"]["meta"]["data"])
    config["protocol"]["replay_frames"] = 2
    config["convert"] = {"policy": str(policy), "tokenizer": None}
    config["base"] = str(root / "made" / "base")
    return config


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """The run's directory; nothing is started in another process, and nothing simulated."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    checkpoint.claim(workdir, made(config).to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "world", lambda name: {"libero": WORLD}[name])
        patch.setattr(experiment, "in_processes", lambda function, jobs, *_: [function(*job) for job in jobs])
        patch.setattr(rollout, "run", roll_out)
        patch.setattr(provenance, "checkout", lambda root: ("c" * 40, []))
        experiment.run(made(config), workdir)
    return workdir


def test_every_part_of_the_protocol_ran(config, run):
    episodes = read_run(run)
    arms = [e for e in episodes if e.method != "base"]
    assert {e.method for e in arms} == set(ARMS)
    own = [e for e in arms if e.split == "test" and e.told is None]
    assert {(e.task, e.steps) for e in own if not e.identified} == {
        (task, k) for task in config["test"]["tasks"] for k in (0, 1)
    }
    mapped = [e for e in arms if e.identified]
    assert {(e.method, e.identified, e.meta_seed, e.steps) for e in mapped} == {(ARMS[2], "linear", 0, 0)}
    assert {e.task for e in mapped if e.split == "test"} == set(config["test"]["tasks"])
    kept = [e for e in arms if e.split == "base"]
    assert {e.task for e in kept} <= set(config["protocol"]["retention_tasks"])
    assert {e.adapted_to for e in kept} == set(config["test"]["tasks"])
    assert len([e for e in arms if e.told is not None]) == len(config["arms"]) * len(config["test"]["tasks"])
    assert all(e.support_loss is not None and np.isfinite(e.support_loss) for e in arms if e.steps)


@pytest.mark.parametrize(
    ("name", "stage", "towers"),
    [
        ("meta", "features", {"text", "expert", "heads"}),
        ("control", "features", {"text", "expert", "heads"}),
        ("lora", "features", {"text", "expert", "heads"}),
        ("head_lora", "context", {"heads"}),
        ("full_head", "context", {"heads"}),
        ("full_expert", "context", {"expert", "heads"}),
    ],
)
def test_every_arm_adapts_what_it_says(config, run, name, stage, towers):
    made = learner(
        bases.load(config["base"]), from_json([dict(rule) for rule in placements()[name]]), jax.random.key(0)
    )
    assert made.stage == stage
    assert {"heads" if path.startswith("action_") else path.split("/")[0] for path in made.theta} == towers


def test_the_base_has_the_statistics_of_the_training_tasks_alone(config):
    demos = read_demos(DataConfig.from_config(config["arms"]["meta"]["data"]))
    wanted = normalize.compute([demo for recorded in demos.values() for demo in recorded])
    assert bases.load(config["base"]).statistics.digest() == wanted.digest()


def test_provenance_names_every_input(config, run):
    lines = provenance.read(run)
    episodes = read_run(run)
    assert {e.fingerprint for e in episodes} == set(lines)
    train, test = (read_demos(DataConfig.from_config(c)) for c in (config["arms"]["meta"]["data"], config["test"]))
    base = bases.load(config["base"]).fingerprint
    for episode in episodes:
        inputs = lines[episode.fingerprint].inputs
        assert inputs.data["test"] == content.digest(test)
        assert inputs.data["replay"] == content.digest(train)
        assert inputs.data.get("training") == (content.digest(train) if episode.method in TRAINED else None)
        assert (inputs.adapter is None) == (episode.method == "base")
        assert inputs.source == "directory"
        assert inputs.base == base
    assert len({line.inputs.adapter for line in lines.values()}) == 1 + len(ARMS)


def test_rates_are_chosen_by_episodes_of_validation_and_grids_widened(config, run):
    tried, chosen = (json.loads((run / name).read_text()) for name in ("search.json", "rates.json"))
    assert set(tried) == set(chosen) == set(ARMS)
    for each in (each for budgets in tried.values() for every in budgets.values() for each in every):
        assert each["episodes"] >= len(config["validation"]["tasks"])
        assert 0 <= each["success"] <= 1
    ridges = {each["learning_rate"] for each in tried["identify_linear"]["no_steps"]}
    assert len(ridges) == 3  # the grid's only point, and two beyond it
    assert chosen["identify_linear"]["no_steps"]["learning_rate"] in ridges
    text = (report.write_report(run).parent / "report.md").read_text()
    assert "Chosen by success in closed loop" in text
    assert "No gradient steps: Identified linear map (closed form) fits a map" in text


def test_the_report_is_made_and_refused_once_anything_moved(config, run):
    index = report.write_report(run)
    assert "DRAFT" not in index.read_text()
    summary = json.loads((run / "report" / "summary.json").read_text())
    assert summary["retention"]
    points = [(row["method"], row["scale"]) for row in summary["frontier"]["rows"]]
    stepped = [(arm, scale) for arm in ARMS[:2] for scale in (0.5, 1.0)]
    assert sorted(points) == sorted([("base", 0.0), *stepped, (ARMS[2], 1.0)])
    gates = {gate["method"]: (gate["n"], gate["equal"]) for gate in summary["frontier"]["gates"]}
    assert gates == dict.fromkeys(ARMS[:2], (len(config["test"]["tasks"]),) * 2)
    assert summary["wrong_instruction"]
    assert summary["sections"][0]["power"]
    claimed = (run / "config.json").read_text()
    (run / "config.json").write_text(claimed.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(provenance.Unpinned):
        report.write_report(run)
    (run / "config.json").write_text(claimed)


def test_other_demonstrations_under_the_old_records_are_refused(config, run, monkeypatch):
    monkeypatch.setattr(experiment, "world", lambda name: WORLD)
    monkeypatch.setattr(experiment, "data_sets", moved(experiment.data_sets))
    monkeypatch.setattr(rollout, "run", roll_out)
    with pytest.raises(ValueError, match=r"was recorded under fingerprint .*provenance\.jsonl shows what changed"):
        experiment.run(made(config), run)


def moved(data_sets):
    return lambda *arguments: [each._replace(digest="0" * 64) for each in data_sets(*arguments)]


def test_demonstrations_that_are_not_the_pinned_ones_are_refused(config, tmp_path):
    data = DataConfig.from_config(config["test"])
    found = content.digest(read_demos(data))
    assert read_demos(data._replace(digest=found))
    with pytest.raises(ValueError, match=f"have digest {found}, the config wants {'0' * 64}"):
        read_demos(data._replace(digest="0" * 64))
    recipe = made(config).recipe("meta", 0)
    recipe = recipe._replace(data=recipe.data._replace(digest="0" * 64))
    with pytest.raises(ValueError, match="the config wants"):
        meta_train(recipe, tmp_path)


def test_demonstrations_that_are_tested_on_are_used_for_nothing_else(config, tmp_path, monkeypatch):
    check_apart(made(config))
    for section in ("validation", "arms"):
        wrong = json.loads(json.dumps(config))
        part = wrong["validation"] if section == "validation" else wrong["arms"]["meta"]["data"]
        part["tasks"] = [*part["tasks"], config["test"]["tasks"][0]]
        with pytest.raises(ValueError, match=rf"in {section}.* is demonstration \d of test: .* record others"):
            check_apart(made(wrong))


def test_a_gate_needs_instructions_that_tell_tasks_apart(config):
    protocol = dict(config["protocol"], retention_gated=True)
    check_gate(made(config, protocol=protocol), WORLD)
    new = config["test"]["tasks"][0]
    task = next(iter({*WORLD.tasks()} - {*config["test"]["tasks"]}))
    texts = {each: WORLD.instruction(each) for each in WORLD.tasks()} | {task: WORLD.instruction(new).upper()}
    protocol["retention_tasks"], where = (task,), WORLD._replace(instruction=texts.__getitem__)
    with pytest.raises(ValueError, match=rf"the instruction .* is of the earlier task {task} and of {new}"):
        check_gate(made(config, protocol=protocol), where)
    with pytest.raises(ValueError, match=r"protocol\.retention_gated needs protocol\.retention_tasks"):
        made(config, protocol=protocol | dict(retention_tasks=()))
    with pytest.raises(
        ValueError, match=r"protocol\.retention_scales is about retention: set protocol\.retention_steps"
    ):
        made(config, protocol=protocol | dict(retention_steps=0))


def test_a_kind_that_cannot_be_scaled_is_refused_before_anything_is_trained(config, run):
    arms = {"own": Fresh((Rule("action_out_proj", Gate()),))}
    with pytest.raises(ValueError, match=r"arms\.own\.placement: action_out_proj: an adapter of kind 'gate' cannot be"):
        experiment.check_placements(made(config)._replace(arms=arms), bases.load(config["base"]))


def test_splits_that_share_a_fact_are_refused(config):
    protocol = dict(config["protocol"], held_out=("scene",))
    with pytest.raises(ValueError, match="scene 'LIBERO_Floor_Manipulation with floor' is in both"):
        check_splits(made(config, protocol=protocol), WORLD)
    protocol = dict(config["protocol"], held_out=("colour",))
    with pytest.raises(ValueError, match="no fact 'colour' about this world's tasks; known: text, scene, motion"):
        check_splits(made(config, protocol=protocol), WORLD)


def test_earlier_tasks_count_as_learned_from(config):
    protocol = dict(config["protocol"], retention_tasks=(config["test"]["tasks"][0],))
    with pytest.raises(ValueError, match="is in both train and test"):
        check_splits(made(config, protocol=protocol), WORLD)


def test_what_is_replayed_counts_as_learned_from(config):
    replay = dict(config["test"], tasks=config["test"]["tasks"][:1])
    with pytest.raises(ValueError, match="is in both train and test"):
        check_splits(made(config, replay=replay), WORLD)


@pytest.mark.parametrize("section", ["validation", "test", "replay"])
def test_missing_demonstrations_are_said_before_training(config, tmp_path, monkeypatch, section):
    monkeypatch.setattr(experiment, "world", lambda name: WORLD)
    monkeypatch.setattr(experiment, "train", lambda config, workdir: pytest.fail("it trained first"))
    short = config | {section: dict(config[section], demos=100)}
    with pytest.raises(ValueError, match=r"100 demonstrations of .* requested, 4 found; use fewer"):
        experiment.run(made(short), tmp_path)


@pytest.mark.parametrize(("frames", "replay"), [(4, False), (0, True)])
def test_replay_is_configured_whole_or_not_at_all(config, frames, replay):
    protocol = dict(config["protocol"], replay_frames=frames)
    changed = made(config, protocol=protocol, replay=config["replay"] if replay else None)
    with pytest.raises(ValueError, match=f"replay_frames is {frames}, and there is .* set both or neither"):
        check_replay(changed)
    check_replay(made(config))


def test_a_comparison_says_everything_that_it_was_read_from(config):
    comparison = made(config)
    assert Comparison.from_config(json.loads(json.dumps(comparison.to_json()))) == comparison
    with pytest.raises(ValueError, match=r"no field config\.film; known: base, seed"):
        made(config, film={})
    with pytest.raises(ValueError, match=r"no field films\.task; known: tasks, steps"):
        made(config, films={"task": ()})
    with pytest.raises(ValueError, match=r"report\.reference = 'mta' is no arm; choose meta, full_head"):
        made(config, report=dict(config["report"], reference="mta"))


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("protocol.shots", (1, 1), r"protocol\.shots is \(1, 1\); name at least one, and none twice"),
        ("protocol.retention_steps", 4, r"protocol\.retention_steps: 4 is not in protocol\.steps"),
        ("protocol.steps", (1, 0), r"protocol\.steps is \(1, 0\); name step counts from 0 on, ascending"),
        ("protocol.retention_per_cell", 99, r"protocol\.retention_per_cell is 99; it must be 1 to \d+, the number of"),
        ("protocol.retention_per_cell", 0, r"protocol\.retention_per_cell is 0; it must be 1 to"),
        (
            "protocol.retention_scales",
            (0.5, 1.0),
            r"protocol\.retention_scales holds 1\.0; they lie between 0, the base,",
        ),
        ("protocol.retention_scales", (0.5, 0.5), r"protocol\.retention_scales is .*; name none twice"),
        ("protocol.noise_draws", 0, r"protocol\.noise_draws is 0; it must be positive"),
        ("meta_seeds", (0, 0), r"meta_seeds is \(0, 0\)"),
        ("search.learned", (), r"search\.learned names no factor for the arm 'meta'"),
        ("search.adam", (-1.0,), r"search\.adam holds -1\.0; each must be a number above 0"),
        ("search.adamm", (1.0,), r"search: no optimizer named 'adamm'"),
        ("films", {"tasks": ("nowhere",), "steps": 1}, r"films\.tasks: 'nowhere' is not in test\.tasks"),
        ("protocol.search_widenings", -1, r"protocol\.search_widenings is -1; it must not be negative"),
        ("search.ridge", (), r"search\.ridge names no strength of regularisation for the arm 'identify_linear'"),
        ("arms.identify_linear.identify", "pitch", "nothing identifies 'pitch'; choose yaw or linear"),
        ("report.reference", "identify_linear", "takes no gradient steps; choose an arm that does"),
        ("report.steps", 7, r"report\.steps: 7 is not in protocol\.steps"),
        ("arms.meta.seed", 77, r"arms\.meta\.base and \.seed are the comparison's"),
        ("arms.meta.outer.learning_rate", -1.0, r"outer\.learning_rate is -1\.0; it must be positive"),
        ("arms.meta.meta.method", "mamml", "'learned' has no effect with method 'mamml'"),
    ],
)
def test_what_would_have_no_effect_or_fail_late_is_refused_at_once(config, path, value, complaint):
    wrong = json.loads(json.dumps(config))
    *parents, last = path.split(".")
    section = wrong
    for part in parents:
        section = section[part]
    section[last] = value
    with pytest.raises(ValueError, match=complaint):
        Comparison.from_config(wrong)


@pytest.mark.parametrize("name", ["base", "", "../../x", "a b"])
def test_names_that_no_arm_can_have(config, name):
    with pytest.raises(ValueError, match="cannot name an arm"):
        made(config, arms={name: config["arms"]["full_head"], "meta": config["arms"]["meta"]})


def test_a_mistyped_path_does_not_bind_the_work_directory(config, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "world", lambda name: WORLD)
    nowhere = made(config, base=str(tmp_path / "nowhere"), convert=None)
    with pytest.raises(ValueError, match="nowhere"):
        experiment.run(nowhere, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_records_are_whole(run):
    for episode in read_run(run):
        assert dataclasses.asdict(episode)["length"] == 7
        assert len(episode.fingerprint) == provenance.DIGITS


def test_two_hosts_at_once_run_what_one_does(config, run, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    checkpoint.claim(workdir, made(config).to_json())
    shutil.copytree(run / "arms", workdir / "arms")  # training has tests of its own
    monkeypatch.setattr(experiment, "world", lambda name: WORLD)
    monkeypatch.setattr(experiment, "LOOK", 0.05)
    monkeypatch.setattr(rollout, "run", roll_out)
    monkeypatch.setattr(provenance, "checkout", lambda root: ("c" * 40, []))
    with ThreadPoolExecutor(2) as pool:
        second, first = (pool.submit(experiment.run, made(config), workdir, Host(number, 2)) for number in (1, 0))
        assert first.result() == second.result() == workdir
    parts = [read_episodes(workdir / f"episodes-{number}-of-2.jsonl") for number in (0, 1)]
    assert all(parts)
    alone = {episode.key: episode for episode in read_run(run)}
    both = [*parts[0], *parts[1]]
    assert len(both) == len(alone)
    for episode in both:
        wanted = alone[episode.key]
        assert (episode.success, episode.fingerprint) == (wanted.success, wanted.fingerprint)
        assert episode.support_loss == pytest.approx(wanted.support_loss)
    assert "DRAFT" not in report.write_report(workdir).read_text()


def test_other_hosts_wait_for_the_first(tmp_path, monkeypatch, caplog):
    looks = iter(({"meta": {}}, {"meta": {}}, {name: {} for name in ARMS}))
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / "rates.json").write_text(json.dumps(next(looks))))
    experiment.wait_for_first(ARMS, tmp_path)
    assert next(looks, None) is None
    assert "waiting for host 0" in caplog.text


def test_a_run_keeps_its_number_of_hosts(config, run, monkeypatch):
    monkeypatch.setattr(experiment, "world", lambda name: WORLD)
    with pytest.raises(ValueError, match=r"has episodes\.jsonl, and 2 hosts would run its episodes again"):
        experiment.run(made(config), run, Host(0, 2))
    with pytest.raises(ValueError, match="host 2 of 2: hosts are numbered from 0"):
        experiment.check_logs(run, Host(2, 2))
