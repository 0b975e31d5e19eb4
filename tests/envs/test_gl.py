"""The choice of an off-screen renderer, with made-up libraries."""

import os

import pytest

from metalora_jax.envs import gl


@pytest.fixture
def machine(monkeypatch):
    """machine(libraries, **environment): a machine on which only these libraries load."""

    def make(libraries, **environment):
        def load(name):
            if not any(library in name for library in libraries):
                raise OSError(f"{name}: cannot open shared object file")

        monkeypatch.setattr(gl.ctypes, "CDLL", load)
        monkeypatch.setattr(os, "environ", dict(environment))
        return os.environ

    return make


@pytest.mark.parametrize(("libraries", "chosen"), [(["OSMesa", "EGL"], "osmesa"), (["EGL"], "egl")])
def test_osmesa_comes_first(machine, libraries, chosen):
    environment = machine(libraries)
    assert gl.choose() == chosen
    assert environment == {"MUJOCO_GL": chosen, "PYOPENGL_PLATFORM": chosen}


def test_the_user_s_choice_stands(machine):
    environment = machine(["OSMesa", "EGL"], MUJOCO_GL="EGL")
    assert gl.choose() == environment["MUJOCO_GL"] == "egl"


def test_a_window_needs_no_library(machine):
    machine([], MUJOCO_GL="glfw")
    assert gl.choose() == "glfw"


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"MUJOCO_GL": "vulkan"}, "MUJOCO_GL='vulkan' is not supported; use one of: osmesa, egl, glfw"),
        ({"MUJOCO_GL": "osmesa"}, "no osmesa library found; install software rendering with: sudo apt-get"),
        ({}, "no OSMesa or EGL library found; install"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(machine, environment, complaint):
    machine([] if environment.get("MUJOCO_GL") != "osmesa" else ["EGL"], **environment)
    with pytest.raises(gl.MissingGL, match=complaint):
        gl.choose()
