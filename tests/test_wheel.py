"""The wheel is enough: everything that a user runs travels in it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases

ROOT = Path(__file__).parents[1]


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
