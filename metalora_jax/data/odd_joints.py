"""One joint unlike the others: in other units than its command or than the base, or mirrored in some demonstrations."""

from collections.abc import Iterator, Sequence

import numpy as np

from metalora_jax.data import convention, signals
from metalora_jax.data.normalize import Statistics
from metalora_jax.data.units import gripper_dimensions
from metalora_jax.types import Demo
from metalora_jax.words import listed

OTHER_UNIT = 3.0  # factor between the ranges of a joint and of its command; arms that follow are within a few percent
FOLLOWS = 0.9  # correlation with its command from which a joint's range means something
DEGREE = np.pi / 180
NEAR = 2.5  # factor by which one task's use of a joint may hide the factor of a unit
AWAY, IN_PLACE = 1.5, 2.0  # of the base's scale: as it is, a joint lies farther off than that; in degrees, nearer
ANGLES = 4.0  # least scale of a base's joint that is in degrees
TURN = 2 * np.pi
HOME, HOME_SPREAD = 0.3, 0.25  # of its usual span that a home lies from zero; of that distance in which it stays


def doubts(demos: Sequence[Demo], statistics: Statistics | None = None) -> list[str]:
    """One sentence for each joint that looks wrong.

    Args:
      demos: of one task.
      statistics: of the base that they are for; None compares them with each other alone.
    """
    states, actions = [demo.state for demo in demos], [demo.actions for demo in demos]
    found = [*_units(states, actions), *_mirrored(states, actions)]
    return found if statistics is None else [*found, *_radians(states, actions, statistics)]


def _units(states: Sequence[np.ndarray], actions: Sequence[np.ndarray]) -> Iterator[str]:
    """Joints that range far less or far more than they are told to, although they follow, and most others as far.

    Where most do not, state and action are two kinds of quantity, such as a pose and a displacement.
    """
    if states[0].shape[1] != actions[0].shape[1]:
        return
    known = convention.find(states, actions, None, gripper_dimensions((), actions[0].shape[1]))
    every: dict[int, dict[int, float]] = {}  # joint -> demonstration -> factor
    for pair in known.arm:
        if pair.relative or pair.gripper or pair.state != pair.action:
            continue
        for number, (state, action) in enumerate(zip(states, actions, strict=True)):
            own, told = state[:, [pair.state]], action[:, [pair.action]]
            follows = max(float(signals.correlation(*signals.shifted(told, own, lag))[0, 0]) for lag in (0, 1, 2))
            extents = [float(np.subtract(*np.quantile(values, (0.95, 0.05)))) for values in (own, told)]
            if follows > FOLLOWS and min(extents) > 0:
                every.setdefault(pair.state, {})[number] = extents[0] / extents[1]
    odd = {
        joint: wrong
        for joint, factors in every.items()
        if (wrong := [number for number, factor in factors.items() if not 1 / OTHER_UNIT < factor < OTHER_UNIT])
    }
    if 2 * len(odd) > len(every):
        return
    for joint, numbers in odd.items():
        factor = float(np.median([every[joint][number] for number in numbers]))
        yield (
            f"state dimension {joint} ranges {factor:.2g} times as far as its command{_where(numbers, states)}"
            f"{_unit(factor)}: bring both into one unit"
        )


def _unit(factor: float) -> str:
    for known, words in ((DEGREE, "radians for degrees"), (1 / DEGREE, "degrees for radians")):
        if 1 / 1.5 < factor / known < 1.5:
            return f"; {words} would be {known:.3g}"
    return ""


def _where(numbers: Sequence[int], of: Sequence[np.ndarray]) -> str:
    if len(numbers) == len(of):
        return ""
    return f" in demonstration {listed([str(number) for number in numbers])} of {len(of)}"


def _mirrored(states: Sequence[np.ndarray], actions: Sequence[np.ndarray]) -> Iterator[str]:
    """Joints that move along with their command in some demonstrations, and against it in others; or start so."""
    for turned in convention.mirrored(states, actions, None, gripper_dimensions((), actions[0].shape[1])):
        along, against = (listed([str(i) for i in part]) for part in (turned.along, turned.against))
        yield (
            f"state dimension {turned.state} moves along with action dimension {turned.action} in demonstration "
            f"{along}, and against it in {against}: mirrored in some of them; bring them to one sign"
        )
    for joint, above, below, home in mirrored_homes(states):
        yield (
            f"state dimension {joint} starts near {home:.3g} in demonstration {listed(list(map(str, above)))}, and "
            f"near {-home:.3g} in {listed(list(map(str, below)))}: mirrored in some of them, or two ways to start"
        )


def mirrored_homes(states: Sequence[np.ndarray]) -> Iterator[tuple[int, list[int], list[int], float]]:
    """Joints that always start at one distance from zero, on either side: (joint, above, below, the distance)."""
    if len({state.shape[1] for state in states}) > 1:
        return
    first = np.stack([state[:3].mean(axis=0) for state in states]).astype(np.float64)
    spans = signals.scale(states).span
    for joint, (starts, span) in enumerate(zip(first.T, spans, strict=True)):
        above, below = (np.flatnonzero(sign * starts > 0).tolist() for sign in (1, -1))
        if min(len(above), len(below)) < 2 or len(above) + len(below) < len(starts):
            continue
        home = float(np.median(np.abs(starts)))
        if home > HOME * span and np.ptp(np.abs(starts)) < HOME_SPREAD * home:
            yield joint, above, below, home


def _radians(states: Sequence[np.ndarray], actions: Sequence[np.ndarray], statistics: Statistics) -> Iterator[str]:
    """Single joints that would be in the base's place, and as wide as its data, if they were turned into degrees."""
    for kind, values in (("state", states), ("action", actions)):
        every = np.concatenate(values).astype(np.float64)
        mean, scale = (getattr(statistics, f"{kind}_{part}").astype(np.float64) for part in ("mean", "std"))
        if every.shape[1] != len(mean):
            continue
        wide, away = every.std(axis=0) / scale, np.abs(every.mean(axis=0) - mean) / scale
        turned = np.abs(every.mean(axis=0) / DEGREE - mean) / scale
        usual = float(np.median(wide))
        odd = (scale > ANGLES) & (np.abs(every).max(axis=0) < TURN) & (away > AWAY) & (turned < IN_PLACE)
        for i in np.flatnonzero(odd):
            if DEGREE / NEAR < wide[i] < DEGREE * NEAR and usual > NEAR * DEGREE * NEAR:
                yield (
                    f"{kind} dimension {i} varies {wide[i]:.2g} times as much as the base's data, the others "
                    f"{usual:.2g} times; radians for degrees would be {DEGREE:.3g}"
                )
