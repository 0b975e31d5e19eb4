"""What a condition does to a MuJoCo model: cameras, lights, colours, textures, contact, masses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metalora_jax.envs import viewpoint
from metalora_jax.envs.conditions import Condition

_RGB = 1  # mjTEXROLE_RGB: the column of `mat_texid` that colours a surface
_SKYBOX = 2  # mjTEXTURE_SKYBOX, which no surface can wear


class ShiftedModel:
    """A compiled model (`mujoco.MjModel`) that conditions change in place, each relative to the model as built."""

    def __init__(self, model: Any, cameras: Mapping[str, int]):
        """Stores the current state of `model`. `cameras` are the policy's: name -> id."""
        self._model, self._cameras = model, dict(cameras)
        head = model.vis.headlight
        self._lights = (model.light_ambient, model.light_diffuse, head.ambient, head.diffuse)
        dynamics = (model.geom_friction, model.body_mass, model.body_inertia, model.dof_damping)
        arrays = (
            *self._lights,
            model.cam_pos,
            model.cam_quat,
            model.mat_rgba,
            model.geom_rgba,
            model.mat_texid,
            *dynamics,
        )
        self._as_built = [(array, array.copy()) for array in arrays]

    def shift(self, condition: Condition) -> bool:
        """Applies `condition` to the model, whatever applied before; the caller updates derived quantities.

        Returns:
          Whether the renderer must be rebuilt: it copies the assignment of textures to surfaces when it is built.
        """
        worn = self._model.mat_texid.copy()
        for array, value in self._as_built:
            array[:] = value
        model = self._model
        if condition.view != viewpoint.PLAIN and viewpoint.CAMERA in self._cameras:
            camera = self._cameras[viewpoint.CAMERA]
            place, attitude = viewpoint.moved(model.cam_pos[camera], model.cam_quat[camera], condition.view)
            model.cam_pos[camera], model.cam_quat[camera] = place, attitude / np.linalg.norm(attitude)
        for camera in (self._cameras[name] for name in self._cameras if name in (condition.moved or self._cameras)):
            model.cam_pos[camera] += condition.camera
            model.cam_quat[camera] = _turned(model.cam_quat[camera], condition.camera_turn)
        for light in self._lights:
            light *= condition.light
        free = np.isin(model.body_rootid, model.jnt_bodyid[model.jnt_type == 0])  # objects that may go anywhere
        if condition.colour:
            self._recolour(condition)
        if condition.texture:
            self._exchange_textures(condition, free)
        model.geom_friction[:, 0] *= condition.friction
        model.body_mass[free] *= condition.mass
        model.body_inertia[free] *= condition.mass
        model.dof_damping *= condition.damping
        return not np.array_equal(model.mat_texid, worn)

    def _recolour(self, condition: Condition) -> None:
        """Multiplies the colour of each material, and of what has none, body by body; it tints textures, too."""
        model, rng = self._model, np.random.default_rng(condition.colour_seed)
        materials = rng.uniform(1.0 - condition.colour, 1.0, (model.nmat, 3))
        bodies = rng.uniform(1.0 - condition.colour, 1.0, (model.nbody, 3))
        model.mat_rgba[:, :3] *= materials
        # MuJoCo takes a geometry's own colour, and a material's where that was left at its default.
        own = (model.geom_matid < 0) | (model.geom_rgba != 0.5)[:, :3].any(-1)
        model.geom_rgba[own, :3] *= bodies[model.geom_bodyid[own]]

    def _exchange_textures(self, condition: Condition, free: np.ndarray) -> None:
        """Gives a share of the materials another texture of the scene. `free` (bodies,) are loose objects."""
        model, rng = self._model, np.random.default_rng(condition.texture_seed)
        used, loose = model.geom_matid >= 0, free[model.geom_bodyid]
        fixed = np.setdiff1d(model.geom_matid[used & ~loose], model.geom_matid[used & loose])
        worn = model.mat_texid[:, _RGB]
        there = np.flatnonzero(model.tex_type != _SKYBOX)
        for material in fixed[worn[fixed] >= 0]:
            others, drawn = there[there != worn[material]], rng.uniform(size=2)
            if drawn[0] < condition.texture and len(others):
                worn[material] = others[int(drawn[1] * len(others))]


def _turned(quaternion: np.ndarray, turn: Sequence[float]) -> np.ndarray:
    """A rotation (w, x, y, z) followed by `turn` (3,) [rad], an axis-angle in the turned frame's axes."""
    angle = float(np.linalg.norm(turn))
    if angle == 0.0:
        return quaternion.copy()
    w, v = quaternion[0], quaternion[1:]
    cos, axis = np.cos(angle / 2), np.sin(angle / 2) * np.asarray(turn) / angle
    return np.concatenate([[w * cos - v @ axis], w * axis + cos * v + np.cross(v, axis)])
