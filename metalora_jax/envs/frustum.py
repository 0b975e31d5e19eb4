"""What a camera of a MuJoCo scene cannot see: MuJoCo draws it nevertheless, which is slow in software rendering."""

from typing import Any

import numpy as np


def out_of_view(model: Any, data: Any, camera: int) -> np.ndarray:
    """Geometries (ngeom,) bool that lie entirely outside a square picture of `camera`, by their bounding spheres.

    Leaving them out changes no pixel as long as nothing casts shadows or reflects. Planes, which have no bounding
    sphere, are never left out.

    Args:
      model, data: of MuJoCo; positions as of the last forward pass.
      camera: its id.
    """
    away = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)  # it looks along -z
    radius = np.where(model.geom_rbound > 0, model.geom_rbound, np.inf)
    half = np.radians(model.cam_fovy[camera]) / 2
    aside = np.abs(away[:, :2]).max(axis=1)
    return (away[:, 2] > radius) | (aside * np.cos(half) + away[:, 2] * np.sin(half) > radius)
