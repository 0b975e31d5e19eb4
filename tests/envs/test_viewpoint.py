"""LIBERO-plus's camera, to the last of its four decimals."""

import numpy as np
import pytest

from metalora_jax.envs import viewpoint

TABLETOP = (0.6586131746834771, 0.0, 1.6103500240372423), (0.63801777, 0.30484974, 0.30484986, 0.63801777)
FLOOR = (0.8965773716836134, 5.216182733499864e-07, 0.65), (0.61821669, 0.34323075, 0.34323144, 0.61821771)
NEAR = (0.6586, 0.0, 1.6104)  # the table's, rounded


@pytest.mark.parametrize(
    ("nominal", "view", "place", "attitude"),
    [
        (TABLETOP, (30, 15, 1, 0, 0), (0.3693, 0.2132, 1.7532), (0.4754, 0.1548, 0.2682, 0.8235)),
        (TABLETOP, (-60, 15, 1, 0, 0), (0.2132, -0.3693, 1.7532), (0.9184, 0.2991, 0.0802, 0.2461)),
        (TABLETOP, (0, 0, 1.5, 0, 0), (0.9879, 0, 2.0156), None),
        (TABLETOP, viewpoint.PLAIN, NEAR, None),
        (TABLETOP, (0, 0, 1, 4, -6), NEAR, (0.598, 0.3281, 0.3471, 0.6436)),
        (FLOOR, (30, 15, 1, 0, 0), (0.7837, 0.4524, 0.8872), (0.4651, 0.1836, 0.3180, 0.8055)),
        (FLOOR, (0, 0, 1.5, 0, 0), (1.3449, 0, 0.575), None),
    ],
)
def test_a_view_is_libero_pluss(nominal, view, place, attitude):
    moved, turned = viewpoint.moved(*nominal, view)
    np.testing.assert_allclose(moved, place, atol=1e-12)
    np.testing.assert_allclose(turned, np.round(nominal[1], 4) if attitude is None else attitude, atol=1e-12)


def test_an_orbit_keeps_the_distance_and_what_is_seen_in_the_middle():
    def ahead(place, attitude):
        """The pivot, in the camera's own axes."""
        w, x, y, z = attitude / np.linalg.norm(attitude)
        back = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
        return np.linalg.norm(place - viewpoint.PIVOT), back @ (place - viewpoint.PIVOT)

    plain = ahead(*map(np.array, TABLETOP))
    for view in ((75, 0, 1, 0, 0), (-40, 15, 1, 0, 0)):
        np.testing.assert_allclose(ahead(*viewpoint.moved(*TABLETOP, view)), plain, atol=3e-4)
