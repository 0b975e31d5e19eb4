"""A tree of tensors in a folder of Orbax, read a tensor at a time: a checkpoint never fills the memory twice.

Orbax writes a JSON index, `_METADATA`, and each tensor as a Zarr array, most often in one OCDBT store for all of them.
They are opened by TensorStore, as Orbax itself does. Orbax's own readers want to know the whole tree beforehand, differ
from version to version, and keep 100 MB of every folder in memory.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from metalora_jax.machine import files
from metalora_jax.machine.hub import short

Shape = tuple[int, ...]

INDEX, STORE = "_METADATA", "manifest.ocdbt"


class OrbaxTree(Mapping[str, np.ndarray]):
    """The tensors under openpi's names, paths joined by "/"; bfloat16 comes as ml_dtypes' type.

    Reads what PyTreeCheckpointer, StandardCheckpointer and CheckpointManager (an item's folder) of Orbax 0.11 and 0.12
    write. The tree may stand under "params", as openpi has it, and its leaves may be called "value", as those of a
    saved `nnx.State` are: both are taken off.

    Attributes:
      shapes: of every tensor, known without reading one.

    Raises:
      ValueError: the folder is missing, damaged or half copied, or a tensor in it is, when it is read.
    """

    def __init__(self, folder: Path):
        self._folder = folder.absolute()
        if not (self._folder / INDEX).is_file():
            raise ValueError(f"{folder} is no folder of Orbax, or only half copied: {INDEX} is missing; copy it whole")
        index = files.read_json(self._folder / INDEX)
        try:
            entries = [entry for entry in index["tree_metadata"].values() if not _empty(entry)]
            keys = [tuple(str(key["key"]) for key in entry["key_metadata"]) for entry in entries]
        except (KeyError, TypeError, AttributeError) as error:
            raise self._damaged(INDEX, error) from None
        self._zarr3 = bool(index.get("use_zarr3"))
        # Where Orbax leaves out chunks of nothing but zeros, one that is missing is no sign of damage.
        self._sparse = not index.get("store_array_data_equal_to_fill_value", False)
        self._ocdbt = bool(index.get("use_ocdbt", (self._folder / STORE).exists()))
        if self._ocdbt and not (self._folder / STORE).is_file():
            raise ValueError(f"{folder} is only half copied: {STORE} is missing; copy it again, whole")
        self._keys = dict(zip(_names(keys), keys, strict=True))
        self.shapes: dict[str, Shape] = {name: tuple(self._open(name).shape) for name in self._keys}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._keys:
            raise KeyError(name)
        opened = self._open(name)
        try:
            return opened.read().result()
        except Exception as error:  # TensorStore raises several kinds
            raise self._damaged(name, error) from None

    def dtype(self, name: str) -> np.dtype:
        """What a tensor is stored in, without reading it."""
        return self._open(name).dtype.numpy_dtype

    def __contains__(self, name: object) -> bool:
        return name in self._keys  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def _open(self, name: str) -> Any:
        path = f"{'.'.join(self._keys[name])}/"
        apart = {"driver": "file", "path": f"{self._folder}/{path}"}
        store = {"driver": "ocdbt", "base": f"file://{self._folder}/", "path": path}
        spec = {
            "driver": "zarr3" if self._zarr3 else "zarr",
            "kvstore": store if self._ocdbt else apart,
            "fill_missing_data_reads": self._sparse,
        }
        try:
            return tensorstore.open(spec, open=True, read=True).result()
        except Exception as error:  # see above
            raise self._damaged(name, error) from None

    def _damaged(self, what: str, error: Exception) -> ValueError:
        why = f"{what} cannot be read ({short(error)[:200]})"
        return ValueError(f"{self._folder} is damaged, or only half copied: {why}; copy it again, whole")


def _empty(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of the index stands for a container without anything in it."""
    return bool(entry["value_metadata"].get("skip_deserialize"))


def _names(keys: list[tuple[str, ...]]) -> list[str]:
    if all(key[:1] == ("params",) for key in keys):
        keys = [key[1:] for key in keys]
    if all(key[-1:] == ("value",) for key in keys):
        keys = [key[:-1] for key in keys]
    return ["/".join(key) for key in keys]
