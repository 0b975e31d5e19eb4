"""`meta/info.json` of a LeRobot dataset, versions 2.x and 3.0: its types are checked before anything is used."""

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.data import text
from metalora_jax.data.demos import DemoError
from metalora_jax.data.text import named

REMEDY = "download or write the dataset again"
INFO = "meta/info.json"
LANGUAGE = ("language_persistent", "language_events", "task_aug")  # columns of annotations, which are not read
_FIELD = re.compile(r"\{([^{}!:.\[]*)(?::0?\d*d?)?\}")


class Feature(NamedTuple):
    """What the metadata declare about a column or a video."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def sides(self) -> tuple[int, ...]:
        """(H, W, 3) of pictures; some datasets declare channels first."""
        return self.shape if self.shape[-1:] == (3,) else (*self.shape[1:], *self.shape[:1])


class Info:
    """What a dataset declares about itself."""

    def __init__(self, root: Path):
        """Reads it.

        Raises:
          DemoError: if it is missing, damaged, of another version, or holds values of other types.
        """
        self.root, self.path = root, root / INFO
        self._places: dict[tuple[Any, ...], Path] = {}
        self.fields = text.read_object(self.path, REMEDY)
        version = self._get("codebase_version")
        if not isinstance(version, str) or not version.startswith(("v2.", "v3.")):
            shown = version if isinstance(version, str) else named(version)
            raise DemoError(f"{self.path}: codebase_version {shown} is unknown; known: v2.0, v2.1, v3.0")
        self.version = int(version[1])
        self.fps = self._rate(self._get("fps"), "fps")
        self.features = self._get("features")
        if not isinstance(self.features, dict):
            raise DemoError(f"{self.path}: damaged, features are {named(self.features)}, expected an object; {REMEDY}")

    def _get(self, name: str) -> Any:
        if name not in self.fields:
            raise DemoError(f"{self.path}: {name} is missing; {REMEDY}")
        return self.fields[name]

    def _rate(self, value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DemoError(f"{self.path}: {name} is {named(value)}, expected a positive number; {REMEDY}")
        return float(value)

    def whole(self, name: str) -> int:
        """A field that counts something."""
        return whole(f"{self.path}: {name}", self._get(name))

    def pictures(self) -> list[str]:
        """The features that are colour pictures."""
        return [key for key in self.features if self._dtype(key) in ("image", "video") and not self.is_depth(key)]

    def left_out(self) -> dict[str, list[str]]:
        """Features that are never read, by why."""
        spoken = [key for key in self.features if self._dtype(key) == "language" or key in LANGUAGE]
        return {"depth": [key for key in self.features if self.is_depth(key)], "annotations in words": spoken}

    def _dtype(self, key: str) -> Any:
        return feature.get("dtype") if isinstance(feature := self.features[key], dict) else None

    def _details(self, key: str) -> Mapping[str, Any]:
        """What is declared about a video itself; without the prefix that most of the fields have."""
        feature = self.features[key]
        found = (feature.get("info") or feature.get("video_info")) if isinstance(feature, dict) else None
        return {
            name.removeprefix("video."): value for name, value in (found if isinstance(found, dict) else {}).items()
        }

    def is_depth(self, key: str) -> bool:
        """Whether a feature holds distances, not colours."""
        return self._details(key).get("is_depth_map") is True

    def feature(self, key: str) -> Feature:
        """What is declared about one feature; raises DemoError if it is not declared as it should be."""
        declared, where = self.features[key], f"{self.path}: feature {key}"
        if not isinstance(declared, dict):
            raise DemoError(f"{where} is {named(declared)}, expected an object with dtype and shape; {REMEDY}")
        dtype, shape = declared.get("dtype"), declared.get("shape")
        if not isinstance(dtype, str):
            raise DemoError(f"{where}: dtype is {named(dtype)}, expected text such as 'float32'; {REMEDY}")
        if not isinstance(shape, list) or not shape:
            raise DemoError(f"{where}: shape is {named(shape)}, expected a list of numbers; {REMEDY}")
        return Feature(dtype, tuple(whole(f"{where}: shape", side) for side in shape))

    def vector(self, key: str) -> Feature:
        """A feature that holds numbers."""
        found = self.feature(key)
        try:
            number = np.issubdtype(np.dtype(found.dtype), np.number)
        except TypeError:
            number = False
        if not number:
            raise DemoError(f"{self.path}: {key} is of dtype {found.dtype}, expected numbers such as float32; {REMEDY}")
        return found

    def names(self, key: str) -> tuple[str, ...] | None:
        """Of a vector's dimensions: a list, a list of lists, or one under some key; None where they do not fit."""
        names: Any = self.features[key].get("names")
        while isinstance(names, dict | list) and len(names) == 1:
            names = next(iter(names.values())) if isinstance(names, dict) else names[0]
        if isinstance(names, dict):
            names = list(names)
        fit = isinstance(names, list) and len(names) == self.feature(key).shape[-1]
        return tuple(map(str, names)) if fit else None

    @property
    def robot_type(self) -> str | None:
        """Of the robot, as lerobot calls it; None where it is not said."""
        said = self.fields.get("robot_type")
        return said if isinstance(said, str) and said not in ("", "unknown") else None

    def picture(self, key: str) -> Feature:
        """A feature that holds colour pictures; what is declared about its video must agree."""
        found = self.feature(key)
        if found.dtype not in ("image", "video"):
            raise DemoError(f"{self.path}: {key} is of dtype {found.dtype}, expected image or video; name another")
        if self.is_depth(key):
            raise DemoError(f"{self.path}: {key} holds depth, not colours; name another camera")
        if len(found.shape) != 3 or 3 not in (found.shape[0], found.shape[-1]):
            raise DemoError(f"{self.path}: {key} has shape {found.shape}, expected (height, width, 3); {REMEDY}")
        details = self._details(key)
        told = dict(zip(("height", "width", "channels"), found.sides, strict=True)) | {"fps": self.fps}
        for name, wanted in told.items():
            if details.get(name) not in (None, wanted):
                source = "info.json says" if name == "fps" else "its shape says"
                what = f"video.{name} of {key} is {details[name]}, but {source} {wanted:g}"
                raise DemoError(f"{self.path}: {what}; {REMEDY}")
        return found

    def place(self, name: str, fields: Mapping[str, Any]) -> Path:
        """A file, by the pattern `name`: patterns come from the dataset, and must not lead out of it."""
        known = name, *fields.values()  # many episodes share a file
        if known not in self._places:
            self._places[known] = self._place(name, fields)
        return self._places[known]

    def _place(self, name: str, fields: Mapping[str, Any]) -> Path:
        pattern = self._get(name)
        if not isinstance(pattern, str):
            raise DemoError(f"{self.path}: {name} is {named(pattern)}, expected a pattern of paths; {REMEDY}")
        if unknown := [field for field in _FIELD.findall(pattern) if field not in fields]:
            known = ", ".join(fields)
            raise DemoError(f"{self.path}: key missing ({unknown[0]}), which {name} names; known: {known}; {REMEDY}")
        try:
            found = pattern.format(**fields)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise DemoError(f"{self.path}: {name} is {pattern!r}, no valid pattern of paths; {REMEDY}") from error
        path = Path(os.path.normpath(self.root / found))  # the hub's cache consists of links: not followed
        if not path.is_relative_to(os.path.normpath(self.root)):
            raise DemoError(f"{self.path}: {pattern!r} leads out of the dataset; {REMEDY}")
        return path

    def chunk_size(self) -> int:
        """How many episodes of version 2 share a folder."""
        if (size := self.whole("chunks_size")) == 0:
            raise DemoError(f"{self.path}: chunks_size is 0, expected a positive number; {REMEDY}")
        return size

    def check_totals(self, numbers: Sequence[int], tasks: int, chunks: Collection[int]) -> None:
        """Holds the totals and splits against the tables; the number of frames is for the reader of the data.

        Args:
          numbers: of the episodes.
          tasks: how many there are.
          chunks: how many folders of data there may be, by one way of counting or another.
        """
        for name, there in (("episodes", len(numbers)), ("tasks", tasks)):
            if (declared := self.whole(f"total_{name}")) != there:
                raise DemoError(f"{self.path}: total_{name} is {declared}, but the metadata list {there}; {REMEDY}")
        keys = [key for key in self.features if self._dtype(key) == "video"]
        videos = {len(keys) * len(numbers)}
        if self.version == 3 and "total_videos" in self.fields:  # some writers count files there
            videos.add(sum(1 for _ in (self.root / "videos").rglob("*.mp4")))
        for name, counts in (("videos", videos), ("chunks", chunks)):
            if f"total_{name}" in self.fields and (declared := self.whole(f"total_{name}")) not in counts:
                there_are = " or ".join(str(count) for count in sorted(counts))
                raise DemoError(f"{self.path}: total_{name} is {declared}, but there are {there_are}; {REMEDY}")
        self._check_splits(numbers)

    def _check_splits(self, numbers: Sequence[int]) -> None:
        splits, ends = self.fields.get("splits"), {len(numbers), numbers[-1] + 1 if numbers else 0}
        if splits is None:
            return
        if not isinstance(splits, dict):
            raise DemoError(f"{self.path}: splits are {named(splits)}, expected an object; {REMEDY}")
        spans = []
        for name, span in splits.items():
            match = re.fullmatch(r"(\d+):(\d+)", span) if isinstance(span, str) else None
            if match is None or int(match[1]) > int(match[2]):
                raise DemoError(f"{self.path}: splits.{name} is {named(span)}, expected 'first:end'; {REMEDY}")
            spans.append((int(match[1]), int(match[2])))
        met = 0
        for first, end in sorted(spans):
            if first < met:
                raise DemoError(f"{self.path}: splits {splits} overlap; {REMEDY}")
            met = max(met, end)
        if spans and (met not in ends or min(spans)[0] != 0):
            raise DemoError(f"{self.path}: splits are {splits}, but there are {len(numbers)} episodes; {REMEDY}")


def whole(where: str, value: Any) -> int:
    """A whole number that is not negative; raises DemoError for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DemoError(f"{where} is {named(value)}, expected a whole number; {REMEDY}")
    return value


def number(where: str, value: Any) -> float:
    """A finite number; raises DemoError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DemoError(f"{where} is {named(value)}, expected a number; {REMEDY}")
    return float(value)
