"""Writes a tree of tensors as a folder of Orbax, a piece at a time.

Orbax itself wants every tensor in memory at once, beside the policy that they are made from. So it writes its index and
its store with a number in place of each tensor, and TensorStore then puts the tensors there: the layout is that of the
Orbax that is installed, which older and newer ones read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from metalora_jax.policies.tensor_file import Pieces

_CHUNK = 64 << 20  # [bytes] at most, but for one row of the first axis


def write(folder: Path, tree: Mapping[str, Pieces], dtype_of: Callable[[str], np.dtype]) -> None:
    """Writes {"params": tree}, as openpi has it: one OCDBT store, Zarr 2.

    Args:
      folder: made here.
      tree: by openpi's names, paths joined by "/".
      dtype_of: what each tensor is stored in.
    """
    import orbax.checkpoint as ocp  # takes seconds, and no other program needs it

    folder = folder.absolute()
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder, {"params": _nested(dict.fromkeys(tree, np.zeros(1, np.float32)))})
    for name, tensor in tree.items():
        _put(folder, name, tensor, np.dtype(dtype_of(name)))


def _put(folder: Path, name: str, tensor: Pieces, dtype: np.dtype) -> None:
    place = f"params.{name.replace('/', '.')}/"
    spec = {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": f"file://{folder}/", "path": place}}
    layout = tensorstore.open(spec, open=True).result().spec().to_json()["metadata"]
    shape, opened, at = tensor.shape, None, 0
    for piece in tensor.pieces:
        rows = np.asarray(piece, dtype).reshape(-1, *shape[1:])
        if opened is None:  # chunks of whole pieces, or within one: none is written twice
            many = max(1, min(len(rows), _CHUNK * len(rows) // max(1, rows.nbytes)))
            kind = "bfloat16" if dtype.name == "bfloat16" else dtype.str
            own = layout | {"shape": list(shape), "chunks": [many, *shape[1:]], "dtype": kind}
            opened = tensorstore.open(spec | {"metadata": own}, create=True, delete_existing=True).result()
        opened[at : at + len(rows)].write(rows).result()
        at += len(rows)


def _nested(tree: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, value in tree.items():
        *outer, last = name.split("/")
        node = root
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = value
    return root
