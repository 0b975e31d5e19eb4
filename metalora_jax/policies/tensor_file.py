"""Files of weights, read a tensor at a time: what is on the way from disk to device never fills the memory twice."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

_ZIP, _PICKLE = b"PK", b"\x80"


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

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._shapes:
            raise KeyError(name)
        with safe_open(self._path, "np") as tensors:
            return tensors.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def write(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file that torch's readers take."""
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors writes for the owner alone
