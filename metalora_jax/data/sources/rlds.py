"""RLDS datasets on disk, as written by TFDS, in the layout of `modified_libero_rlds` (moojink/rlds_dataset_builder).

    libero_spatial_no_noops/1.0.0/        a version, given by itself or by its parent directory
      dataset_info.json, features.json
      libero_spatial-train.tfrecord-00000-of-00016, ...
    steps/observation/image, wrist_image  256x256x3 JPEG, turned by 180 degrees already
    steps/observation/state               (8,) float32: position 3, axis-angle 3, fingers 2
    steps/action                          (7,) float32, gripper -1 open, +1 close
    steps/language_instruction            text

There is no index: the first call of `tasks` or `listing` reads every episode once, without decoding a picture. Records
lie in TFDS's shuffled order, so each task's demonstrations are searched up to the last one requested.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from metalora_jax.data import text
from metalora_jax.data.demos import DemoError, checked, few, reading, stack_cameras
from metalora_jax.data.sources.embodiment import Embodiment, recorded_cameras
from metalora_jax.data.sources.names import feature_names
from metalora_jax.data.sources.selection import EVERYTHING, Episode, Selection, check
from metalora_jax.data.sources.source import Source
from metalora_jax.types import Demo

_LAYOUT, _REMEDY = "TFDS's", "download or write the dataset again"
_SPLIT, _TEXT = "train", "language_instruction"
_FEATURES = "tensorflow_datasets.core.features."  # what a feature's class must begin with: TFDS imports it by name


class Rlds(Source):
    """See `sources.open`. Episodes are numbered in the order of the files."""

    def __init__(self, path: Path, cameras: Sequence[str], keys: Mapping[str, str], selection: Selection = EVERYTHING):
        """Reads the metadata, and checks that every file is there; TensorFlow is imported with the first record."""
        self.path, self.selection = _version(path), selection
        self._cameras = tuple(cameras)
        self._episodes = _episodes_declared(self.path)
        check(self.path, selection, ((None, i) for i in range(self._episodes)))
        path = self.path / "features.json"
        declared = text.read_object(path, _REMEDY)
        with reading(path, _LAYOUT, _REMEDY):
            _check_classes(path, declared)
            steps = _inner(_inner(declared)["steps"]["sequence"]["feature"])
            there = [*_inner(steps["observation"]), *(key for key in steps if key != "observation")]
            if _TEXT not in there:
                raise DemoError(f"{path}: key missing (steps/{_TEXT}), not in {_LAYOUT} layout of LIBERO; {_REMEDY}")
        self._features = feature_names(path, there, cameras, keys)

    @property
    def embodiment(self) -> Embodiment:
        """See `Source`; TFDS keeps neither joints' names nor a rate."""
        return Embodiment(recorded_cameras(self._features.cameras, None) or None)

    def listing(self, task: str | None = None) -> list[Episode]:
        """See `Source`; the first call reads every record."""
        told = ["" if isinstance(words, DemoError) else words for words in self._instructions]
        return [
            Episode(words, self.path, i)
            for i, words in enumerate(told)
            if (task is None or words in (task, "")) and self.selection.keeps(words, i)
        ]

    def stream(self, episodes: Sequence[Episode]) -> Iterator[Demo | DemoError]:
        """See `Source`; reads up to the last of them."""
        wanted = [episode.number for episode in episodes]
        if not wanted:
            return
        for i, steps in enumerate(self._records()):
            if i in wanted:
                try:
                    yield to_demo(f"{self.path}: episode {i}", steps, self._features, self._cameras, _decode)
                except DemoError as error:
                    yield error
            if i == wanted[-1]:
                break

    @functools.cached_property
    def _instructions(self) -> tuple[str | DemoError, ...]:
        """The instructions of every episode, in file order, or what is wrong with them."""
        found: list[str | DemoError] = []
        for i, steps in enumerate(self._records()):
            try:
                found.append(instruction_of(f"{self.path}: episode {i}", steps))
            except DemoError as error:
                found.append(error)
        if len(found) != self._episodes:
            raise DemoError(
                f"{self.path}: {len(found)} episodes, but dataset_info.json declares {self._episodes}; {_REMEDY}"
            )
        for oddity in text.oddities(words for words in found if isinstance(words, str)):
            logging.warning("%s: %s", self.path, oddity)
        return tuple(found)

    def _records(self) -> Iterator[Mapping[str, Any]]:
        """The steps of every episode, stacked by feature, with pictures still encoded."""
        tf, tfds = _tensorflow()
        with reading(self.path, _LAYOUT, _REMEDY):
            try:
                builder = tfds.builder_from_directory(str(self.path))
                data = builder.as_dataset(
                    split=_SPLIT,
                    decoders={"steps": tfds.decode.SkipDecoding()},
                    read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
                )
                for episode in data.as_numpy_iterator():
                    yield episode["steps"]
            except (tf.errors.OpError, AssertionError) as error:
                raise DemoError(f"{self.path}: damaged or truncated, a record cannot be read; {_REMEDY}") from error


def instruction_of(where: str, steps: Mapping[str, Any]) -> str:
    """The instruction of an episode; raises DemoError if its steps differ."""
    try:
        told = {bytes(words).decode() for words in steps[_TEXT]}
    except UnicodeDecodeError as error:
        raise DemoError(f"{where}: {_TEXT} is not UTF-8 text; {_REMEDY}") from error
    if not told:
        raise DemoError(f"{where}: {few(0)}; drop the demonstration or record it again")
    if len(told) != 1:
        raise DemoError(f"{where}: {len(told)} instructions, expected one; split or drop it")
    return told.pop()


def to_demo(where: str, steps: Mapping[str, Any], names: Any, cameras: Sequence[str], decode: Any) -> Demo:
    """An episode's steps, stacked by feature, as a Demo.

    Args:
      where: prefix of error messages.
      steps: feature -> (T, ...), pictures as encoded bytes; `observation` is a mapping of the same kind.
      names: `source.FeatureNames`.
      cameras: our names for `names.cameras`.
      decode: a picture's bytes -> (H, W, 3) uint8.
    """
    parts = {**steps, **steps["observation"]}
    count = len(parts[names.action])
    if wrong := [name for name in (names.state, *names.cameras, _TEXT) if len(parts[name]) != count]:
        raise DemoError(f"{where}: {count} actions, {len(parts[wrong[0]])} in {wrong[0]}; {_REMEDY}")
    for flag, only in (("is_first", 0), ("is_last", count - 1)):
        odd = np.flatnonzero(np.asarray(steps[flag], bool)) if flag in steps else np.zeros(0, int)
        if (odd := odd[odd != only]).size:
            raise DemoError(f"{where}: {flag} is set on step {odd[0]} of {count}, inside the episode; split or drop it")
    seen = []
    for name in names.cameras:
        try:
            seen.append(np.stack([decode(content) for content in parts[name]]))
        except ValueError as error:
            raise DemoError(f"{where}: {name} is no valid picture, or varies in size; {_REMEDY}") from error
    images = stack_cameras(where, cameras, seen, count)
    return checked(where, instruction_of(where, steps), images, parts[names.state], parts[names.action])


def _version(path: Path) -> Path:
    """The version's directory, which holds the files."""
    if (path / "dataset_info.json").exists():
        return path
    versions = sorted(found.parent for found in path.glob("*/dataset_info.json"))
    if len(versions) != 1:
        raise DemoError(f"{path}: holds {', '.join(v.name for v in versions)}; name one of these directories")
    return versions[0]


def _episodes_declared(path: Path) -> int:
    """The declared number of episodes; raises DemoError if a file is missing."""
    info_path = path / "dataset_info.json"
    info = text.read_object(info_path, _REMEDY)
    with reading(info_path, _LAYOUT, _REMEDY):
        splits = {split["name"]: split for split in info["splits"]}
        if _SPLIT not in splits:
            raise DemoError(f"{info_path}: no split {_SPLIT!r}, found {', '.join(splits)}")
        counts = splits[_SPLIT]["shardLengths"]
        if not isinstance(counts, list) or not all(str(count).isdecimal() for count in counts):
            raise DemoError(f"{info_path}: shardLengths are {text.named(counts)}, expected whole numbers; {_REMEDY}")
        lengths = [int(count) for count in counts]
        kind = info.get("fileFormat", "tfrecord")
        names = [f"{info['name']}-{_SPLIT}.{kind}-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))]
    if missing := [name for name in names if not (path / name).exists()]:
        raise DemoError(f"{path / missing[0]}: no such file, one of {len(missing)} missing; {_REMEDY}")
    return sum(lengths)


def _inner(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    return feature["featuresDict"]["features"]


def _check_classes(path: Path, feature: Any) -> None:
    if isinstance(feature, Mapping):
        name = feature.get("pythonClassName", _FEATURES)
        if not str(name).startswith(_FEATURES):
            raise DemoError(f"{path}: a feature of class {name}, expected one of TFDS's own; {_REMEDY}")
        for part in feature.values():
            _check_classes(path, part)


def _decode(content: bytes) -> np.ndarray:
    tf, _ = _tensorflow()
    try:
        return tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    except tf.errors.OpError as error:
        raise ValueError(str(error)[:120]) from error


@functools.cache
def _tensorflow() -> tuple[Any, Any]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError("RLDS datasets need TensorFlow and TFDS; pip install 'metalora_jax[rlds]'") from error
    tf.config.set_visible_devices([], "GPU")  # otherwise it takes all the memory that JAX needs
    return tf, tfds
