"""Frozen weights in Orbax's format, restored in pieces onto the devices of a mesh: no host ever holds them whole."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metalora_jax.types import PyTree


def save(path: Path, phi: PyTree) -> None:
    """Writes phi to a directory that must not exist yet; atomic, as Orbax's checkpoints are.

    Raises:
      ValueError: the directory exists.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), phi)


def restore(path: Path, shapes: PyTree, mesh: Mesh) -> PyTree:
    """Reads what `save` wrote, each array split over the mesh.

    Args:
      path: the directory.
      shapes: arrays or ShapeDtypeStructs of phi, as `nnx.eval_shape` gives them; dtypes are converted to theirs.
      mesh: devices along its first axis share an array's longest axis that they divide; other arrays are on all.

    Raises:
      ValueError: the directory does not hold these arrays.
    """

    def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding(leaf.shape, mesh))

    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.absolute(), jax.tree.map(placed, shapes))


def sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """How `restore` splits an array of this shape."""
    axis, parts = mesh.axis_names[0], mesh.devices.shape[0]
    divisible = [i for i, length in enumerate(shape) if length % parts == 0]
    split = max(divisible, key=lambda i: shape[i], default=None)
    return NamedSharding(mesh, PartitionSpec(*(axis if i == split else None for i in range(len(shape)))))
