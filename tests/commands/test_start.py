"""The binaries' common start, as a user meets it."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metalora_jax.commands import main, recipes
from metalora_jax.commands.main import summaries
from metalora_jax.machine import interrupts

ROOT = Path(__file__).parents[2]

SMALL = """
from absl import flags
from ml_collections import config_flags
from metalora_jax.commands import start
config_flags.DEFINE_config_file("config", lock_config=True)
flags.DEFINE_string("workdir", None, "Where.", required=True)
start.run(lambda _: None)
"""


def test_a_polite_kill_ends_as_an_interrupt_and_a_second_one_at_once():
    before = signal.signal(signal.SIGTERM, interrupts._terminated)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_ctrl_c_while_modules_are_imported_says_nothing(tmp_path):
    code = """import signal
from metalora_jax.machine import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever these tests were started with
with interrupts.end_at_once():
    {}"""
    done = start("-c", code.format("signal.raise_signal(signal.SIGINT)"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    done = start("-c", code.format("pass") + "\nsignal.raise_signal(signal.SIGINT)", cwd=tmp_path)
    assert done.stderr.endswith("KeyboardInterrupt\n")


@pytest.fixture
def interruptible():
    """Ctrl-C reaches this process, whatever it was started with: in the background of a shell it does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_what_cannot_be_undone_half_way(interruptible):
    done = []

    def interrupted():
        with interrupts.held():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


HOLDS = """
import atexit, sys
from metalora_jax.commands import start
class Renderer:
    def __del__(self):
        print("closed")
def main(_):
    renderer = Renderer()
    raise {}
atexit.register(print, "OpenGL is shut down")
start.run(main)
"""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "ValueError('no such task')"])
def test_what_an_error_breaks_off_is_freed_before_the_program_ends(tmp_path, error):
    done = start("-c", HOLDS.format(error), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "closed\nOpenGL is shut down\n")


COLLECTS = """
import gc, signal, time
from metalora_jax.commands import start
def interrupt(phase, info):
    gc.callbacks.remove(interrupt)
    signal.raise_signal(signal.SIGINT)
def main(_):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.callbacks.append(interrupt)
    gc.collect()
    time.sleep(60)
start.run(main)
"""


def test_an_interrupt_while_garbage_is_collected_is_not_lost(tmp_path):
    done = start("-c", COLLECTS, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["interrupted; finished work is kept, and the same command goes on from there"]


DEFAULT = """
from absl import flags
from ml_collections import config_flags
from metalora_jax.commands import start
config_flags.DEFINE_config_file("config", None, lock_config=True)
start.run(lambda _: print(flags.FLAGS.config.seed), default_config="quickstart")
"""


def test_a_default_recipe_is_overridden_and_what_it_refuses_is_one_line(tmp_path):
    assert start("-c", DEFAULT, "--config.seed=7", cwd=tmp_path).stdout == "7\n"
    said = start("-c", DEFAULT, "--config.sead=7", cwd=tmp_path).stderr.strip()
    assert said == "error: --config: no field 'sead'; did you mean seed?  (--print_config shows the fields)"


def test_what_a_recipe_refuses_is_said_without_the_name_of_the_exception(tmp_path):
    said = start("-c", DEFAULT, "--config=own_robot_few_shot", cwd=tmp_path).stderr.strip()
    wanted = "name the dataset after a colon: --config=own_robot_few_shot:my_dataset"
    assert said == f"error: {wanted}  (--help lists the flags)"


def start(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)


def run(folder: Path, binary: str, *flags: str) -> subprocess.CompletedProcess:
    return start(str(ROOT / "experiments" / binary), *flags, cwd=folder)


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


def test_a_section_is_set_to_none(tmp_path):
    recipe = f"--config={ROOT}/configs/smolvla.py"
    done = run(
        tmp_path, "meta_train.py", recipe, "--config.conditions=None", "--config.meta.head=None", "--print_config"
    )
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert shown["conditions"] is None
    assert shown["symmetries"]["world"] == "metaworld"


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
        (
            ["--workdir=w", f"--config={ROOT}/configs/smolvla.py", "--config.condition=None"],
            "error: --config: no field",
        ),
        (
            ["--workdir=w", f"--config={ROOT}/configs/smolvla.py", "--config.batch.shot=1"],
            "error: --config: no field 'shot'; did you mean shots?",
        ),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, flags, complaint):
    (tmp_path / "small.py").write_text(SMALL)
    done = run(tmp_path, str(tmp_path / "small.py"), *flags)
    assert done.returncode == 1
    assert done.stderr.startswith(complaint)
    assert len(done.stderr.splitlines()) == 1


def test_a_recipe_by_default_is_found_from_any_folder(tmp_path):
    done = run(tmp_path, "scene.py", "--config.scene.steps=4", "--print_config")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["scene"]["steps"] == 4


def test_every_command_with_a_config_can_print_it():
    """`start.launch` and `start.run` give them the flag; each runs through one of them."""
    for path in sorted(ROOT.glob("experiments/*.py")):
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert {"start.launch", "start.run"} & set(calls), path.name


def test_each_command_has_its_binary_and_its_line():
    lines = summaries()
    assert set(lines) == {path.stem for path in ROOT.glob("experiments/*.py") if "launch" in path.read_text()}
    assert all(line.endswith(".") for line in lines.values())


@pytest.mark.parametrize(
    ("words", "complaint"), [(["adpt"], "did you mean adapt?"), (["zzz"], "there are ablate, adapt")]
)
def test_a_mistyped_command_is_one_line(monkeypatch, words, complaint):
    monkeypatch.setattr(sys, "argv", ["metalora", *words])
    with pytest.raises(SystemExit, match=re.escape(complaint)):
        main.main()


def test_the_console_script_shows_a_commands_own_flags(tmp_path):
    words = [sys.executable, "-m", "metalora_jax.commands", "adapt", "--help"]
    done = subprocess.run(
        words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "--demos:" in done.stdout
    assert "Adapts a policy" in done.stdout


def test_recipes_by_name(tmp_path):
    path = str(ROOT / "configs" / "libero_small.py")
    assert recipes.resolve(["x", "--config=libero_small:across", "--config.seed=1"])[1] == f"--config={path}:across"
    assert recipes.resolve(["x", "--config", "libero_small"])[2] == path
    assert recipes.resolve(["x", "--config=mine.py", "--config", "a/b"]) == ["x", "--config=mine.py", "--config", "a/b"]
    done = run(tmp_path, "few_shot.py", "--config=libero_smal", "--print_config")
    assert done.stderr.startswith("error: --config: no recipe is called 'libero_smal'; did you mean libero_small?")
    assert len(done.stderr.splitlines()) == 1
