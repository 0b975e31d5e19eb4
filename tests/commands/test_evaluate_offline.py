"""From a LeRobot dataset to an adapter and a verdict on it, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adapters import placement
from metalora_jax.data import lerobot_v3
from metalora_jax.evaluation.offline import measure
from tests.child_processes import COMPILED_ONCE
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos

ROOT = Path(__file__).parents[2]
HEADS = dict(pattern="action_.*", kind="lora", rank=2, alpha=4.0, b_std=0.1)
pytestmark = pytest.mark.parquet


def command(name: str, *flags: str, status: int = 0) -> tuple[str, str]:
    """What it prints, and what it logs."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | COMPILED_ONCE
    words = [sys.executable, "-m", "metalora_jax.commands", name, *flags]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base, an adapter to start from, and a dataset of two tasks: episodes 0 to 3, and 4 to 7."""
    path = tmp_path_factory.mktemp("offline")
    bases.save(path / "base", make_base())
    start = adapter.fresh(make_base(), placement.from_json([HEADS]))
    adapter.save(path / "start", make_base(), start.placement, start.meta_params, config={"meta": {"inner_steps": 4}})
    demos = [demo for task in INSTRUCTIONS for demo in make_demos(task)]
    demos[3].state[:6], demos[3].actions[:6] = demos[3].state[:1], demos[3].actions[:1]  # waits
    lerobot_v3.write(path / "dataset", demos, ("agentview",), 10)
    return path


@pytest.fixture(scope="module")
def adapted(root):
    said, _ = command(
        "adapt",
        *(f"--base={root / 'base'}", f"--adapter={root / 'start'}", f"--demos={root / 'dataset'}"),
        *(f"--task={INSTRUCTIONS['reach']}", "--held_out_episodes=last:1", f"--output={root / 'adapted'}"),
        *("--shots=2", "--optimizer=adam", "--learning_rate=0.01", "--validate_every=2", "--frames=4"),
        "--only_for_its_instruction",
    )
    return said


def test_an_adapter_for_its_instruction_is_judged_and_exported_as_such(root, adapted):
    start = adapter.load(root / "adapted", make_base())
    assert start.learner.only_for == (INSTRUCTIONS["reach"],)
    assert f"only for:       {INSTRUCTIONS['reach']!r}; under other instructions the base acts" in adapted
    with pytest.raises(ValueError, match=r"adapted is only for .*; under .* it acts as the base, whose error"):
        measure.evaluate(make_base(), {"adapted": start.learner}, {"push": make_demos("push")}, {})
    given = f"--adapter={root / 'adapted'}", f"--base={root / 'base'}", "--policy=any", f"--output={root / 'out'}"
    _, logged = command("export", *given, "--format=peft", status=1)
    assert "which --format=peft cannot say: use --format=lerobot_plugin, or adapt again without" in logged


def test_adapting_keeps_episodes_out_and_says_what_it_is_worth(root, adapted):
    config = json.loads((root / "adapted" / "manifest.json").read_text())["config"]
    assert config["episodes"] == [0, 1]
    assert config["held_out_episodes"] == ["last:1"]
    assert config["steps"] == 4  # those of the adapter that it starts from
    assert "held-out error: " in adapted
    assert "standing still" in adapted.splitlines()[-1]
    assert "On episode 3, held out: the adapted policy is" in adapted.splitlines()[-1]


@pytest.fixture(scope="module")
def idle(root):
    """An adapter that changes nothing."""
    start = adapter.fresh(make_base(), placement.from_json([HEADS | {"b_std": 0.0}]))
    adapter.save(root / "idle", make_base(), start.placement, start.meta_params, config={})
    return root / "idle"


def test_a_run_that_judged_no_adapter_fails_and_gives_no_verdict(root, idle):
    said, logged = command(
        "evaluate_offline",
        *(f"--base={root / 'base'}", f"--adapter={idle}", f"--demos={root / 'dataset'}", "--stride=9", "--samples=1"),
        *(f"--task={INSTRUCTIONS['reach']}", "--held_out_episodes=3", f"--output={root / 'idle_page'}"),
        status=1,
    )
    assert f"error: {idle} changed nothing, so that no adapter was judged" in logged
    assert "standing still (" not in said


def test_no_episode_to_judge_on_is_named_by_its_flag(root):
    given = f"--base={root / 'base'}", f"--demos={root / 'dataset'}", "--held_out_episodes="
    _, logged = command("evaluate_offline", *given, status=1)
    assert "error: --held_out_episodes is empty" in logged


@pytest.mark.parametrize("rate", ["0", "nan"])
def test_a_rate_that_moves_nothing_is_named_by_its_flag(root, rate):
    given = f"--demos={root / 'dataset'}", f"--output={root / 'never'}", f"--learning_rate={rate}"
    _, logged = command("adapt", *given, status=1)
    assert "--learning_rate=" in logged
    assert "it must be a number above 0" in logged


def test_judging_an_adapter(root, adapted, idle):
    said, logged = command(
        "evaluate_offline",
        *(f"--base={root / 'base'}", f"--adapter={root / 'adapted'},{idle}", f"--demos={root / 'dataset'}"),
        *(f"--task={INSTRUCTIONS['reach']}", "--held_out_episodes=1,3", f"--output={root / 'page'}", "--shots=2"),
        *("--stride=3", "--samples=2", "--scratch_steps=1"),
    )
    assert "the ends are idle in demonstration" in logged
    assert "caution: " in said
    assert "has learned from the held-out episode 1" in said
    assert f"caution: {idle} changes nothing here: it predicts what the base alone does" in said
    assert (root / "page" / "index.html").exists()
    rows = [json.loads(line) for line in (root / "page" / "records.jsonl").read_text().splitlines()]
    assert {row["episode"] for row in rows} == {"episode 1", "episode 3"}
    policies = {str(root / "adapted"), str(idle), "base", "scratch", "hold", "mean", "nearest"}
    assert {row["policy"] for row in rows} == policies
    for path in ("config.json", "provenance.jsonl", "report.md", "summary.json", "error_by_step_ahead.png"):
        assert (root / "page" / path).exists(), path
