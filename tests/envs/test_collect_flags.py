"""Short ways to ask for demonstrations on the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.envs import collect as recorder
from metalora_jax.envs.collect import RecordingJob
from tests.tiny_base import make_demos

ROOT = Path(__file__).parents[2]


def collect(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "experiments/collect.py", "--print_config", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(noise=0.3), r"was recorded with noise 0\.0, the config has 0\.3; remove it"),
        (dict(image_size=77), r"has pictures of \d+ px, the config has 77; remove it"),
        (dict(first_seed=9), "was recorded from seed 5, the config has 9; remove it"),
    ],
)
def test_a_file_of_other_settings_is_not_taken_as_finished(tmp_path, change, message):
    path = tmp_path / "drawer-open_demo.hdf5"
    libero_hdf5.write(path, make_demos("reach"), ("agentview",), "drawer-open", {"seeds": [5, 7], "noise": 0.0})
    job = RecordingJob("drawer-open", path, 4, 5, 0.0, "metaworld", make_demos("reach")[0].images.shape[2])
    assert list(recorder.collect([job], workers=1)) == []  # all of it is there
    with pytest.raises(ValueError, match=message):
        list(recorder.collect([job._replace(**change)], workers=1))
    with pytest.raises(ValueError, match="two parts record"):
        list(recorder.collect([job, job], workers=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(parts={}), "the config has no `parts`: nothing would be recorded"),
        (dict(parts={"clean": dict(demos=0, first_seed=0, noise=0.0, tasks=("a",))}), r"parts\.clean\.demos is 0"),
        (dict(workers=0), r"config\.workers is 0; it must be positive"),
    ],
)
def test_nothing_to_record_is_refused(change, message):
    part = dict(demos=1, first_seed=0, noise=0.0, tasks=("drawer-open",))
    fields = dict(directory="runs", world="metaworld", image_size=64, workers=1, parts={"clean": part})
    assert len(recorder.Collection.from_config(fields).jobs()) == 1
    with pytest.raises(ValueError, match=message):
        recorder.Collection.from_config(fields | change)


def test_one_task_is_recorded_alone():
    said = collect("--task=drawer-open", "--demos=2").stdout
    assert 'tasks: ["drawer-open"]' in said
    assert "demos: 2" in said
    assert "noisy" not in said


def test_another_command_s_recipe_is_refused_in_a_line():
    said = collect("--config=configs/quickstart.py")
    assert said.returncode == 1
    assert said.stderr.startswith("error: no field config.")
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize("flags", [(), ("--task=drawer-open", "--suite=libero_object")])
def test_exactly_one_source_is_named(flags):
    said = collect(*flags)
    assert said.returncode != 0
    assert "set exactly one of --task=drawer-open, --suite=libero_object and --config" in said.stderr
