"""What lies beside, behind and before a camera."""

from types import SimpleNamespace

import numpy as np
import pytest

from metalora_jax.envs.frustum import out_of_view

# A camera at (0, 0, 1) that looks down: its own axes are the world's. It sees 45 degrees to each side.
CAMERA = SimpleNamespace(cam_xpos=np.array([[0.0, 0.0, 1.0]]), cam_xmat=np.eye(3).reshape(1, 9))


@pytest.mark.parametrize(
    ("place", "radius", "hidden"),
    [
        ((0.0, 0.0, 0.0), 0.1, False),
        ((0.9, 0.0, 0.0), 0.0001, False),
        ((1.2, 0.0, 0.0), 0.1, True),
        ((1.2, 0.0, 0.0), 0.15, False),  # its edge is 0.14 away
        ((0.0, -1.2, 0.0), 0.1, True),
        ((0.0, 0.0, 1.2), 0.1, True),  # behind it
        ((0.0, 0.0, 1.2), 0.3, False),
        ((9.0, 0.0, 0.0), 0.0, False),  # a plane is everywhere
    ],
)
def test_spheres_by_their_place_and_size(place, radius, hidden):
    model = SimpleNamespace(geom_rbound=np.array([radius]), cam_fovy=np.array([90.0]))
    data = SimpleNamespace(geom_xpos=np.array([place]), **vars(CAMERA))
    assert out_of_view(model, data, 0).tolist() == [hidden]
