"""What data say of the robot that recorded them: cameras, joints, rate and units. It travels with bases and adapters.

A policy knows none of these names: pictures, joints and time steps go by place, and any other robot of the same widths
runs silently wrong. So they are written down where demonstrations are learned from, and held against whatever
demonstrations come next.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metalora_jax.data import units
from metalora_jax.data.sources.names import part_of, plain_camera
from metalora_jax.fields import from_fields, to_fields
from metalora_jax.types import Demo
from metalora_jax.words import listed, plural

SURE = 0.6  # from which a guess of units is written down
RATE = 0.01  # share by which two frame rates may differ


@dataclasses.dataclass(frozen=True)
class Embodiment:
    """A robot as its data describe it; None is unknown."""

    cameras: tuple[str, ...] | None = None  # in order, as the data call them, without "observation.images."
    state: tuple[str, ...] | None = None  # names of the state's dimensions, mostly joints
    action: tuple[str, ...] | None = None  # names of an action's dimensions
    state_units: tuple[str, ...] | None = None  # of each dimension, see `units`; "" where not known
    action_units: tuple[str, ...] | None = None
    fps: float | None = None  # frames per second
    robot_type: str | None = None  # as lerobot calls it
    picture: tuple[int, int] | None = None  # height and width of what every camera shows [px]

    @classmethod
    def from_json(cls, fields: Any) -> "Embodiment":
        """What `to_json` gave; ValueError names a field that is unknown, or of another type."""
        return from_fields(cls, fields, "embodiment")

    def to_json(self) -> dict[str, Any]:
        """What is known, for files."""
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: to_fields(value) for name, value in known.items() if value is not None}

    def over(self, other: "Embodiment") -> "Embodiment":
        """This one, and what only the other knows."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(other, **{name: value for name, value in own.items() if value is not None})

    def measured(self, demos: Sequence[Demo]) -> "Embodiment":
        """With the size of the pictures, and the units that the numbers look like; grippers are left out."""
        found: dict[str, Any] = {}
        if demos[0].images.shape[1]:  # they may have been read without pictures
            found["picture"] = demos[0].images.shape[2:4]
        for kind in ("state", "action"):
            values = np.concatenate([demo.state if kind == "state" else demo.actions for demo in demos])
            low, high = np.quantile(values, (0.02, 0.98), axis=0)
            named = getattr(self, kind) or ()
            grippers = units.gripper_dimensions(named, values.shape[1])
            guesses = units.guess(named, low, high, grippers)
            found[f"{kind}_units"] = tuple(
                guess.unit if guess.sure >= SURE and i not in grippers else "" for i, guess in enumerate(guesses)
            )
        return dataclasses.replace(self, **found)


UNKNOWN = Embodiment()


def check(found: Embodiment, known: Embodiment, whose: str = "the base") -> list[str]:
    """Holds the robot of some demonstrations against the one that a policy was trained on.

    Args:
      found: of the demonstrations.
      known: what the policy was trained on.
      whose: how messages call the latter.

    Returns:
      What differs, a sentence each; unknown differs from nothing.

    Raises:
      ValueError: the numbers of joints differ, or the same joints come in another order: a policy goes by place.
    """
    said = []
    for kind in ("state", "action"):
        here, there = getattr(found, kind), getattr(known, kind)
        if here and there:
            said += _names(kind, here, there, whose)
    if found.cameras and known.cameras:
        said += _cameras(found.cameras, known.cameras, whose)
    if found.fps and known.fps and abs(found.fps / known.fps - 1) > RATE:
        said.append(
            f"the data have {found.fps:g} frames per second, {whose} was trained at {known.fps:g}: one step ahead is "
            f"{known.fps / found.fps:.3g} times as long in time"
        )
    return said


def check_units(found: Embodiment, known: Embodiment, whose: str = "the base") -> list[str]:
    """As `check`, for what only numbers show: `found` is `measured`. Nothing is refused."""
    said = []
    for kind in ("state", "action"):
        here, there = (getattr(one, f"{kind}_units") or () for one in (found, known))
        pairs = zip(here, there, strict=False)
        apart = [(a, b) for a, b in pairs if a and b and not set(a.split(" or ")) & set(b.split(" or "))]
        if len(here) == len(there) and apart:
            said.append(f"{kind} seems to be in {apart[0][0]}, that of {whose} in {apart[0][1]}")
    return said


def common(found: Iterable[Embodiment]) -> tuple[Embodiment, list[str]]:
    """What several data sets have in common, and in what they differ from the first, a sentence each.

    Raises:
      ValueError: see `check`.
    """
    first, *others = dict.fromkeys(found)
    said = []
    for other in others:
        said += check(other, first, "the first data set")
        fields = (field.name for field in dataclasses.fields(first))
        first = dataclasses.replace(first, **{n: None for n in fields if getattr(first, n) != getattr(other, n)})
    return first, list(dict.fromkeys(said))


def recorded_cameras(cameras: Sequence[str], keys: Mapping[str, str] | None) -> tuple[str, ...]:
    """The data's own names of cameras that a recipe names, with the `keys` of `sources.open`."""
    features = ((camera, (keys or {}).get(camera, camera)) for camera in cameras)
    in_hdf5 = "_rgb"  # follows every camera's name there
    return tuple(camera if feature == camera + in_hdf5 else plain_camera(feature) for camera, feature in features)


def _plain(names: Sequence[str]) -> list[str]:
    """Names of joints without what only some recorders add."""
    return [name.lower().removesuffix(".pos") for name in names]


def _names(kind: str, here: Sequence[str], there: Sequence[str], whose: str) -> list[str]:
    if len(here) != len(there):
        raise ValueError(
            f"{kind} has {plural(len(here), 'dimension')} here ({listed(here)}), {len(there)} in {whose} "
            f"({listed(there)}); take demonstrations of the robot that it is for, or make a base of this "
            "robot with metalora convert"
        )
    mine, theirs = _plain(here), _plain(there)
    if mine == theirs:
        return []
    if sorted(mine) == sorted(theirs):
        i = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
        raise ValueError(
            f"{kind} has the joints of {whose} in another order: dimension {i} is {here[i]!r} here, {there[i]!r} "
            f"there; a policy goes by place: write the data in the order {', '.join(there)}"
        )
    differing = [f"{a} for {b}" for a, b in zip(here, there, strict=True) if _plain([a]) != _plain([b])]
    return [f"{kind} has other names than in {whose} ({listed(differing)}): is it the same robot?"]


def _cameras(here: Sequence[str], there: Sequence[str], whose: str) -> list[str]:
    mine, theirs = ([part_of(name) for name in names] for names in (here, there))
    if mine == theirs:
        return []
    what = f"cameras are {', '.join(here)}, those of {whose} {', '.join(there)}"
    if sorted(mine) == sorted(theirs):
        return [f"{what}: in another order, so that each is taken for another"]
    if set(mine) < set(theirs):
        absent = [name for name in there if part_of(name) not in mine]
        return [f"{what}: it never sees {', '.join(absent)}, which it was trained with"]
    return [what]
