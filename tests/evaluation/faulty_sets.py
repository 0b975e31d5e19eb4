"""Small made-up data sets of a six-joint arm that puts a cube into a box: sound ones, of several kinds.

`faults` damages one episode of such a set. A set is a pure function of its kind and seed.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from metalora_jax.types import Demo

JOINTS = ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos")
PLACES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
CAMERAS = ("front", "wrist")
TEXT = "put the cube into the box"
SIZE = 48  # [px]
_UPPER, _FORE, _HAND = 0.12, 0.13, 0.09  # [m] lengths of the arm
_FINE = 120  # [Hz] of the simulation
_TICK = 360 / 4096  # [degrees] of the encoders
_AXIS = np.arange(SIZE, dtype=np.float32)


class Kind(NamedTuple):
    """How a set was recorded."""

    human: bool = True  # led by hand: jitter, pauses, uneven speed; else scripted
    cartesian: bool = False  # state and actions are places of the hand, not joint angles
    relative: bool = False  # actions are differences
    unit: str = "degrees"  # of angles; gripper 0 to 100 with degrees, 0 to 1 with radians
    fps: int = 30


KINDS = {
    "recorded, joints, degrees, 30 fps": Kind(),
    "recorded, joints, degrees, 10 fps": Kind(fps=10),
    "recorded, joints, radians, 30 fps": Kind(unit="radians"),
    "recorded, joints, differences, 30 fps": Kind(relative=True),
    "recorded, Cartesian, 10 fps": Kind(cartesian=True, unit="radians", fps=10),
    "recorded, Cartesian, differences, 30 fps": Kind(cartesian=True, relative=True, unit="radians"),
    "scripted, joints, degrees, 10 fps": Kind(human=False, fps=10),
    "scripted, joints, radians, 30 fps": Kind(human=False, unit="radians"),
    "scripted, Cartesian, differences, 10 fps": Kind(False, True, True, "radians", 10),
}


def make_set(kind: Kind, seed: int, episodes: int = 12, task: int = 0) -> list[Demo]:
    """Sound episodes: the cube lies anywhere in reach, the box at one of two places, the arm starts near one of two."""
    return [made(kind, seed, i, task) for i in range(episodes)]


@functools.lru_cache(maxsize=256)
def made(kind: Kind, seed: int, number: int, task: int = 0) -> Demo:
    """One episode of a set; of the other task if `task` is 1. Not to be written to."""
    return _episode(kind, np.random.default_rng([seed, number, task]), seed, number, task)


def names(kind: Kind) -> tuple[str, ...]:
    """Of state and action."""
    return PLACES if kind.cartesian else JOINTS


def _episode(kind: Kind, rng: np.random.Generator, scene: int, number: int, task: int) -> Demo:
    cube = np.array([rng.uniform(0.15, 0.21), rng.uniform(-0.08, 0.08), 0.015])
    box = np.array([0.12, 0.13 if number % 3 else -0.13, 0.03])
    home = np.array([0.11, 0.0, 0.12]) + (number % 2) * np.array([0.02, 0.03, 0.0]) + rng.normal(0, 0.004, 3)
    if task:  # pushes the cube to the back with a closed hand instead
        ways = np.array([[-0.05, 0, 0.08], [-0.05, 0, 0.01], [0.03, 0, 0.01]])
        stops = [home, *(cube + ways), np.array([0.16, 0, 0.15])]
        grips = [0.0, 0.0, 0.0, 0.0, 0.0]
    else:
        up = np.array([0, 0, 0.08])
        stops = [home, cube + up, cube, cube, cube + up, box + up, box, box, home]
        grips = [60.0, 70.0, 70.0, 5.0, 5.0, 5.0, 5.0, 70.0, 60.0]
    roll = rng.uniform(-40, 40)
    rolls = np.where(np.arange(len(stops)) % (len(stops) - 1) == 0, 0.0, roll)
    target = _led(kind, rng, np.column_stack([np.array(stops, float), rolls, grips]))
    joints = _joints(target)  # (n, 6) degrees, gripper 0 to 100
    followed = _followed(joints, rng, kind.human)
    # The cube holds the fingers open.
    held = (followed[:, 5] < 30) & (task == 0)
    followed[held, 5] = 30 + 0.02 * followed[held, 5]
    shown = followed[:: _FINE // kind.fps]
    images = _pictures(shown, cube, box, bool(task), np.random.default_rng(scene), rng)
    state, action = (_expressed(values[:: _FINE // kind.fps], kind) for values in (followed, joints))
    if kind.human:
        noise = 0.06 if kind.unit == "degrees" else 0.0005 if kind.cartesian else 0.001
        state = state + rng.normal(0, noise, state.shape)
    if kind.relative:
        ahead = np.diff(action, axis=0, append=action[-1:])
        action = np.concatenate([ahead[:, :-1], action[:, -1:]], axis=1)
    return Demo(TEXT, images, state.astype(np.float32), action.astype(np.float32))


def _led(kind: Kind, rng: np.random.Generator, stops: np.ndarray) -> np.ndarray:
    """Way points (n, 5: place, roll, grip) -> the commanded path at _FINE Hz."""
    path = [np.repeat(stops[:1], int(_FINE * (rng.uniform(0.1, 0.5) if kind.human else 0.1)), axis=0)]
    pace = rng.uniform(0.8, 1.25) if kind.human else 1.0
    for a, b in itertools.pairwise(stops):
        seconds = 0.35 + 3.0 * np.linalg.norm(b[:3] - a[:3])
        if kind.human:
            seconds *= pace * rng.uniform(0.8, 1.25)
        u = np.linspace(0, 1, int(seconds * _FINE), endpoint=False)[:, None]
        path.append(a + (b - a) * (10 * u**3 - 15 * u**4 + 6 * u**5))
        if kind.human and rng.random() < 0.4:
            path.append(np.repeat(b[None], int(_FINE * rng.uniform(0.05, 0.4)), axis=0))
    path.append(np.repeat(stops[-1:], int(_FINE * (rng.uniform(0.1, 0.5) if kind.human else 0.1)), axis=0))
    whole = np.concatenate(path)
    if kind.human:
        whole[:, :4] += _drift(rng, len(whole), 4) * [0.002, 0.002, 0.002, 1.5]
    return whole


def _drift(rng: np.random.Generator, steps: int, width: int) -> np.ndarray:
    """A hand's tremble: noise up to about 2 Hz, standard deviation 1."""
    knots = rng.normal(0, 1, (steps // (_FINE // 4) + 3, width))
    times = np.arange(steps) / (_FINE // 4)
    low = times.astype(int)
    u = (times - low)[:, None]
    u = u * u * (3 - 2 * u)
    return knots[low] * (1 - u) + knots[low + 1] * u


def _joints(path: np.ndarray) -> np.ndarray:
    """Inverse kinematics of a hand that points down: (n, 5) -> (n, 6) degrees and gripper."""
    x, y, z = path[:, :3].T
    reach, height = np.hypot(x, y), z + _HAND - 0.06
    far = np.clip(np.hypot(reach, height), 0.03, _UPPER + _FORE - 1e-3)
    elbow = -np.arccos(np.clip((far**2 - _UPPER**2 - _FORE**2) / (2 * _UPPER * _FORE), -1, 1))
    lift = np.arctan2(height, reach) - np.arctan2(_FORE * np.sin(elbow), _UPPER + _FORE * np.cos(elbow))
    flex = -np.pi / 2 - lift - elbow
    angles = np.degrees(np.stack([np.arctan2(y, x), lift, elbow, flex], axis=1))
    return np.column_stack([angles, path[:, 3], path[:, 4]])


def _followed(joints: np.ndarray, rng: np.random.Generator, human: bool) -> np.ndarray:
    """What servos make of it: they follow after 80 ms, sag a little, and report in ticks."""
    share = 1 - np.exp(-1 / (_FINE * 0.08))
    out, now = np.empty_like(joints), joints[0].copy()
    for t, wanted in enumerate(joints):
        now += share * (wanted - now)
        out[t] = now
    if human:
        out[:, 1:3] += [-1.2, -0.7]
        out[:, :5] = np.round(out[:, :5] / _TICK) * _TICK
    return out


def _expressed(joints: np.ndarray, kind: Kind) -> np.ndarray:
    """In the set's own space and units."""
    if not kind.cartesian:
        scale = np.array([1.0] * 6) if kind.unit == "degrees" else np.radians([1.0] * 5 + [np.degrees(0.01)])
        return joints * scale
    points = _points(joints)
    turn = np.radians(np.column_stack([joints[:, 4], 0 * joints[:, 4], joints[:, 0]]))
    return np.column_stack([points[:, -1], turn, joints[:, 5] / 100])


def _points(joints: np.ndarray) -> np.ndarray:
    """(n, 4, 3) [m]: shoulder, elbow, wrist, finger tips."""
    pan, lift, elbow, flex = np.radians(joints[:, :4].T)
    pitch = np.stack([lift, lift + elbow, lift + elbow + flex], axis=1)
    steps = np.array([_UPPER, _FORE, _HAND])
    r = np.cumsum(np.pad(steps * np.cos(pitch), ((0, 0), (1, 0))), axis=1)
    z = 0.06 + np.cumsum(np.pad(steps * np.sin(pitch), ((0, 0), (1, 0))), axis=1)
    return np.stack([r * np.cos(pan)[:, None], r * np.sin(pan)[:, None], z], axis=-1)


def _pictures(
    joints: np.ndarray,
    cube: np.ndarray,
    box: np.ndarray,
    pushed: bool,
    scene: np.random.Generator,
    rng: np.random.Generator,
) -> np.ndarray:
    """(T, 2, SIZE, SIZE, 3) uint8."""
    table, wall = (_texture(scene, 3 * SIZE) for _ in range(2))
    points = _points(joints)
    tip = points[:, -1]
    near = np.linalg.norm(tip - cube, axis=1) < 0.035
    grasped = np.cumsum(near & ((joints[:, 5] < 35) | pushed)) > 0
    released = grasped & (np.cumsum(grasped & (joints[:, 5] > 45)) > 0) & ~np.bool_(pushed)
    lying = np.where(grasped[:, None], tip, cube)
    if released.any():
        lying[released] = box
    front = np.repeat(wall[None, :SIZE, :SIZE], len(joints), axis=0)
    _dot(front, _seen(np.repeat(box[None], len(joints), 0)), 5.0, (40, 60, 160))
    seen = [_seen(points[:, k]) for k in range(4)]
    for a, b in itertools.pairwise(seen):
        _stroke(front, a, b, 1.8, (60, 60, 66))
    _dot(front, _seen(lying), 2.5, (200, 50, 40))
    wrist = np.empty_like(front)
    for t, (x, y, z) in enumerate(tip):
        zoom = 1.0 + 3.0 * max(z, 0.0)
        rows = np.clip(SIZE + 200 * x - SIZE / 4 + (np.arange(SIZE) - SIZE / 2) * zoom, 0, 3 * SIZE - 1).astype(int)
        columns = np.clip(1.5 * SIZE + 200 * y + (np.arange(SIZE) - SIZE / 2) * zoom, 0, 3 * SIZE - 1).astype(int)
        wrist[t] = table[np.ix_(rows, columns)]
    offset = (lying - tip)[:, [1, 0]] * 200 / (1.0 + 3.0 * np.maximum(tip[:, 2:], 0)) + SIZE / 2
    _dot(wrist, offset, 4.0, (200, 50, 40))
    opening = 3 + joints[:, 5] / 8
    for side in (-1, 1):
        at = np.stack([SIZE / 2 + side * opening, np.full(len(joints), SIZE * 0.75)], axis=1)
        _stroke(wrist, at, at + np.array([0, SIZE * 0.25]), 2.5, (30, 30, 34))
    both = np.stack([front, wrist], axis=1).astype(np.float32)
    both = both * rng.uniform(0.93, 1.07) + rng.normal(0, 1.5, both.shape).astype(np.float32)
    return np.clip(both, 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    coarse = rng.uniform(60, 220, (side // 12 + 1, side // 12 + 1, 3))
    return coarse.repeat(12, axis=0).repeat(12, axis=1)[:side, :side].astype(np.uint8)


def _seen(places: np.ndarray) -> np.ndarray:
    """Places (n, 3) [m] -> (n, 2) pixels (x, y) of the camera in front."""
    x, y, z = places.T
    return np.stack([SIZE / 2 + 1.9 * SIZE * y, SIZE * (0.95 - 1.7 * z - 1.0 * x)], axis=1)


def _stroke(images: np.ndarray, a: np.ndarray, b: np.ndarray, wide: float, colour: tuple[int, int, int]) -> None:
    (x, y), (across, down) = _planes(a), _planes(b - a)
    right, below = _AXIS - x, _AXIS[:, None] - y  # from `a` to each column and row
    along = (right * across + below * down) / np.maximum(across**2 + down**2, 1e-6)
    np.clip(along, 0, 1, out=along)
    images[(right - along * across) ** 2 + (below - along * down) ** 2 < wide**2] = colour


def _dot(images: np.ndarray, at: np.ndarray, wide: float, colour: tuple[int, int, int]) -> None:
    x, y = _planes(at)
    images[(np.abs(_AXIS - x) < wide) & (np.abs(_AXIS[:, None] - y) < wide)] = colour


def _planes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) -> x and y, each (n, 1, 1)."""
    x, y = points.astype(np.float32).T[..., None, None]
    return x, y
