"""Whose frames are whose in the videos of a LeRobot dataset.

Version 3.0 puts many episodes into one video. `from_timestamp` and `to_timestamp` say where each one lies, and so do
the episodes' lengths, the number of frames that the video holds, and the numbers of its file: all of them must agree,
or a policy would be shown a neighbour's pictures. Times may be half a frame away.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources import pictures
from metalora_jax.data.sources.lerobot_info import REMEDY
from metalora_jax.data.sources.lerobot_meta import Clip, Row, numbers
from metalora_jax.data.sources.selection import listed

Counts = Callable[[Sequence[Row]], list[int]]  # how many rows of data each episode has


class Videos:
    """The videos of one camera; each is looked at once, when the first of its episodes is read."""

    def __init__(self, key: str, rows: Sequence[Row], fps: float, counts: Counts):
        """Opens nothing."""
        self._key, self._fps, self._counts = key, fps, counts
        found = [(row, clip) for row in rows if isinstance(clip := row.clips[key], Clip)]
        self._disordered: set[int] = set()  # episodes whose videos are not in their order
        met: tuple[int, ...] = ()
        self._placed: dict[Path, list[tuple[Row, Clip]]] = {}  # by the file that must hold them
        for i, (row, clip) in enumerate(found):
            path = self._likely(found, i)
            self._placed.setdefault(path, []).append((row, clip))
            order = numbers(path) if clip.end is not None else ()
            if order < met:
                self._disordered |= {found[i - 1][0].number, row.number}
            met = max(met, order)
        self._starts: dict[Path, tuple[pictures.Video, dict[int, int | str]]] = {}

    def find(self, row: Row, shape: Sequence[int]) -> Callable[[], pictures.Shots]:
        """Where the episode's pictures are; what it returns decodes them once, and may run in another thread."""
        clip = row.clips[self._key]
        if isinstance(clip, str):
            raise DemoError(clip)
        where = f"{clip.path}: episode {row.number}"
        if clip.path not in self._placed or all(other.number != row.number for other, _ in self._placed[clip.path]):
            what = "name this file, but the episodes before and after it are in another"
            raise DemoError(f"{where}: videos/{self._key}/chunk_index and file_index {what}; {REMEDY}")
        if row.number in self._disordered:
            what = "are not in the order of the episodes, so pictures may be another episode's"
            raise DemoError(f"{where}: videos/{self._key}/chunk_index and file_index {what}; {REMEDY}")
        if not clip.path.exists():
            what = f"no such file, named for episode {row.number} by chunk_index and file_index, or by its number"
            raise DemoError(f"{clip.path}: {what}; {REMEDY}")
        if clip.path not in self._starts:
            video = pictures.Video(clip.path)
            self._starts[clip.path] = video, self._places(self._placed[clip.path], video)
        video, starts = self._starts[clip.path]
        first = starts[row.number]
        if isinstance(first, str):
            raise DemoError(f"{where}: {first}; {REMEDY}")
        if clip.end is None:
            self._starts.pop(clip.path)  # nothing else is in it
        return functools.partial(video.shots, where, first, row.length, self._fps, shape)

    @staticmethod
    def _likely(found: Sequence[tuple[Row, Clip]], i: int) -> Path:
        """In which video an episode must be: in its neighbours', if they share one, whatever the episode says."""
        clip = found[i][1]
        around = [found[other][1].path for other in (i - 1, i + 1) if 0 <= other < len(found)]
        if clip.end is None or clip.path in around or not around or around[0] != around[-1]:
            return clip.path
        # At an end, a file of its own is nothing odd.
        return around[0] if len(around) == 2 or not clip.path.exists() else clip.path

    def _places(self, placed: Sequence[tuple[Row, Clip]], video: pictures.Video) -> dict[int, int | str]:
        """Episode -> the number of its first frame in the video, or what is wrong."""
        rows, frames = [row for row, _ in placed], video.length
        lengths = [row.length for row in rows]
        if placed[0][1].end is None:
            wrong = f"the video holds {frames} frames, but length is {lengths[0]}" if frames != lengths[0] else ""
            return {rows[0].number: wrong or self._wrong(frames, placed[0][1], 0, frames, video) or 0}
        ends = [clip.end or 0.0 for _, clip in placed]
        starts = [clip.start for _, clip in placed]
        spans = [round((end - start) * self._fps) for start, end in zip(starts, ends, strict=True)]
        gaps = [row.number != (rows[i - 1].number + 1 if i else row.number) for i, row in enumerate(rows)]
        believed = next((sizes for sizes in (lengths, spans) if sum(sizes) == frames), None)
        if believed is None and not any(gaps):
            believed = counted if sum(counted := self._counts(rows)) == frames else None
        if believed is None and not (any(gaps) and sum(lengths) < frames):
            said = f"{sum(lengths)} by their length and {sum(spans)} by from_timestamp and to_timestamp"
            what = f"the video holds {frames} frames, but its episodes ({_span(rows)}) have {said}"
            why = "chunk_index, file_index, length or timestamps are wrong, or frames are missing"
            return dict.fromkeys((row.number for row in rows), f"{what}: {why}")
        found: dict[int, int | str] = {}
        met = 0
        for i, row in enumerate(rows):
            if believed is None and gaps[i]:
                met = max(met, round(starts[i] * self._fps))  # frames of a deleted episode may be left there
            size = lengths[i] if believed is None else believed[i]
            found[row.number] = self._wrong(row.length, placed[i][1], met, size, video) or met
            met += size
        return found

    def _wrong(self, length: int, clip: Clip, first: int, size: int, video: pictures.Video) -> str:
        """What contradicts itself about an episode whose frames are `first` to `first + size` of the video."""
        sides = [("from_timestamp", "begin", clip.start, first), ("to_timestamp", "end", clip.end, first + size)]
        for name, verb, time, frame in sides:
            there = video.at(frame, self._fps)
            if time is not None and abs(time - there) * self._fps > pictures.HALF:
                what = f"videos/{self._key}/{name} is {time:.3f} s, but its frames {verb} at {there:.3f} s"
                return f"{what}, {abs(time - there) * self._fps:.2f} frames away"
        return f"length is {length}, but {size} frames of the video are its own" if length != size else ""


def _span(rows: Sequence[Row]) -> str:
    numbers = [row.number for row in rows]
    whole = all(b - a == 1 for a, b in itertools.pairwise(numbers))
    return f"{numbers[0]} to {numbers[-1]}" if whole and len(numbers) > 2 else listed(numbers)
