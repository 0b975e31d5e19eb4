"""The choice of an off-screen renderer, with made-up libraries."""

import os
import re

import pytest

from metalora_jax.envs import gl


@pytest.fixture
def machine(monkeypatch):
    """machine(libraries, **environment): a machine on which only these libraries load."""

    def make(libraries, trouble="", **environment):
        def load(name):
            if not any(library in name for library in libraries):
                raise OSError(f"{name}: cannot open shared object file")

        monkeypatch.setattr(gl.ctypes, "CDLL", load)
        monkeypatch.setattr(gl, "trouble", lambda backend: trouble)
        monkeypatch.setattr(os, "environ", dict(environment))
        return os.environ

    return make


@pytest.mark.parametrize(("libraries", "chosen"), [(["OSMesa", "EGL"], "osmesa"), (["EGL"], "egl")])
def test_osmesa_comes_first(machine, libraries, chosen):
    environment = machine(libraries)
    assert gl.choose() == chosen
    tested = {"METALORA_GL_TESTED": "egl "} if chosen == "egl" else {}
    assert environment == {"MUJOCO_GL": chosen, "PYOPENGL_PLATFORM": chosen, **tested}


def test_the_user_s_choice_stands(machine):
    environment = machine(["OSMesa", "EGL"], MUJOCO_GL="EGL")
    assert gl.choose() == environment["MUJOCO_GL"] == "egl"


def test_mujoco_and_pyopengl_use_one_back_end(machine):
    environment = machine(["EGL"], PYOPENGL_PLATFORM="nonsense")
    assert gl.choose() == environment["PYOPENGL_PLATFORM"] == "egl"


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


def test_a_library_that_renders_nothing_is_none(machine):
    environment = machine(["EGL"], trouble="EGL is installed but cannot render here; install")
    with pytest.raises(gl.MissingGL, match="EGL is installed but cannot render here; install"):
        gl.choose()
    assert environment == {}


def test_workers_do_not_try_again(machine):
    machine(["EGL"], trouble="none", METALORA_GL_TESTED="egl 0", MUJOCO_EGL_DEVICE_ID="0")
    assert gl.choose() == "egl"


@pytest.mark.parametrize(
    ("code", "environment", "said"),
    [
        (0, {}, "^$"),
        (3, {}, "^$"),  # MuJoCo is not installed: nothing to say about it here
        (4, {}, "EGL renders black frames; install software rendering"),
        (1, {}, "EGL is installed but cannot render here, it may lack a driver; install software rendering"),
        (1, {"MUJOCO_EGL_DEVICE_ID": "7"}, "EGL cannot use MUJOCO_EGL_DEVICE_ID='7'; unset it, or give the number"),
    ],
)
def test_a_frame_is_rendered_in_a_fresh_process(monkeypatch, code, environment, said):
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gl, "_FRAME", f"import os, sys; assert os.environ['MUJOCO_GL'] == 'egl'; sys.exit({code})")
    assert re.search(said, gl.trouble("egl"))


def test_a_slow_machine_is_not_told_to_install_what_it_has(monkeypatch):
    monkeypatch.setattr(gl, "_FRAME", "import time; time.sleep(60)")
    said = gl.trouble("egl", seconds=0.2)
    assert said.startswith("EGL is installed but did not answer within 0.2 s: the machine may be busy")
    assert "apt-get" not in said


@pytest.mark.metaworld
def test_a_bad_device_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    if gl._loads(gl._LIBRARIES["egl"]):
        assert gl.trouble("egl").startswith("EGL cannot use MUJOCO_EGL_DEVICE_ID='99'; unset it")
