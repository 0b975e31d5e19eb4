"""`import metalora_jax as ml`: quick to import, complete, and as the README shows it."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import metalora_jax as ml
from metalora_jax import types as ml_types
from metalora_jax.data import libero_hdf5

ROOT = Path(__file__).parents[1]


def example() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return found


def test_every_name_is_there_and_an_unknown_one_is_refused():
    assert len(ml.__all__) <= 15
    assert all(getattr(ml, name) is not None for name in ml.__all__)
    assert set(ml.__all__) <= set(dir(ml))
    with pytest.raises(AttributeError, match="has no attribute 'load_bass'; it has: Agent"):
        ml.load_bass  # noqa: B018


def test_importing_is_cheap():
    code = "import sys, metalora_jax; print([name for name in ('jax', 'numpy', 'flax') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    code = example()
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    base = ml.load_base()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 1, 64, 64, 3), dtype=np.uint8)
    state, actions = rng.uniform(-1, 1, (2, 12, 4)).astype(np.float32)
    demo = ml_types.Demo("open a drawer", images, state, actions)
    libero_hdf5.write(tmp_path / "runs/demos/clean/drawer-open_demo.hdf5", [demo], ("agentview",), "drawer-open", {})
    Path("example.py").write_text(code)
    names = runpy.run_path("example.py")
    assert names["chunk"].shape == (base.sizes.chunk, 4)
    again = ml.load_adapter("runs/drawer", base)
    agent = ml.Agent(base, again.learner)
    seen = names["seen"]
    np.testing.assert_allclose(
        agent.act(seen.images[0], seen.state[0], seen.instruction, jax.random.key(0)), names["chunk"], atol=1e-5
    )


def test_a_folder_of_the_clone_s_name_beside_a_script_does_not_shadow_the_package(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "metalora_jax" / "docs").mkdir(parents=True)
    (tmp_path / "mine.py").write_text("import metalora_jax\nprint(metalora_jax.__version__)\n")
    done = subprocess.run([sys.executable, str(tmp_path / "mine.py")], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == ml.__version__, done.stderr
