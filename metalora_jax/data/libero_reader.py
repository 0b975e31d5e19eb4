"""Reads LIBERO's HDF5, whose layout `libero_hdf5` describes: strictly, and on past demonstrations that are bad."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from metalora_jax.data.demos import DemoError, checked, reading, stack_cameras
from metalora_jax.data.libero_words import Words, choose
from metalora_jax.data.text import named
from metalora_jax.types import Demo

LAYOUT, REMEDY = "LIBERO's", "record it again"
AS_IT_IS, TURNED, _MIRRORED = np.s_[:, :, :], np.s_[:, ::-1, ::-1], np.s_[:, :, ::-1]
# Of LIBERO's own files. robosuite's "opencv" flips the rows only: mirrored, compared with the turned ones.
_VIEWS = {"opengl": TURNED, "opencv": _MIRRORED}
_DEMO = re.compile(r"demo_(0|[1-9]\d*)")
_STEPS = frozenset((b"dones", b"rewards", b"states", b"robot_states"))  # what else has a row for each step


class Head(NamedTuple):
    """What a file says about its demonstrations, and which there are."""

    numbers: tuple[int, ...]  # in order; some may be missing between them
    words: Words | DemoError  # what they tell the robot


def head(path: Path) -> Head:
    """Reads it.

    Raises:
      DemoError: if there is no such file, it is damaged, or `num_demos` contradicts what is there.
    """
    _exists(path)
    with reading(path, LAYOUT, REMEDY), h5py.File(path, "r") as file:
        data = _group(path, file)
        there = _numbers(path, data)
        try:
            with reading(path, LAYOUT, REMEDY):
                return Head(there, _words(path, data))
        except DemoError as error:
            return Head(there, error)


def numbers(path: Path) -> tuple[int, ...]:
    """The numbers of the demonstrations in a file; raises DemoError as `head` does."""
    return head(path).numbers


_SUFFIX = "_rgb"


def camera(key: str) -> str:
    """A camera's name, from its key below obs."""
    return key.removesuffix(_SUFFIX)


def cameras(path: Path) -> tuple[str, ...]:
    """The cameras of a file's first demonstration; raises DemoError if there is none, or the file cannot be read."""
    with reading(path, LAYOUT, REMEDY), h5py.File(path, "r") as file:
        return tuple(camera(key) for key in file["data/demo_0/obs"] if key.endswith(_SUFFIX))


def control_rate(path: Path) -> float | None:
    """Steps per second, where a file of LIBERO's own says (`control_freq` of env_args); else None."""
    try:
        with h5py.File(path, "r") as file:
            said = json.loads(file["data"].attrs["env_args"])["env_kwargs"]["control_freq"]
    except (OSError, KeyError, ValueError, TypeError):  # what is wrong with the file is said where it is read
        return None
    return float(said) if type(said) in (int, float) and said > 0 else None


def _numbers(path: Path, data: h5py.Group) -> tuple[int, ...]:
    names = list(data)
    there = tuple(sorted(int(match[1]) for name in names if (match := _DEMO.fullmatch(name))))
    if odd := [name for name in names if name.startswith("demo_") and not _DEMO.fullmatch(name)]:
        raise DemoError(f"{path}: data/{odd[0]} has no number that counts from 0, such as demo_0; rename it")
    declared = _whole(f"{path}: num_demos", data.attrs["num_demos"])
    if declared != len(there):
        raise DemoError(f"{path}: num_demos is {declared}, there are {len(there)} demonstrations; fix the attribute")
    return there


def each(
    path: Path, cameras: Sequence[str], keys: Mapping[str, str], chosen: Sequence[int]
) -> Iterator[Demo | DemoError]:
    """The demonstrations of these numbers, or what is wrong with each.

    Raises:
      DemoError: if the file as a whole cannot be read, or all are read and `total` is not their sum.
    """
    _exists(path)
    keys = {camera: keys.get(camera, camera + _SUFFIX) for camera in cameras}
    with reading(path, LAYOUT, REMEDY), h5py.File(path, "r") as file:
        data = _group(path, file)
        instruction, view, libero = _words(path, data).instruction, _view(path, data), _is_libero(data)
        steps: int | None = 0
        for position, i in enumerate(chosen, start=1):
            demo: Demo | DemoError
            try:
                demo = _read_one(path, data, i, keys, view, instruction, libero)
                steps = None if steps is None else steps + len(demo.actions)
            except DemoError as error:
                demo, steps = error, None  # a wrong sum is then no fault of the file's
            if steps is not None and position == len(chosen) == len(_numbers(path, data)):
                _check_total(path, data, steps)
            yield demo


def _check_total(path: Path, data: h5py.Group, steps: int) -> None:
    if "total" in data.attrs and (said := _whole(f"{path}: total", data.attrs["total"])) != steps:
        raise DemoError(f"{path}: total is {said}, but the demonstrations have {steps} steps; fix the attribute")


def _exists(path: Path) -> None:
    if not path.exists():
        near = difflib.get_close_matches(path.name, sorted(file.name for file in path.parent.glob("*.hdf5")))
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise DemoError(f"{path}: no such demonstration file{hint}; record it with metalora collect")


def _group(path: Path, file: h5py.File) -> h5py.Group:
    if not isinstance(data := file["data"], h5py.Group):
        raise DemoError(f"{path}: data is an array, expected a group of demonstrations; {REMEDY}")
    return data


def _whole(where: str, value: Any) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise DemoError(f"{where} is {named(value)}, expected a whole number; fix the attribute")
    return int(value)


def _text(where: str, value: Any) -> str:
    """An attribute's text, which some libraries store as bytes."""
    try:
        found = value.decode("utf-8-sig") if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise DemoError(f"{where} is not UTF-8 text; set it") from error
    if not isinstance(found, str):
        raise DemoError(f"{where} is {named(found)}, expected text; set it")
    return found


def _is_libero(data: h5py.Group) -> bool:
    return "bddl_file_name" in data.attrs or "env_args" in data.attrs


def _view(path: Path, data: h5py.Group) -> tuple[slice, ...]:
    convention = _text(f"{path}: macros_image_convention", data.attrs["macros_image_convention"])
    views = _VIEWS if _is_libero(data) else {"opengl": TURNED, "opencv": AS_IT_IS}
    if convention not in views:
        wanted = " or ".join(views)
        raise DemoError(f"{path}: macros_image_convention is {convention!r}, expected {wanted}; fix the attribute")
    return views[convention]


def _words(path: Path, data: h5py.Group) -> Words:
    where = f"{path}: problem_info"
    try:
        info = json.loads(_text(where, data.attrs["problem_info"]))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DemoError(f"{where} is damaged, no valid JSON; {REMEDY}") from error
    if not isinstance(info, dict):
        raise DemoError(f"{where} is {named(info)}, expected a JSON object; {REMEDY}")
    recorded = info["language_instruction"]
    if not isinstance(recorded, str):
        raise DemoError(f"{path}: language_instruction of problem_info is {named(recorded)}, expected text; set it")
    recorded = recorded.strip('" ')
    if not _is_libero(data) or "provenance" in data.attrs:
        return Words(recorded)
    return choose(path.name.removesuffix(".hdf5").removesuffix("_demo"), recorded)


def _read_one(
    path: Path,
    data: h5py.Group,
    i: int,
    keys: Mapping[str, str],
    view: tuple[slice, ...],
    instruction: str,
    libero: bool,
) -> Demo:
    where, group = f"{path}: data/demo_{i}", data[f"demo_{i}"]
    with reading(where, LAYOUT, REMEDY):
        if not isinstance(group, h5py.Group) or not isinstance(observations := group["obs"], h5py.Group):
            raise DemoError(f"{where}: an array, expected a group of arrays and of obs; {REMEDY}")
        actions, seen = _array(where, group, "actions"), {*observations.id}
        turns = ("ee_ori",) if libero or b"ee_ori" in seen else ()
        alone = b"joint_states" in seen and b"ee_pos" not in seen
        state = ("joint_states",) if alone else ("ee_pos", *turns, "gripper_states")
        parts = {key: _array(where, observations, key) for key in state}
        if any(values.ndim != 2 or len(values) != len(actions) for values in parts.values()):
            shapes = ", ".join(f"obs/{key} {values.shape}" for key, values in parts.items())
            raise DemoError(f"{where}: {shapes} for actions {actions.shape}, expected as many rows; {REMEDY}")
        for step in sorted(_STEPS.intersection(group.id)):
            if (shape := _shape(group, step)) and shape[0] != len(actions):
                what = f"{step.decode()} {shape} for {len(actions)} actions"
                raise DemoError(f"{where}: {what}, expected as many rows; {REMEDY}")
        pictures = []
        for key in keys.values():
            picture = _array(where, observations, key)
            if picture.ndim != 4:
                wanted = "expected uint8 (T, H, W, 3); convert it"
                raise DemoError(f"{where}: obs/{key} is {picture.dtype} {picture.shape}, {wanted}")
            if len(picture) != len(actions):
                raise DemoError(f"{where}: {len(picture)} pictures in obs/{key} for {len(actions)} actions; {REMEDY}")
            pictures.append(picture[view])
        images = stack_cameras(where, tuple(keys), pictures, len(actions))
        demo = checked(where, instruction, images, np.concatenate(list(parts.values()), axis=1), actions)
        if (said := _whole(f"{where}: num_samples", group.attrs["num_samples"])) != len(actions):
            raise DemoError(f"{where}: num_samples is {said}, but there are {len(actions)} steps; {REMEDY}")
        return demo


def _shape(group: h5py.Group, key: bytes) -> tuple[int, ...]:
    """Of an array, which is not read; () if it is none."""
    found = h5py.h5o.open(group.id, key)
    return found.shape if isinstance(found, h5py.h5d.DatasetID) else ()


def _array(where: str, group: h5py.Group, key: str) -> np.ndarray:
    found = group[key]
    values = found[()] if isinstance(found, h5py.Dataset) else None
    if not isinstance(values, np.ndarray) or not values.ndim:
        raise DemoError(f"{where}: {key} is no array with a row for each step; {REMEDY}")
    return values
