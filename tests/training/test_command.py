"""The binaries' common start, as a user meets it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BINARIES = [path for path in sorted(ROOT.glob("experiments/*.py")) if "DEFINE_config_file" in path.read_text()]

SMALL = """
from absl import flags
from ml_collections import config_flags
from metalora_jax.training import command
config_flags.DEFINE_config_file("config", lock_config=True)
flags.DEFINE_string("workdir", None, "Where.", required=True)
command.run(lambda _: None)
"""


def run(folder: Path, binary: str, *flags: str) -> subprocess.CompletedProcess:
    words = [sys.executable, str(ROOT / "experiments" / binary), *flags]
    return subprocess.run(words, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_print_config_shows_overrides_and_does_nothing_else(tmp_path):
    recipe = f"--config={ROOT}/configs/libero_small.py:across"  # by its whole path, from another directory
    done = run(tmp_path, "few_shot.py", recipe, "--config.arms.meta.outer.steps=7", "--print_config")
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert shown["arms"]["meta"]["outer"]["steps"] == 7
    assert shown["base"] == "runs/libero/across/base"
    assert shown["control"]["ensemble"] is None
    assert shown["protocol"]["shots"] == [1, 3, 5]
    assert list(tmp_path.iterdir()) == []


def test_print_config_shows_what_other_flags_make_of_it(tmp_path):
    done = run(tmp_path, "collect.py", "--suite=libero_goal", "--demos=3", "--print_config")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["parts"]["clean"]["demos"] == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--print_config"], "error: no config to print"),
        (
            ["--print_config", f"--config={ROOT}/configs/quickstart.py", "--config.seed=a"],
            "error: flag --config.seed=a",
        ),
        ([f"--config={ROOT}/configs/quickstart.py"], "error: flag --workdir=None"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, flags, complaint):
    (tmp_path / "small.py").write_text(SMALL)
    done = run(tmp_path, str(tmp_path / "small.py"), *flags)
    assert done.returncode == 1
    assert done.stderr.startswith(complaint)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("path", BINARIES, ids=lambda path: path.stem)
def test_every_binary_with_a_config_can_print_it(path):
    """`command.run` gives them the flag."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [call for call in calls if ast.unparse(call.func) == "command.run"]
