"""The wheel is enough: everything that a user runs travels in it, and runs from it, away from any clone."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from tests import own_robot
from tests.child_processes import COMPILED_ONCE

ROOT = Path(__file__).parents[1]
# What makes the page's training as short as it can be.
SMALL = ("outer.steps=2", "meta.inner_steps=1", "batch.meta_batch=1", "batch.noise_draws=1")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*words, f"--wheel-dir={folder}", str(ROOT)], check=True, capture_output=True)
    [built] = folder.iterdir()
    return built


def test_it_holds_the_base_the_adapter_and_the_recipes(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    for folder in (bases.NANO, adapter.NANO):
        assert {str(path.relative_to(ROOT)) for path in folder.iterdir()} <= packed
    recipes = [path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*") if path.suffix in (".py", ".json")]
    assert {f"metalora_jax/{path}" for path in recipes} <= packed
    assert not [name for name in packed if not name.startswith("metalora_jax")]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The script `metalora` of an environment that has the wheel, and sees this one's packages, but no clone."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    words = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*words, str(wheel)], check=True, capture_output=True)
    [site] = (folder / "lib").glob("python*/site-packages")
    # A folder on the path is no site folder: the .pth files in it, such as that of an editable install, have no effect.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "metalora"


def run(script: Path, *words: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | COMPILED_ONCE
    done = subprocess.run([script, *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"metalora {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parquet
def test_every_step_of_the_page_runs_from_it(installed, tmp_path):
    """Data, base, meta-training, adapting, judging, export: as the page says, on made-up data of a small SmolVLA."""
    tasks = ("pick up the cube", "put the cube in the box")
    own_robot.write(tmp_path / "my_dataset", own_robot.SO100, tasks, 4)
    own_robot.write(tmp_path / "my_new_task", own_robot.SO100, ("put the cup on the tray",), 4)
    policy = own_robot.write_policy(tmp_path / "policy")
    where = run(installed.with_name("python"), "-c", "import metalora_jax; print(metalora_jax.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parents[1])
    said = {}
    for _, command, *flags in own_robot.commands():
        words = [word.replace(own_robot.POLICY, str(policy)) for word in flags]
        if command == "few_shot" or any(name in word for word in words for name in ("deployments", "aloha", "arm_")):
            continue  # further trainings; tests/test_own_robot.py holds them against recipes and flags
        if command == "meta_train":
            words = [word.replace("=own_robot", "=own_robot:head") for word in words]
            words += [f"--config.{field}" for field in SMALL]
        if command == "doctor":
            words += ["--fail_on=never"]  # four episodes in so few colours are no sound dataset
        said[command] = run(installed, command, *words, cwd=tmp_path)
    assert "base:        runs/base" in said["convert"]
    assert "best on what validation keeps out: runs/meta/best" in said["meta_train"]
    assert "On episode 3, held out: the adapted policy" in said["adapt"]
    assert "Adapter runs/cup" in said["evaluate_offline"]
    assert "3, 75 frames" in said["adapt"]
    assert (tmp_path / "runs/cup_policy/model.safetensors").stat().st_size > 100_000
    assert (tmp_path / "runs/doctor/index.html").exists()
    assert len(bases.load(tmp_path / "runs/cup_policy").statistics.action_mean) == 6
