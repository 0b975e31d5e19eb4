"""Demonstrations on disk, in LIBERO's HDF5 layout: one file for each task, `<task>_demo.hdf5`.

    data                attributes: env_name, problem_info (JSON: language_instruction), num_demos, total,
                        macros_image_convention; seeds and other JSON under `provenance` if recorded by us
    data/demo_<i>       attribute num_samples
      actions           (T, action_dim) float64, in [-1, 1] for an unshifted robot
      rewards, dones    (T,) uint8; 1 on the last step
      obs/<camera>_rgb  (T, H, W, 3) uint8
      obs/ee_pos        (T, 3) float64 [m]
      obs/ee_ori        (T, 3) float64 axis-angle [rad]; LIBERO only
      obs/gripper_states (T, state_dim - 3 or - 6) float64
      obs/joint_states  (T, state_dim) float64, instead of these where a robot's state is its joints alone

A file of LIBERO itself, official or written by `write_official`, also has

    data                attributes: bddl_file_name, bddl_file_content, env_args (JSON)
    data/demo_<i>       attributes model_file (MuJoCo's XML), init_state
      states            (T, n) float64, MuJoCo's flattened state before the action
      robot_states      (T, 9) float64: gripper 2, position 3, quaternion 4
      obs/ee_states     (T, 6) float64: ee_pos, ee_ori
      obs/joint_states  (T, 7) float64 [rad]

macros_image_convention is robosuite's: "opengl" pictures are upside down, and are turned by 180 degrees, as every VLA
sees them; those of other files ("opencv") are as policies see them. Files are written atomically, and read
strictly.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from metalora_jax.data import libero_reader
from metalora_jax.data.demos import DemoError, reading
from metalora_jax.data.libero_words import spoken as spoken  # of this layout's names, too
from metalora_jax.machine import files
from metalora_jax.types import Demo

SUFFIX = "_demo.hdf5"


class Origin(NamedTuple):
    """What LIBERO's files store about an episode besides its steps."""

    model_file: str  # the model in MuJoCo's XML
    env_name: str  # robosuite's name of the environment
    problem_name: str  # LIBERO's
    bddl_file_name: str
    bddl_file_content: str
    env_kwargs: Mapping[str, Any]  # JSON; the arguments of the environment


class Moment(NamedTuple):
    """What LIBERO's files store about the simulator at one step, before the action."""

    state: np.ndarray  # (n,) float64, MuJoCo's flattened state
    robot_state: np.ndarray  # (9,) float64: gripper 2, position 3, quaternion 4
    joint_state: np.ndarray  # (7,) float64 [rad]


class Recording(NamedTuple):
    """A demonstration, with the simulator's state if the simulator provides it (`envs.world.Traced`)."""

    demo: Demo
    origin: Origin | None = None
    moments: tuple[Moment, ...] = ()


def write(
    path: Path,
    demos: Sequence[Demo],
    cameras: Sequence[str],
    task: str,
    provenance: dict[str, Any],
    joints: bool = False,
) -> None:
    """Writes `demos` of one task to `path` atomically. `provenance` (JSON) holds seeds, noise and conditions.

    `joints`: the state is joint positions; else it is the hand's place, then the gripper.

    Raises:
      DemoError: if there is no demonstration, they do not share one instruction, or the disk is full.
    """
    attributes = {"env_name": task, "macros_image_convention": "opencv"}
    with _whole_file(path, demos, attributes, provenance) as data:
        for i, demo in enumerate(demos):
            hand = {"ee_pos": demo.state[:, :3], "gripper_states": demo.state[:, 3:]}
            observations = {"joint_states": demo.state} if joints else hand
            _write_one(data, i, demo, cameras, libero_reader.AS_IT_IS, observations)


def write_official(
    path: Path, recordings: Sequence[Recording], cameras: Sequence[str], provenance: dict[str, Any]
) -> None:
    """Writes recordings of one LIBERO task to `path` atomically, with everything that LIBERO's own scripts write.

    Raises:
      DemoError: see `write`; or if a recording lacks the simulator's state at some step, or its robot state is not
        LIBERO's (position, axis-angle, two fingers).
    """
    for i, recording in enumerate(recordings):
        if recording.origin is None or len(recording.moments) != len(recording.demo.actions):
            raise DemoError(
                f"{path}: recording {i} has {len(recording.moments)} simulator states for "
                f"{len(recording.demo.actions)} steps; record it with a simulator that implements envs.world.Traced"
            )
        if recording.demo.state.shape[1] != 8:
            raise DemoError(f"{path}: recording {i} has {recording.demo.state.shape[1]} state dimensions, LIBERO has 8")
    demos = [recording.demo for recording in recordings]
    with _whole_file(path, demos, _official_attributes(recordings), provenance) as data:
        for i, (demo, origin, moments) in enumerate(recordings):
            assert origin is not None
            states, robot_states, joint_states = (np.stack(values) for values in zip(*moments, strict=True))
            observations = {
                "ee_pos": demo.state[:, :3],
                "ee_ori": demo.state[:, 3:6],
                "ee_states": demo.state[:, :6],
                "gripper_states": demo.state[:, 6:],
                "joint_states": joint_states,
            }
            group = _write_one(data, i, demo, cameras, libero_reader.TURNED, observations)
            group["states"] = states.astype(np.float64)
            group["robot_states"] = robot_states.astype(np.float64)
            group.attrs["model_file"] = origin.model_file
            group.attrs["init_state"] = states[0]


def read(path: Path, cameras: Sequence[str], limit: int | None = None) -> list[Demo]:
    """Reads the first `limit` demonstrations (all of them when None), checking every array; see `stream`."""
    return list(stream(path, cameras, limit))


def stream(
    path: Path, cameras: Sequence[str], limit: int | None = None, keys: Mapping[str, str] | None = None, first: int = 0
) -> Iterator[Demo]:
    """Reads `limit` demonstrations (all of them when None) from the one at position `first` on, one at a time.

    Args:
      path: the file.
      cameras: in this order in `Demo.images`; with none, pictures are not read.
      limit: how many; None for all.
      keys: camera -> key below `obs`, if it is not `<camera>_rgb`.
      first: position of the first one, in the order of their numbers.

    Raises:
      DemoError: if the file is missing, truncated, lacks a key or a demonstration, or holds a value that is not finite.
    """
    there = libero_reader.numbers(path)[first:]
    if limit is not None and limit > len(there):
        raise DemoError(f"{path}: {limit} demonstrations requested, {len(there)} found; record more or request fewer")
    for demo in libero_reader.each(path, cameras, keys or {}, there[:limit]):
        if isinstance(demo, DemoError):
            raise demo
        yield demo


def count(path: Path) -> int:
    """How many demonstrations `path` holds; 0 if there is no file."""
    return len(libero_reader.numbers(path)) if path.exists() else 0


def picture_side(path: Path) -> int | None:
    """Height [px] of the pictures in a file's first demonstration; None where it has none.

    Raises:
      DemoError: if the file is damaged.
    """
    with reading(path, "LIBERO's", "record it again"), h5py.File(path, "r") as file:
        demo = next(iter(file["data"].values()), None)
        seen = [] if demo is None else [value for key, value in demo["obs"].items() if key.endswith("_rgb")]
        return int(seen[0].shape[1]) if seen else None


def provenance_of(path: Path) -> dict[str, Any]:
    """What `write` was told about a file's recordings: seeds, noise and conditions; {} for files of others.

    Raises:
      DemoError: if the file is damaged.
    """
    with reading(path, "LIBERO's", "record it again"), h5py.File(path, "r") as file:
        found = json.loads(file["data"].attrs.get("provenance", "{}"))
    return found if isinstance(found, dict) else {}


def _official_attributes(recordings: Sequence[Recording]) -> dict[str, Any]:
    if not recordings:
        return {}
    origin = recordings[0].origin
    assert origin is not None
    arguments = {
        "type": 1,  # robomimic's number for robosuite
        "env_name": origin.env_name,
        "problem_name": origin.problem_name,
        "bddl_file": origin.bddl_file_name,
        "env_kwargs": dict(origin.env_kwargs),
    }
    return {
        "env_name": origin.env_name,
        "problem_info": json.dumps({"problem_name": origin.problem_name, "domain_name": "robosuite"}),
        "macros_image_convention": "opengl",
        "bddl_file_name": origin.bddl_file_name,
        "bddl_file_content": origin.bddl_file_content,
        "env_args": json.dumps(arguments),
    }


def _write_one(
    data: h5py.Group,
    i: int,
    demo: Demo,
    cameras: Sequence[str],
    view: tuple[slice, ...],
    observations: Mapping[str, np.ndarray],
) -> h5py.Group:
    group, end = data.create_group(f"demo_{i}"), np.zeros(len(demo.actions), np.uint8)
    end[-1] = 1
    group.attrs["num_samples"] = len(demo.actions)
    group["actions"] = demo.actions.astype(np.float64)
    group["rewards"] = group["dones"] = end
    for c, camera in enumerate(cameras):
        pictures = demo.images[:, c][view]
        group.create_dataset(f"obs/{camera}_rgb", data=pictures, compression="lzf", shuffle=True)
    for key, values in observations.items():
        group[f"obs/{key}"] = values.astype(np.float64)
    return group


@contextlib.contextmanager
def _whole_file(
    path: Path, demos: Sequence[Demo], attributes: Mapping[str, Any], provenance: Mapping[str, Any]
) -> Iterator[h5py.Group]:
    """The group `data` of a file that appears only once it is complete."""
    if not demos:
        raise DemoError(f"{path}: no demonstration to write; record at least one")
    if len({d.instruction for d in demos}) != 1:
        raise DemoError(f"{path}: demonstrations of one file must share one instruction")
    content = io.BytesIO()  # HDF5 itself crashes the process when the disk is full
    with h5py.File(content, "w") as file:
        data = file.create_group("data")
        info = json.loads(attributes.get("problem_info", "{}"))
        data.attrs.update(attributes)
        data.attrs["problem_info"] = json.dumps({**info, "language_instruction": demos[0].instruction})
        data.attrs["num_demos"] = len(demos)
        data.attrs["total"] = sum(len(d.actions) for d in demos)
        data.attrs["provenance"] = json.dumps(provenance)
        yield data
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.atomic_file(path) as staging:
            staging.write_bytes(content.getbuffer())
    except OSError as error:
        raise DemoError(f"{path}: cannot be written ({error.strerror}); free some space and record it again") from error
