"""Short ways to ask for demonstrations on the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def collect(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "experiments/collect.py", "--print_config", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_one_task_is_recorded_alone():
    said = collect("--task=drawer-open", "--demos=2").stdout
    assert 'tasks: ["drawer-open"]' in said
    assert "demos: 2" in said
    assert "noisy" not in said


@pytest.mark.parametrize("flags", [(), ("--task=drawer-open", "--suite=libero_object")])
def test_exactly_one_source_is_named(flags):
    said = collect(*flags)
    assert said.returncode != 0
    assert "set exactly one of --task=drawer-open, --suite=libero_object and --config" in said.stderr
