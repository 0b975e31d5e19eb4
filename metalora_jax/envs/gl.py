"""Chooses an off-screen OpenGL back end for MuJoCo before `mujoco` is imported; raises an error if there is none."""

import ctypes
import os

from absl import logging

_LIBRARIES = {"egl": ("libEGL.so.1",), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
_REMEDY = "install software rendering with: sudo apt-get install -y libosmesa6 libegl1 libegl-mesa0"


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


def choose() -> str:
    """Sets MUJOCO_GL and PYOPENGL_PLATFORM if they are unset, and returns the back end ("osmesa" or "egl").

    A value that the user has set is respected, and checked. OSMesa comes first: it renders the same pixels everywhere,
    which keeps recorded demonstrations and evaluations comparable between machines.

    Raises:
      MissingGL: if the requested library (or, if none is requested, any) cannot be loaded.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted == "glfw":
        return wanted  # a window on a real screen; nothing to check here
    if wanted and wanted not in _LIBRARIES:
        raise MissingGL(f"MUJOCO_GL={wanted!r} is not supported; use one of: osmesa, egl, glfw")
    for backend in [wanted] if wanted else ["osmesa", "egl"]:
        if _loads(_LIBRARIES[backend]):
            os.environ["MUJOCO_GL"] = backend
            if backend == "osmesa" or "PYOPENGL_PLATFORM" not in os.environ:
                os.environ["PYOPENGL_PLATFORM"] = backend
            logging.log_first_n(logging.INFO, "rendering with %s", 1, backend)
            return backend
    raise MissingGL(f"no {' or '.join([wanted] if wanted else ['OSMesa', 'EGL'])} library found; {_REMEDY}")
