"""A policy from outside the package, of another shape than SmolVLA's, goes through the ordinary programs.

The recipes are those of the repository, too; only sizes and names are given anew.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metalora_jax import trees
from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.data import libero_hdf5, normalize
from metalora_jax.envs.metaworld import INSTRUCTIONS
from metalora_jax.policies import registry
from metalora_jax.training.pretrain import train_tokenizer
from metalora_jax.types import Demo
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


def program(name, *flags):
    """Runs one of the programs as a user does; what it printed."""
    # What one program has compiled, however small, the next one finds.
    shared = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    known = os.environ | {registry.PLUGINS: PLUGIN, "PYTHONPATH": str(ROOT)} | shared
    command = [sys.executable, f"experiments/{name}.py", *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


def test_the_toy_adapts_from_one_demonstration(root, trained):
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
    start, found = (loaded(root, path) for path in (trained, target))
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
        "--workers=1",
    )
    [line] = (root / "judged" / "episodes.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["task"] == TASKS[0]
    assert record["error"] is None
    assert record["length"] == 3


def test_a_policy_that_nobody_named_is_refused_with_the_remedy(root, monkeypatch):
    monkeypatch.delenv(registry.PLUGINS)
    with pytest.raises(ValueError, match=rf"no policy is of type 'toy'; .*{registry.PLUGINS}$") as refused:
        bases.load(root / "base")
    assert "\n" not in str(refused.value)
