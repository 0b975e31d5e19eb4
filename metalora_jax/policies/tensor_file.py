"""Files of weights, read a tensor at a time: what is on the way from disk to device never fills the memory twice."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

_ZIP, _PICKLE = b"PK", b"\x80"
_ENTRY = 256  # [bytes] more than a type, a shape and a place in the file take
_DTYPES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "bool": "BOOL"} | {
    f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


class TensorFile(Mapping[str, np.ndarray]):
    """A safetensors file as a mapping from names to arrays; bfloat16 comes as ml_dtypes' type.

    The file is mapped again for every tensor: pages that were read would otherwise count as this process's memory.

    Raises:
      ValueError: if the file is missing, truncated, or of another format; it is never unpickled.
    """

    def __init__(self, path: Path):
        self._path = path
        if not path.is_file():
            pickles = sorted(p.name for p in path.parent.glob("*.bin")) + sorted(
                p.name for p in path.parent.glob("*.pt*")
            )
            instead = f" ({pickles[0]} is a pickle, which could run any code: convert it first)" if pickles else ""
            raise ValueError(f"{path} is missing{instead}")
        with path.open("rb") as file:
            start = file.read(9)
        if start == b"version h":
            raise ValueError(f"{path} is only a pointer of Git LFS, not the file itself; fetch it with: git lfs pull")
        # A safetensors file begins with the length of its header in 8 bytes, then the header, JSON.
        if start[8:] != b"{" and start.startswith((_ZIP, _PICKLE)):
            raise ValueError(f"{path} is a renamed PyTorch pickle, and could run any code; convert it first")
        try:
            with safe_open(path, "np") as tensors:
                self._shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged, download it again: {error}") from None

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of all tensors, by name; nothing is read for it."""
        return self._shapes

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._shapes:
            raise KeyError(name)
        with safe_open(self._path, "np") as tensors:
            return tensors.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


class Pieces(NamedTuple):
    """A tensor that is made as it is written, so that it is never in memory whole."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Iterable[np.ndarray]  # along the first axis, in order


def write(file: Path, tensors: Mapping[str, np.ndarray | Pieces]) -> None:
    """A safetensors file that torch's readers take; the library would hold all tensors in memory a second time.

    Raises:
      ValueError: a tensor is of a type that the format does not know.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # The format allows for spaces behind the header. Its place is left free until all is known.
    room = sum(len(json.dumps(name)) + _ENTRY for name in tensors) // 8 * 8 + 64
    with file.open("wb") as out:
        out.seek(8 + room)
        end = 0
        for name, tensor in tensors.items():
            if tensor.dtype.name not in _DTYPES:
                raise ValueError(f"{name} is {tensor.dtype.name}, which a safetensors file cannot hold")
            start, end = end, end + math.prod(tensor.shape) * tensor.dtype.itemsize
            shape = list(tensor.shape)
            header[name] = {"dtype": _DTYPES[tensor.dtype.name], "shape": shape, "data_offsets": [start, end]}
            for piece in tensor.pieces if isinstance(tensor, Pieces) else (tensor,):
                out.write(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
        text = json.dumps(header, separators=(",", ":")).encode()
        out.seek(0)
        out.write(room.to_bytes(8, "little") + text.ljust(room))
