"""What a dataset says of itself before a demonstration is read: its cameras, and what its actions are called."""

from collections.abc import Mapping
from pathlib import Path

import h5py

from metalora_jax.data.demos import reading
from metalora_jax.data.sources.hub import local
from metalora_jax.data.sources.lerobot_info import INFO, Info
from metalora_jax.data.sources.names import camera_name, feature_names

_USUAL = ("agentview", "eye_in_hand")  # in RLDS, as modified_libero_rlds has them
_RGB = "_rgb"


def cameras(path: str | Path, keys: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """All cameras of a dataset, in its order, by the names that `sources.open` takes.

    Args:
      path: see `sources.open`.
      keys: camera -> feature; such a feature is called by that name.

    Raises:
      DemoError: its metadata cannot be read.
    """
    path, keys = local(path), keys or {}
    if (path / INFO).exists():
        return tuple(camera_name(feature, keys) for feature in Info(path).pictures())
    files = [path] if path.is_file() else sorted(path.glob("*.hdf5"))
    if not files:
        return _USUAL
    with reading(files[0], "LIBERO's", "record it again"), h5py.File(files[0], "r") as file:
        found = next(iter(file["data"].values()))["obs"]
        return tuple(name.removesuffix(_RGB) for name in found if name.endswith(_RGB))


def action_names(path: str | Path, keys: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Names of the actions' dimensions, such as "shoulder_pan.pos"; none where the dataset does not give them.

    Raises:
      DemoError: its metadata cannot be read, or it has no feature for state or actions.
    """
    path = local(path)
    if not (path / INFO).exists():
        return ()
    info, single = Info(path), {part: name for part, name in (keys or {}).items() if part in ("state", "action")}
    return info.dimensions(feature_names(info.path, info.features, (), single, info.pictures()).action)
