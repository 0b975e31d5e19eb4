"""Widths of data, statistics and policy are compared before anything is computed."""

import numpy as np
import pytest

from metalora_jax.data import widths
from metalora_jax.data.frames import gather
from tests.tiny_base import make_base, make_demos


def changed(**fields):
    return [demo._replace(**{name: change(getattr(demo, name)) for name, change in fields.items()}) for demo in make_demos("reach")]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("demos", "complaint"),
    [
        (
            changed(actions=lambda a: a[:, :1]),
            "demonstration 0 of 'reach': actions have 1 dimension, the base's 4; take demon",
        ),
        (changed(actions=lambda a: np.tile(a, 2)), "actions have 8 dimensions, the base's 4; take"),
        (changed(state=lambda s: s[:, :3]), "state has 3 dimensions, the base's 4"),
        (changed(images=lambda i: np.tile(i, (1, 2, 1, 1, 1))), "there are 2 cameras, the base takes 1"),
        (
            changed(state=lambda s: s[:, :1], actions=lambda a: a[:, :1]),
            "state has 1 dimension, .*, and actions have 1 dimension",
        ),
    ],
)
def test_other_widths_are_refused_wherever_demonstrations_meet_a_base(demos, complaint):
    with pytest.raises(ValueError, match=complaint):
        gather({"reach": demos}, make_base().preprocessor)


def test_the_right_ones_pass():
    base = make_base()
    widths.check({"reach": make_demos("reach")}, base.statistics, base.sizes)


def test_fewer_cameras_are_said():
    sizes = make_base().sizes
    assert widths.fewer_cameras("the data", 1, sizes) == ""
    assert "has 1 camera, the policy takes up to 3" in widths.fewer_cameras("the data", 1, sizes._replace(cameras=3))
