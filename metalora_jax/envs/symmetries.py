"""Poses of each world's robot and cameras, so that demonstrations can be mirrored and turned where that is valid."""

from collections.abc import Sequence

from metalora_jax.data.symmetry import Eye, Robot, Symmetry, symmetry
from metalora_jax.envs.world import WORLDS

ROBOTS = {
    # The arm's base is at the origin and looks along y. agentview looks across the table from a corner: the mirror
    # image of its picture does not show a mirrored table, so it admits no symmetry.
    "metaworld": Robot(
        name="Meta-World",
        mirror=0,
        centre=(0.0, 0.5),
        turns=False,
        fingers=1,
        eyes={
            "agentview": Eye((0.75, 0.075, 0.7), (0.5499, 0.8332, -0.0584), (-0.3762, 0.3095, 0.8733)),
            "topview": Eye((0.0, 0.5, 1.5), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
        },
    ),
    # The arm looks along x. Every arena has its agentview in the plane y = 0, opposite the arm, at a height of its own;
    # the tabletop's is given here. In the hand's frame the fingers open along y, and the camera sits at y = 0.
    "libero": Robot(
        name="LIBERO",
        mirror=1,
        centre=(0.0, 0.0),
        turns=True,
        fingers=2,
        eyes={
            "agentview": Eye((0.6586, 0.0, 1.6104), (0.0, 1.0, 0.0), (-0.6283, 0.0, 0.7780)),
            "eye_in_hand": Eye((0.05, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), on_hand=True),
        },
    ),
}
JOINTS = ("so101",)  # told joint positions, for which no symmetry is known here
assert {*ROBOTS, *JOINTS} == set(WORLDS)


def symmetries(world: str, cameras: Sequence[str], names: Sequence[str]) -> tuple[Symmetry, ...]:
    """The symmetries `names` (see `data.symmetry.NAMES`) of a world's demonstrations.

    Raises:
      ValueError: if the world is unknown, or one of `cameras` does not admit one of `names`.
    """
    if world in JOINTS and names:
        raise ValueError(f"symmetries.world {world!r} has joint targets, which cannot be mirrored or turned: name none")
    if world in JOINTS:
        return ()
    if world not in ROBOTS:
        raise ValueError(f"no world named {world!r} in symmetries.world; choose from {', '.join(ROBOTS)}")
    return tuple(symmetry(ROBOTS[world], cameras, name) for name in names)
