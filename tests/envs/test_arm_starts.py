"""LIBERO-plus's starts of the arm, to the last of its eight decimals."""

import numpy as np
import pytest

from metalora_jax.envs import arm_starts

PUBLISHED = {
    1: (0.02097405, -0.16687568, 0.02734903, -2.38028663, -0.00988726, 2.21686563, 0.85208136),
    101: (-0.03632438, -0.08814102, -0.04894533, -2.54247241, -0.10817123, 2.26886425, 0.69642025),
    401: (0.02700254, 0.23452894, 0.05138039, -2.59207806, -0.01402227, 1.96584821, 0.77355927),
    499: (0.29805135, -0.03152291, -0.18008656, -2.75577777, -0.06369642, 2.1851751, 0.88204782),
    500: (-0.11827633, -0.04802337, 0.42756544, -2.2644154, -0.01062499, 2.18628575, 0.7065925),
}


@pytest.mark.parametrize("number", PUBLISHED)
def test_a_start_is_libero_pluss(number):
    np.testing.assert_array_equal(arm_starts.pose(number), PUBLISHED[number])


def test_every_hundred_starts_are_farther_away():
    away = [np.linalg.norm(arm_starts.pose(number) - arm_starts.NOMINAL) for number in range(1, 501)]
    np.testing.assert_allclose(away, np.repeat([0.1, 0.2, 0.3, 0.4, 0.5], 100), atol=1e-7)


def test_there_are_no_others():
    for number in (0, 501):
        with pytest.raises(ValueError, match=f"arm_start {number}: LIBERO-plus has the starts 1 to 500"):
            arm_starts.pose(number)
