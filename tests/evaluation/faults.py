"""Twenty-six ways in which one episode of a set can be wrong while each of its numbers looks fine alone."""

from collections.abc import Callable, Sequence

import numpy as np

from metalora_jax.types import Demo
from tests.evaluation.faulty_sets import Kind, made, make_set

Fault = Callable[[Sequence[Demo], int, Kind, int], Demo]  # (the sound set, which episode, its kind, its seed)


def damaged(fault: str, kind: Kind, seed: int, episodes: int = 12) -> tuple[list[Demo], int]:
    """A set with `fault` in one episode -> the set, and which episode it is."""
    demos, which = make_set(kind, seed, episodes), (5 * seed + 5) % episodes
    demos[which] = FAULTS[fault](demos, which, kind, seed)
    return demos, which


def taken(demo: Demo, rows: np.ndarray) -> Demo:
    """Some rows of an episode, in any order."""
    return Demo(demo.instruction, demo.images[rows], demo.state[rows], demo.actions[rows])


def _idle(at_end: bool) -> Fault:
    def fault(demos, i, kind, seed):
        steps = len(demos[i].actions)
        added, row = int(steps * 0.4 / 0.6), steps - 1 if at_end else 0
        rows = np.concatenate([np.full(0 if at_end else added, row), np.arange(steps), np.full(added * at_end, row)])
        demo, rng = taken(demos[i], rows), np.random.default_rng(seed)
        still = np.zeros(len(rows), bool)
        still[-added:] = at_end
        still[:added] |= not at_end
        noise = rng.normal(0, 1.5, demo.images.shape) * still[:, None, None, None, None]
        images = np.clip(demo.images + noise, 0, 255).astype(np.uint8)
        actions = demo.actions.copy()
        if kind.relative:
            actions[still, :-1] = 0
        return demo._replace(images=images, actions=actions)

    return fault


def _duplicate(demos, i, kind, seed):
    return demos[i - 4]


def _pictures(change: Callable[[np.ndarray, int], np.ndarray]) -> Fault:
    def fault(demos, i, kind, seed):
        return demos[i]._replace(images=change(demos[i].images.copy(), seed))

    return fault


def _camera(c: int, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    def changed(images, seed):
        images[:, c] = change(images[:, c])
        return images

    return _pictures(changed)


def _state(change: Callable[[np.ndarray, Kind, np.random.Generator], np.ndarray]) -> Fault:
    def fault(demos, i, kind, seed):
        state = change(demos[i].state.copy(), kind, np.random.default_rng(seed))
        return demos[i]._replace(state=state.astype(np.float32))

    return fault


def _flip(state, kind, rng):
    state[:, 1 if kind.cartesian else 0] *= -1
    return state


def _other(kind: Kind) -> float:
    """To the other unit: radians for degrees, millimetres for metres."""
    return 1000.0 if kind.cartesian else np.pi / 180 if kind.unit == "degrees" else 180 / np.pi


def _one_unit(state, kind, rng):
    state[:, 1] *= _other(kind)
    return state


def _all_units(state, kind, rng):
    state[:, : 3 if kind.cartesian else 5] *= _other(kind)
    return state


def _noise(state, kind, rng):
    return state + rng.normal(0, 1, state.shape) * 0.03 * np.ptp(state, axis=0)


def _late(demos, i, kind, seed):
    """The actions are stored three frames too early."""
    return demos[i]._replace(actions=np.concatenate([demos[i].actions[3:], demos[i].actions[-1:].repeat(3, 0)]))


def _dropped(demos, i, kind, seed):
    """A fifth of the frames is missing, here and there."""
    steps = len(demos[i].actions)
    kept = np.random.default_rng(seed).random(steps) > 0.2
    return taken(demos[i], np.flatnonzero(kept))


def _repeated(demos, i, kind, seed):
    """Every second row repeats the one before, as from a recorder that runs at half the rate."""
    return taken(demos[i], np.arange(len(demos[i].actions)) // 2 * 2)


def _jump(state, kind, rng):
    state[len(state) // 2 :, 1] += 0.6 * np.ptp(state[:, 1])
    return state


def _longer(demos, i, kind, seed):
    steps = len(demos[i].actions)
    places = np.linspace(0, steps - 1, int(2.6 * steps))
    demo = taken(demos[i], np.round(places).astype(int))
    state, actions = (
        np.stack([np.interp(places, np.arange(steps), column) for column in values.T], axis=1).astype(np.float32)
        for values in (demos[i].state, demos[i].actions)
    )
    if kind.relative:
        actions[:, :-1] /= 2.6
    noise = np.random.default_rng(seed).normal(0, 1.5, demo.images.shape)
    return demo._replace(state=state, actions=actions, images=np.clip(demo.images + noise, 0, 255).astype(np.uint8))


def _shorter(demos, i, kind, seed):
    return taken(demos[i], np.arange(int(0.4 * len(demos[i].actions))))


def _other_task(demos, i, kind, seed):
    return made(kind, seed, i, 1)


def _reversed(demos, i, kind, seed):
    return taken(demos[i], np.arange(len(demos[i].actions))[::-1])


def _gripper_inverted(demos, i, kind, seed):
    actions = demos[i].actions.copy()
    actions[:, -1] = (100 if kind.unit == "degrees" else 1) - actions[:, -1]
    return demos[i]._replace(actions=actions)


def _gripper_stuck(state, kind, rng):
    state[:, -1] = state[0, -1]
    return state


def _next_state(demos, i, kind, seed):
    state = demos[i].state
    following = np.concatenate([state[1:], state[-1:]])
    return demos[i]._replace(actions=following - state if kind.relative else following)


def _constant(demos, i, kind, seed):
    return demos[i]._replace(actions=np.repeat(demos[i].actions[:1], len(demos[i].actions), axis=0))


def _exchanged(demos, i, kind, seed):
    return demos[i]._replace(state=demos[i].actions, actions=demos[i].state)


def _scene(demos, i, kind, seed):
    """Recorded in another room: every picture has another background."""
    other = made(kind, seed + 1000, i).images
    rows = np.linspace(0, len(other) - 1, len(demos[i].actions)).astype(int)
    return demos[i]._replace(images=other[rows])


FAULTS: dict[str, Fault] = {
    "idle for 40 % at the start": _idle(at_end=False),
    "idle for 40 % at the end": _idle(at_end=True),
    "a duplicate": _duplicate,
    "swapped cameras": _pictures(lambda images, seed: images[:, ::-1]),
    "sign of one joint flipped in the state": _state(_flip),
    "one joint of the state in other units": _state(_one_unit),
    "the whole state in other units": _state(_all_units),
    "actions three frames early": _late,
    "a frozen camera": _camera(0, lambda pictures: pictures[:1].repeat(len(pictures), axis=0)),
    "a blank camera": _camera(1, lambda pictures: pictures * 0),
    "dropped frames": _dropped,
    "repeated frames": _repeated,
    "a jump in one joint": _state(_jump),
    "much longer": _longer,
    "much shorter": _shorter,
    "another task's motion": _other_task,
    "reversed in time": _reversed,
    "gripper inverted": _gripper_inverted,
    "gripper stuck": _state(_gripper_stuck),
    "actions are the next states": _next_state,
    "a noisy state": _state(_noise),
    "a constant action": _constant,
    "state and action exchanged": _exchanged,
    "a camera zoomed in": _camera(0, lambda p: p[:, 12:36, 12:36].repeat(2, axis=1).repeat(2, axis=2)),
    "a camera turned by 180 degrees": _camera(1, lambda pictures: pictures[:, ::-1, ::-1]),
    "another scene": _scene,
}
