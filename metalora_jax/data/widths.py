"""Widths held against each other before anything is computed: NumPy and JAX would repeat one number for many."""

from collections.abc import Mapping, Sequence

from metalora_jax.data.normalize import Statistics
from metalora_jax.types import Demo, Sizes
from metalora_jax.words import plural


def check(demos: Mapping[str, Sequence[Demo]], statistics: Statistics, sizes: Sizes) -> None:
    """Do demonstrations fit the policy that they are for, and its statistics?

    Raises:
      ValueError: a width differs; one line with both sides and the remedy.
    """
    for task, recorded in demos.items():
        for number, demo in enumerate(recorded):
            who = f"demonstration {number} of {task!r}" if len(recorded) > 1 else f"the demonstration of {task!r}"
            against(
                who,
                {"state": demo.state.shape[1], "action": demo.actions.shape[1], "camera": demo.images.shape[1]},
                statistics,
                sizes,
                "take demonstrations of the robot and the cameras that the base is for (--cameras, --keys), or make a "
                "base with statistics of this robot (metalora convert)",
            )


def against(who: str, widths: Mapping[str, int], statistics: Statistics, sizes: Sizes, remedy: str) -> None:
    """Holds widths against a base's.

    Args:
      who: what has them, for the message.
      widths: "state" and "action" -> dimensions, "camera" -> how many.
      statistics: of the base.
      sizes: of its policy.
      remedy: how to end the message.

    Raises:
      ValueError: state or action differ, or there are more cameras than the policy takes.
    """
    wrong = []
    for kind, verb, known in (
        ("state", "state has", statistics.state_mean),
        ("action", "actions have", statistics.action_mean),
    ):
        if widths[kind] != len(known):
            wrong.append(f"{verb} {plural(widths[kind], 'dimension')}, the base's {len(known)}")
    if widths["camera"] > sizes.cameras:
        wrong.append(f"there are {plural(widths['camera'], 'camera')}, the base takes {sizes.cameras}")
    if wrong:
        raise ValueError(f"{who}: {', and '.join(wrong)}; {remedy}")


def fewer_cameras(who: str, there: int, sizes: Sizes) -> str:
    """What to say where a policy gets fewer cameras than it was made for; "" where it does not."""
    if not 0 < there < sizes.cameras:
        return ""
    return (
        f"{who} has {plural(there, 'camera')}, the policy takes up to {sizes.cameras}: it sees the others as absent; "
        "check that it was trained that way"
    )
