"""A policy from outside the package, of another shape than SmolVLA's, goes through the ordinary programs.

The recipes are those of the repository, too; only sizes and names are given anew.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from metalora_jax import trees
from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Agent
from metalora_jax.adaptation.learner import learner
from metalora_jax.data import libero_hdf5, normalize
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.metaworld import INSTRUCTIONS, MetaWorld
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.benchmarks import scaling
from metalora_jax.policies import registry
from metalora_jax.training.pretrain import train_tokenizer
from metalora_jax.types import Demo
from tests.child_processes import COMPILED_ONCE
from tests.policies import toy

ROOT = Path(__file__).parents[2]
TASKS = ("drawer-close", "window-open")
TOLD = {task: INSTRUCTIONS[task] for task in TASKS}
PLUGIN = "tests.policies.toy"


def make_demos(task, count=3):
    """Demonstrations of unequal lengths with Meta-World's widths."""
    rng = np.random.default_rng(TASKS.index(task))

    def one(steps):
        images = rng.integers(0, 256, (steps, 1, 16, 16, 3), dtype=np.uint8)
        state, actions = rng.uniform(-1, 1, (2, steps, 4)).astype(np.float32)
        return Demo(TOLD[task], images, state, actions)

    return [one(6 + i) for i in range(count)]


@pytest.fixture(autouse=True)
def plugged(monkeypatch):
    monkeypatch.setenv(registry.PLUGINS, PLUGIN)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base of the toy's, and demonstrations of two tasks."""
    path, demos = tmp_path_factory.mktemp("toy"), {task: make_demos(task) for task in TASKS}
    for task in TASKS:
        libero_hdf5.write(path / f"{task}_demo.hdf5", demos[task], ("agentview",), task, {})
    statistics = normalize.compute([demo for task in TASKS for demo in demos[task]])
    model = toy.build(cameras=1, tokens=64)
    base = bases.make(model, train_tokenizer(list(TOLD.values()), model.config.vocabulary), statistics)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(registry.PLUGINS, PLUGIN)
        bases.save(path / "base", base)
    return path


def program(name, *flags, fails=False):
    """Runs one of the programs as a user does; what it printed, or its error where it is to end in one."""
    known = os.environ | {registry.PLUGINS: PLUGIN, "PYTHONPATH": str(ROOT)} | COMPILED_ONCE
    command = [sys.executable, f"experiments/{name}.py", *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=300)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


@functools.cache
def loaded(root, path):
    return adapter.load(path, bases.load(root / "base"))


@pytest.fixture(scope="module")
def trained(root):
    rule = dict(pattern="coarse/.*|fine/.*", kind="lora", rank=2, alpha=4.0, b_std=0.1)
    changes = dict(
        base=root / "base",
        **{"data.directory": root, "data.tasks": TASKS, "data.demos": 3, "placement": (rule,)},
        **{"batch.meta_batch": 2, "batch.frames": 3, "batch.query_frames": 4},
        **{"meta.inner_steps": 1, "outer.steps": 2, "checkpoint_every": 1},
    )
    said = program(
        "meta_train",
        "--config=configs/metaworld_conditions.py:fomaml_rates",
        f"--workdir={root / 'run'}",
        *(f"--config.{name}={value}" for name, value in changes.items()),
    )
    target = root / "run" / "adapter"
    assert said.splitlines()[-1] == f"adapter: {target}"
    return target


def test_meta_training_moves_the_toy_s_adapters(root, trained):
    found = loaded(root, trained)
    fresh = adapter.fresh(bases.load(root / "base"), found.placement)
    assert set(found.meta_params) == {"theta", "log_rates"}
    assert {path.split("/")[0] for path in found.learner.theta} == {"coarse", "fine"}
    assert trees.global_norm(trees.sub(found.meta_params["theta"], fresh.learner.theta)) > 1e-3


@pytest.fixture(scope="module")
def adapted(root, trained):
    target, demos = root / "adapted", root / f"{TASKS[0]}_demo.hdf5"
    said = program(
        "adapt",
        f"--base={root / 'base'}",
        f"--adapter={trained}",
        f"--demos={demos}",
        f"--output={target}",
        "--shots=1",
        "--steps=2",
        "--frames=3",
    )
    assert f"task:           {TOLD[TASKS[0]]}" in said
    return target


def test_the_toy_adapts_from_one_demonstration(root, trained, adapted):
    start, found = (loaded(root, path) for path in (trained, adapted))
    assert trees.global_norm(trees.sub(found.meta_params["theta"], start.meta_params["theta"])) > 1e-4


@pytest.mark.metaworld
def test_the_toy_acts_in_closed_loop(root):
    program(
        "evaluate_base",
        f"--base={root / 'base'}",
        "--config=configs/nano_smolvla.py",
        f"--config.data.clean.tasks={TASKS[:1]}",
        "--config.control.max_steps=3",
        f"--workdir={root / 'judged'}",
        "--episodes=1",
        "--altered_episodes=0",
        "--condition=light=0.6",
        "--workers=1",
    )
    [line] = (root / "judged" / "episodes.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["task"] == TASKS[0]
    assert record["condition"] == {"light": 0.6}
    assert record["error"] is None
    assert record["length"] == 3


@pytest.mark.metaworld
def test_the_adapted_toy_acts_in_closed_loop(root, adapted):
    """In a worker process, as an agent does in this one."""
    base, found = bases.load(root / "base"), loaded(root, adapted)
    theta = jax.tree.map(np.asarray, found.learner.theta)
    control = Control(("agentview",), execute=2, max_steps=3)
    jobs = [
        rollout.Job(TASKS[0], found.placement, theta, (rollout.Rollout("adapted", Condition(), 0),)),
        rollout.Job(TASKS[0], (), None, (rollout.Rollout("base", Condition(), 0),)),
    ]
    outcomes = {outcome.key: outcome for outcome in rollout.run(jobs, root / "base", control, workers=1)}
    assert [(each.error, each.length) for each in outcomes.values()] == [(None, 3)] * 2
    with MetaWorld(TASKS[0], control.cameras, image_size=control.image_size) as env:
        env.reset(0, Condition())
        frame = env.observe()
    for key, start in (("adapted", found.learner), ("base", None)):
        first = jax.random.fold_in(jax.random.key(0), 0)
        chunk = Agent(base, start).act(frame.images, frame.state, TOLD[TASKS[0]], first)
        np.testing.assert_allclose(outcomes[key].commands[:2], chunk[:2], atol=1e-5)
    assert np.abs(outcomes["adapted"].commands[:2] - outcomes["base"].commands[:2]).max() > 1e-3


def test_the_toy_is_pretrained(root):
    data = {"directory": root, "tasks": TASKS, "demos": 3}
    parts = {f"data.{part}.{name}": value for part in ("clean", "noisy") for name, value in data.items()}
    changes = parts | {"batch": 4, "steps": 2, "warmup": 1, "shift": 1, "seed": 5}
    said = program(
        "pretrain",
        "--config=tests/policies/toy_recipe.py",
        f"--workdir={root / 'pretrained'}",
        *(f"--config.{name}={value}" for name, value in changes.items()),
    )
    assert said.splitlines()[-1] == f"base: {root / 'pretrained' / 'base'}"
    found = bases.load(root / "pretrained" / "base")
    assert (found.model.type, found.config.width) == ("toy", 12)
    fresh = toy.FAMILY.create({"cameras": 1, "tokens": 64, "width": 12}, nnx.Rngs(5))
    for own, before in zip(*(jax.tree.leaves(nnx.state(model)) for model in (found.model, fresh)), strict=True):
        assert 0 < np.abs(own - before).max() < 0.02  # two small steps from the weights of this seed


def test_the_cost_of_the_toy_is_measured(root, monkeypatch):
    """What scaling.py does, for few sizes."""
    monkeypatch.setattr(scaling, "VARIED", {"tasks": (1,)})
    monkeypatch.setattr(scaling, "MEMORY_STEPS", (1,))
    base = bases.load(root / "base")
    learn = learner(base, base.family.preset("experts", b_std=0.1), jax.random.key(0))
    [point] = scaling.time_points(base, learn, 1)
    assert point["cpu_seconds"] > 0
    assert all(point["bytes"] > 0 for point in scaling.memory_points(base, learn))


def test_what_fewer_bits_cost_the_toy(root):
    rows = [line.split(" | ") for line in program("precision", f"--policy={root / 'base'}").splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["| float32", "float32"],
        ["| bfloat16", "float32"],
        ["| bfloat16", "bfloat16"],
    ]
    off = [float(row[4]) for row in rows]
    assert off[0] == 0.0
    assert 1e-4 < off[1] < off[2] < 0.1


@pytest.mark.parametrize("name", ["scaling", "precision"])
def test_a_placement_that_the_toy_does_not_have_is_refused(root, name):
    flags = {"scaling": ("--base={}", "--output={}/scaling"), "precision": ("--policy={}",)}[name]
    said = program(name, *(flag.format(root / "base") for flag in flags), "--placement=plan", fails=True)
    assert "error: no placement named 'plan'; choose one of experts" in said


def test_the_toy_has_no_public_format_to_export_to(root, adapted):
    flags = (f"--adapter={adapted}", f"--base={root / 'base'}", f"--policy={root / 'base'}", f"--output={root / 'out'}")
    for kind in ("merged", "peft"):
        said = program("export", *flags, f"--format={kind}", fails=True)
        assert f"error: a toy policy cannot be exported: its family has no export_{kind}" in said
    assert not (root / "out").exists()


def test_a_policy_that_nobody_named_is_refused_with_the_remedy(root, monkeypatch):
    monkeypatch.delenv(registry.PLUGINS)
    with pytest.raises(ValueError, match=rf"no policy is of type 'toy'; .*{registry.PLUGINS}$") as refused:
        bases.load(root / "base")
    assert "\n" not in str(refused.value)
