"""The notebooks run from their first cell to their last, at nano size."""

import json
import re
import shutil
from pathlib import Path
from runpy import run_path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def program_of(notebook: str, smaller: dict[str, str]) -> str:
    """The code of a notebook without its shell lines, with other values of some of its constants."""
    cells = json.loads((ROOT / "experiments/notebooks" / notebook).read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    program = "\n".join(source for source in sources if not re.search(r"^[!%]", source, re.MULTILINE))
    for name, value in smaller.items():
        program, found = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value}  ", program, flags=re.MULTILINE)
        assert found == 1
    return program


@pytest.mark.parquet
def test_own_robot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_robot.py").write_text(program_of("own_robot.ipynb", {"OUTER_STEPS": "2", "STEPS": "2"}))
    names = run_path(str(tmp_path / "own_robot.py"))
    assert {name: error.shape for name, error in names["errors"].items()} == dict.fromkeys(
        ("base", "adapted", "mean action"), (4,)
    )
    assert np.abs(names["errors"]["adapted"] - names["errors"]["base"]).max() > 1e-4
    assert (tmp_path / "runs/own_robot/meta/adapter").is_dir()


@pytest.mark.metaworld
def test_few_shot_smolvla(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    matplotlib.use("agg")
    smaller = {"TASKS": '("door-open", "window-open")', "DEMOS": "2", "OUTER_STEPS": "2", "STEPS": "(3,)"}
    program = program_of("few_shot_smolvla.ipynb", smaller)
    (tmp_path / "few_shot_smolvla.py").write_text(program)
    names = run_path(str(tmp_path / "few_shot_smolvla.py"))
    assert set(names["curve"]) == {0, 3}
    assert all(0 < loss < 100 for loss in names["curve"].values())
    assert names["axes"].lines
    assert {name: found.shape for name, found in names["commands"].items()} == {
        name: names["demo"].actions[::5].shape for name in ("frozen base", "adapted")
    }
    assert np.abs(names["commands"]["adapted"] - names["commands"]["frozen base"]).max() > 1e-3
    plt.close("all")
