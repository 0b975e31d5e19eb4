"""One long array in several pieces, which may be in memory, mapped from a file, or decoded when indexed."""

import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class Blocks:
    """One array (N, ...) in several pieces along its first axis, indexed like a whole one by arrays of row numbers."""

    def __init__(self, pieces: Sequence[Any]):
        self._pieces = pieces
        self._ends = np.cumsum([len(piece) for piece in pieces])
        self.shape = (int(self._ends[-1]), *pieces[0].shape[1:])
        self.dtype = pieces[0].dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(...) int -> (..., *shape[1:]), in memory."""
        rows = np.asarray(rows)
        out = np.empty((rows.size, *self.shape[1:]), self.dtype)
        for piece, chosen, at in self.parts(rows.reshape(-1)):
            out[chosen] = piece[at]
            _let_go(piece)
        return out.reshape(*rows.shape, *self.shape[1:])

    def parts(self, rows: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Each piece that some of the rows (n,) are in: the piece, which rows (n,) bool, and their places in it."""
        where = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(where):
            chosen, piece = where == number, self._pieces[number]
            yield piece, chosen, rows[chosen] - (self._ends[number] - len(piece))


def _let_go(piece: Any) -> None:
    """Of a mapped file's pages, which the system keeps: to this process they count as its own memory."""
    while isinstance(piece, np.ndarray):
        piece = piece.base
    if isinstance(piece, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        piece.madvise(mmap.MADV_DONTNEED)
