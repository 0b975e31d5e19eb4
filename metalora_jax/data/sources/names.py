"""What the parts of a demonstration are called in datasets."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from metalora_jax.data.demos import DemoError
from metalora_jax.data.text import named
from metalora_jax.fields import meant


class FeatureNames(NamedTuple):
    """A dataset's names for the parts of a demonstration."""

    cameras: tuple[str, ...]
    state: str
    action: str


KNOWN = {  # part -> its names in datasets; the first is the one that our writer uses
    "agentview": ("observation.images.image", "image", "observation.images.agentview"),
    "eye_in_hand": (
        "observation.images.image2",
        "wrist_image",
        "observation.images.wrist_image",
        "observation.images.eye_in_hand",
    ),
    "state": ("observation.state", "state"),
    "action": ("action", "actions"),
}
_LIKE = {  # words in other people's names of a part, the likeliest first
    "agentview": ("agent", "front", "top", "main", "scene", "base", "high", "third", "ext", "side", "image"),
    "eye_in_hand": ("eye", "wrist", "hand", "gripper", "image2"),
    "state": ("state", "proprio", "qpos", "joint", "pose"),
    "action": ("action", "command", "target"),
}
WORDS = ("instruction", "paraphrases")  # parts that annotations of a LeRobot dataset may give, by their style
_PICTURES = "observation.images."
_COUNTERS = ("timestamp", "index", "frame_index", "episode_index", "task_index", "language_instruction")


PICTURES = "observation.images."  # what LeRobot's names of cameras begin with


def plain_camera(feature: str) -> str:
    """A camera's name in the data: what follows LeRobot's prefix, or the whole name of a feature without it."""
    return feature.removeprefix(PICTURES)


def part_of(camera: str) -> str:
    """This package's name of a camera that data call so; most have no other."""
    known = (part for part, features in KNOWN.items() if {camera, PICTURES + camera} & set(features))
    return next(known, camera)


def known_names(part: str) -> tuple[str, ...]:
    """Names of a camera, the state or the action in datasets; the first is the one that our writer uses."""
    return KNOWN.get(part, (PICTURES + part, part))


def read_keys(pairs: Iterable[str]) -> dict[str, str]:
    """The keys of `sources.open`, from a flag's "part=feature" pairs; raises DemoError for anything else."""
    keys: dict[str, str] = {}
    for pair in pairs:
        part, equals, feature = (piece.strip() for piece in pair.partition("="))
        if not (part and equals and feature):
            raise DemoError(f"keys hold {pair!r}, expected part=feature, such as state=observation.joints")
        keys[part] = feature
    return keys


def feature_names(
    where: Path,
    present: Iterable[str],
    cameras: Sequence[str],
    keys: Mapping[str, str],
    pictures: Collection[str] | None = None,
) -> FeatureNames:
    """Which of the `present` features are the cameras, the state and the action; `keys` overrides the known names.

    Args:
      where: the file that lists the features.
      present: their names.
      cameras: those requested.
      keys: part -> feature.
      pictures: which features are colour pictures, for hints; None where that is not known.

    Raises:
      DemoError: if one is missing or ambiguous; the message suggests the likeliest one.
    """
    present = tuple(present)
    plain = [name for name in present if name not in _COUNTERS]
    seen = [name for name in plain if pictures is None or name in pictures]
    vectors = [name for name in plain if name not in seen and not name.startswith((_PICTURES, "next."))]
    vectors = plain if pictures is None else vectors
    ours = [name.removeprefix(_PICTURES) for name in seen if name.startswith(_PICTURES)]

    def one(part: str) -> str:
        wanted = (keys[part],) if part in keys else known_names(part)
        found = [name for name in wanted if name in present]
        if len(found) == 1:
            return found[0]
        trouble = f"is ambiguous: {', '.join(found)}" if found else f"({' or '.join(wanted)}) is not there"
        fitting = seen if part in cameras else vectors
        likely = _likely(part, found or fitting)
        say = f", such as {part}={likely}" if likely else ""
        if part in cameras and ours:
            say += f", or ask for the cameras {','.join(ours)}"
        kind = "pictures" if part in cameras and pictures is not None else "features"
        raise DemoError(
            f"{where}: {part} {trouble}; name its feature with keys{say}; the {kind} are: "
            f"{', '.join(fitting) or 'none'}"
        )

    return FeatureNames(tuple(one(camera) for camera in cameras), one("state"), one("action"))


def _likely(part: str, features: Sequence[str]) -> str:
    """The feature that a part is likeliest to be; "" if none resembles it."""
    ends = {name.rsplit(".", 1)[-1].rsplit("/", 1)[-1].lower(): name for name in reversed(features)}
    for word in (part, *_LIKE.get(part, ())):
        if matching := [name for end, name in ends.items() if word in end]:
            return min(matching, key=lambda name: (len(name), name))
    if near := difflib.get_close_matches(part, ends, n=1, cutoff=0.5):
        return ends[near[0]]
    return features[0] if len(features) == 1 else ""


def check_names(cameras: object, keys: object) -> tuple[tuple[str, ...], dict[str, str]]:
    """What `sources.open` was given, as it is used; raises DemoError for text in place of a list, and the like."""
    if isinstance(cameras, str) or not isinstance(cameras, Iterable):
        raise DemoError(f"cameras are {named(cameras)}, expected a list of names, such as ['agentview']")
    seen = tuple(cameras)
    if odd := [camera for camera in seen if not isinstance(camera, str) or not camera]:
        raise DemoError(f"a camera is {named(odd[0])}, expected its name")
    if len(set(seen)) < len(seen):
        raise DemoError(f"cameras name {max(seen, key=seen.count)!r} twice; name each once")
    if not isinstance(keys, Mapping | None):
        raise DemoError(f"keys are {named(keys)}, expected part -> feature, such as state -> observation.joints")
    chosen = dict(keys or {})
    for part, feature in chosen.items():
        if not isinstance(feature, str):
            raise DemoError(f"keys give {named(feature)} for {part!r}, expected the name of a feature")
    if unknown := chosen.keys() - {*seen, "state", "action", *WORDS}:
        known = f"state, action, {', '.join(WORDS)} and the cameras {', '.join(seen)}"
        near = meant(min(unknown), {*seen, "state", "action", *WORDS})
        raise DemoError(f"keys name {min(unknown)!r}; known: {known}{near}")
    return seen, chosen
