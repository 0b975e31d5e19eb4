"""Chooses an off-screen OpenGL back end for MuJoCo before `mujoco` is imported; raises an error if there is none."""

import ctypes
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from absl import logging

from metalora_jax.machine import interrupts

if TYPE_CHECKING:
    import mujoco

_LIBRARIES = {"egl": ("libEGL.so.1",), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
_NAMES = {"egl": "EGL", "osmesa": "OSMesa"}
_REMEDY = "install software rendering with: sudo apt-get install -y libosmesa6 libegl1 libegl-mesa0"


_DEVICE = "MUJOCO_EGL_DEVICE_ID"
_TESTED = "METALORA_GL_TESTED"  # environment variable: what has rendered a frame; worker processes inherit it
_FRAME = """
import sys
try:
    import mujoco
except ImportError as error:
    if error.name == "mujoco":
        sys.exit(3)
    raise
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 2'/><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(data)
sys.exit(0 if renderer.render().any() else 4)
"""


class MissingGL(RuntimeError):
    """There is no OpenGL library that MuJoCo can use for off-screen rendering."""


def _loads(names: tuple[str, ...]) -> bool:
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def trouble(backend: str, seconds: float = 60.0) -> str:
    """Why `backend` renders no frame in a fresh process, with the remedy; "" where it does, or MuJoCo is not installed.

    A fresh process, since a failed attempt leaves MuJoCo unusable, and fills the screen when it ends.
    """
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        done = subprocess.run([sys.executable, "-c", _FRAME], env=environment, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return (
            f"{_NAMES[backend]} is installed but did not answer within {seconds:g} s: the machine may be busy, or the "
            "driver hangs; try again, or choose another renderer, MUJOCO_GL=osmesa or egl"
        )
    if done.returncode in (0, 3):
        return ""
    if done.returncode == 4:
        return f"{_NAMES[backend]} renders black frames; {_REMEDY}"
    if backend == "egl" and os.environ.get(_DEVICE):
        return (
            f"EGL cannot use {_DEVICE}={os.environ[_DEVICE]!r}; unset it, or give the number of a device that is there"
        )
    return f"{_NAMES[backend]} is installed but cannot render here, it may lack a driver; {_REMEDY}"


def choose() -> str:
    """Sets MUJOCO_GL and PYOPENGL_PLATFORM if they are unset, and returns the back end ("osmesa" or "egl").

    A value that the user has set is respected, and checked. OSMesa comes first: it renders the same pixels everywhere,
    which keeps recorded demonstrations and evaluations comparable between machines.

    Raises:
      MissingGL: if the requested library (or, if none is requested, any) cannot be loaded; or it is EGL, which loads
        without a driver, and renders no frame.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted == "glfw":
        return wanted  # a window on a real screen; nothing to check here
    if wanted and wanted not in _LIBRARIES:
        raise MissingGL(f"MUJOCO_GL={wanted!r} is not supported; use one of: osmesa, egl, glfw")
    for backend in [wanted] if wanted else ["osmesa", "egl"]:
        if _loads(_LIBRARIES[backend]):
            if backend == "egl" and (why := _egl_trouble()):
                raise MissingGL(why)
            os.environ["MUJOCO_GL"] = backend
            os.environ["PYOPENGL_PLATFORM"] = backend  # MuJoCo refuses any other
            logging.log_first_n(logging.INFO, "rendering with %s", 1, backend)
            return backend
    raise MissingGL(f"no {' or '.join([wanted] if wanted else ['OSMesa', 'EGL'])} library found; {_REMEDY}")


def renderer(model: Any, size: int) -> "mujoco.Renderer":
    """A renderer of square pictures of `size` [px]. An interrupt waits: what is half-made cannot be closed."""
    import mujoco

    with interrupts.held():
        return mujoco.Renderer(model, size, size)


def _egl_trouble() -> str:
    """`trouble` of EGL, found out once by a program and its workers."""
    known = f"egl {os.environ.get(_DEVICE, '')}"
    if os.environ.get(_TESTED) == known:
        return ""
    why = trouble("egl")
    if not why:
        os.environ[_TESTED] = known
    return why
