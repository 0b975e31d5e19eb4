"""Demonstrations on disk, in LIBERO's HDF5 layout: one file for each task, `<task>_demo.hdf5`.

    data                attributes: env_name, problem_info (JSON: language_instruction), num_demos, total,
                        macros_image_convention ("opencv": first row on top), seeds and other JSON under `provenance`
    data/demo_<i>       attribute num_samples
      actions           (T, action_dim) float64, in [-1, 1] for an unshifted robot
      rewards, dones    (T,) uint8; 1 on the last step
      obs/<camera>_rgb  (T, H, W, 3) uint8
      obs/ee_pos        (T, 3) float64 [m]
      obs/gripper_states (T, state_dim - 3) float64

Files are written whole or not at all, and read strictly.
"""

import difflib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metalora_jax.types import Demo


class DemoError(ValueError):
    """A demonstration file that cannot be used; the message names the file, the key and the remedy."""


def write(path: Path, demos: Sequence[Demo], cameras: Sequence[str], task: str, provenance: dict[str, Any]) -> None:
    """Writes `demos` of one task to `path` atomically. `provenance` (JSON) tells seeds, noise and condition.

    Raises:
      DemoError: if there is no demonstration, they do not share one instruction, or the disk is full.
    """
    if not demos:
        raise DemoError(f"{path}: no demonstration to write; record at least one")
    if len({d.instruction for d in demos}) != 1:
        raise DemoError(f"{path}: demonstrations of one file must share one instruction")
    content = io.BytesIO()  # HDF5 itself brings the process down when the disk is full
    with h5py.File(content, "w") as file:
        data = file.create_group("data")
        data.attrs["env_name"] = task
        data.attrs["problem_info"] = json.dumps({"language_instruction": demos[0].instruction})
        data.attrs["macros_image_convention"] = "opencv"
        data.attrs["num_demos"] = len(demos)
        data.attrs["total"] = sum(len(d.actions) for d in demos)
        data.attrs["provenance"] = json.dumps(provenance)
        for i, demo in enumerate(demos):
            group, end = data.create_group(f"demo_{i}"), np.zeros(len(demo.actions), np.uint8)
            end[-1] = 1
            group.attrs["num_samples"] = len(demo.actions)
            group["actions"] = demo.actions.astype(np.float64)
            group["rewards"] = group["dones"] = end
            for c, camera in enumerate(cameras):
                group.create_dataset(f"obs/{camera}_rgb", data=demo.images[:, c], compression="lzf", shuffle=True)
            group["obs/ee_pos"] = demo.state[:, :3].astype(np.float64)
            group["obs/gripper_states"] = demo.state[:, 3:].astype(np.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DemoError(f"{path}: cannot be written ({error.strerror}); make room, and record it again") from error
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path, cameras: Sequence[str], limit: int | None = None) -> list[Demo]:
    """Reads the first `limit` demonstrations (all of them when None), checking every array.

    Raises:
      DemoError: if the file is missing, truncated, lacks a key or a demonstration, or holds a value that is not finite.
    """
    if not path.exists():
        near = difflib.get_close_matches(path.name, sorted(file.name for file in path.parent.glob("*.hdf5")))
        hint = f" (there is {', '.join(near)})" if near else ""
        raise DemoError(f"{path}: no such demonstration file{hint}; record it with experiments/collect.py")
    try:
        with h5py.File(path, "r") as file:
            data = file["data"]
            instruction = json.loads(data.attrs["problem_info"])["language_instruction"]
            count = int(data.attrs["num_demos"])
            if limit is not None and limit > count:
                raise DemoError(f"{path}: {limit} demonstrations wanted, {count} there; record more or ask for fewer")
            return [_read_one(path, data, i, cameras, instruction) for i in range(count if limit is None else limit)]
    except DemoError:
        raise
    except KeyError as error:
        raise DemoError(f"{path}: key missing ({str(error)[:120]}); the file is not in LIBERO's layout") from error
    except (OSError, ValueError) as error:
        raise DemoError(f"{path}: damaged or truncated ({str(error)[:120]}); record it anew") from error


def count(path: Path) -> int:
    """How many demonstrations `path` holds; 0 where there is no file."""
    if not path.exists():
        return 0
    try:
        with h5py.File(path, "r") as file:
            return int(file["data"].attrs["num_demos"])
    except (OSError, KeyError) as error:
        raise DemoError(f"{path}: damaged or truncated ({str(error)[:120]}); record it anew") from error


def _read_one(path: Path, data: h5py.Group, i: int, cameras: Sequence[str], instruction: str) -> Demo:
    group = data[f"demo_{i}"]
    actions = group["actions"][()].astype(np.float32)
    steps = len(actions)
    images = np.stack([group[f"obs/{camera}_rgb"][()] for camera in cameras], axis=1)
    state = np.concatenate([group["obs/ee_pos"][()], group["obs/gripper_states"][()]], axis=1).astype(np.float32)
    where = f"{path}: data/demo_{i}"
    if steps == 0 or len(images) != steps or len(state) != steps:
        raise DemoError(f"{where}: {steps} actions, {len(images)} images and {len(state)} states; record it anew")
    if images.dtype != np.uint8 or images.ndim != 5 or images.shape[-1] != 3:
        raise DemoError(f"{where}: images are {images.dtype} {images.shape}, wanted uint8 (T, C, H, W, 3)")
    for name, values in (("actions", actions), ("state", state)):
        if not np.isfinite(values).all():
            step = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise DemoError(f"{where}: {name} at step {step} is not finite; drop or record the demonstration anew")
    return Demo(instruction, images, state, actions)
