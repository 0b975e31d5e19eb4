"""Episodes of one data set, with the figures by which one is compared with the others."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metalora_jax.data import convention, signals
from metalora_jax.data.convention import Convention, Pair
from metalora_jax.data.signals import Idle, Scale
from metalora_jax.data.units import gripper_dimensions
from metalora_jax.evaluation.doctor.findings import Finding
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.evaluation.doctor.sets import Layout

FEWEST = 5  # episodes, below which "the others" are too few to say what is usual
_LITTLE = 0.3  # of the usual span: a dimension that moves less may be in other units
_DROP = "drop it, or record it again"


class Group(NamedTuple):
    """Episodes of equal widths from one file or data set; arrays have them along the first axis."""

    layout: Layout
    recordings: Sequence[Recording]
    state: Scale
    action: Scale
    convention: Convention
    paths: Sequence[np.ndarray]  # (T, active dimensions) of the state, in usual spans
    idle: Sequence[Idle]

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def steps(self) -> np.ndarray:
        """(n,) frames of each."""
        return np.array([len(r.actions) for r in self.recordings])

    @property
    def active(self) -> list[str]:
        """Names of the state's dimensions that move."""
        return [self.state_name(int(i)) for i in np.flatnonzero(self.state.active)]

    def state_name(self, dimension: int) -> str:
        """Of a dimension of the state."""
        names = self.layout.state
        return names[dimension] if names else f"state dimension {dimension}"

    def pair_name(self, pair: Pair) -> str:
        """Of a command and the state that follows it."""
        names = self.layout.action
        return names[pair.action] if names else f"action dimension {pair.action}"

    @property
    def arm(self) -> np.ndarray:
        """(active dimensions,) bool: not a gripper, which may snap from one frame to the next."""
        grippers = {p.state for p in self.convention.pairs if p.gripper}
        named = gripper_dimensions(self.layout.state, len(self.state.active)) if self.layout.state else ()
        return np.array([i not in {*grippers, *named} for i in np.flatnonzero(self.state.active)], bool)

    def tasks(self) -> Iterator[np.ndarray]:
        """The episodes of each task that has enough of them to be compared."""
        told = np.array([r.told for r in self.recordings])
        for task in dict.fromkeys(told.tolist()):
            if (told == task).sum() >= FEWEST:
                yield np.flatnonzero(told == task)

    def moving(self, i: int) -> np.ndarray:
        """The path of an episode without its idle ends."""
        start, _, end = self.idle[i]
        inner = self.paths[i][max(start - 1, 0) : len(self.paths[i]) - max(end - 1, 0)]
        return inner if len(inner) > 1 else self.paths[i]

    def idle_at_own_range(self, numbers: Collection[int]) -> list[Idle]:
        """`idle`, but in some episodes, by the data set's own numbers, against their own range of motion.

        That of the others says nothing of an episode in other units.
        """
        idle = list(self.idle)
        for i, (r, path) in enumerate(zip(self.recordings, self.paths, strict=True)):
            extent = np.ptp(path, axis=0)
            if r.number in numbers:
                idle[i] = signals.idle(path / np.where((extent > 1) | (extent > 0) & (extent < _LITTLE), extent, 1.0))
        return idle

    def spread(self, kind: str) -> np.ndarray:
        """(n, pairs) how far each pair's "state" or "action" ranges within an episode, in its own units."""
        columns = [p.state if kind == "state" else p.action for p in self.convention.pairs]
        values = [(r.state if kind == "state" else r.actions)[:, columns] for r in self.recordings]
        return np.stack([np.quantile(v, 0.95, axis=0) - np.quantile(v, 0.05, axis=0) for v in values])

    def finding(
        self, i: int, what: str, severity: str, remedy: str = _DROP, figures: Mapping[str, float] | None = None
    ) -> Finding:
        """About one episode."""
        r = self.recordings[i]
        where, rounded = f"{r.file} {r.name}", {k: round(float(v), 4) for k, v in (figures or {}).items()}
        return Finding(where, what, remedy, severity, r.file, (r.number,), r.told, rounded)


def make(layout: Layout, recordings: Sequence[Recording]) -> Group:
    """Of recordings of equal widths."""
    states, actions = [r.state for r in recordings], [r.actions for r in recordings]
    state, action = signals.scale(states), signals.scale(actions)
    grippers = gripper_dimensions(layout.action, actions[0].shape[1])
    meaning = convention.find(states, actions, layout.fps, grippers)
    paths = [state.unit(values) for values in states]
    return Group(layout, recordings, state, action, meaning, paths, [signals.idle(path) for path in paths])


def usual_widths(recordings: Sequence[Recording]) -> tuple[int, int]:
    """Of state and actions, in most recordings."""
    widths = [(r.state.shape[1], r.actions.shape[1]) for r in recordings]
    return max(set(widths), key=widths.count)
