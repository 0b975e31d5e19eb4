"""Annotations of a LeRobot dataset in words: steps of a task and other wordings of it, as lerobot 0.6 writes them.

Two columns hold lists of remarks, each with a style and a text. Those of `language_persistent` are the same in all rows
of an episode and say when they begin; those of `language_events` stand in the row of the frame at which they were made.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from metalora_jax.data.demos import DemoError
from metalora_jax.data.instructions import normal
from metalora_jax.data.text import named
from metalora_jax.types import Demo
from metalora_jax.words import listed

COLUMNS = ("language_persistent", "language_events")
HINT = "keys use them: instruction=subtask, paraphrases=task_aug"


class Remark(NamedTuple):
    """A text, and the frame from which on it holds."""

    style: str
    first: int
    text: str


def add(where: str, demo: Demo, keys: Mapping[str, str], table: Any, fps: float) -> Demo:
    """The demonstration with the words that `keys` ask for.

    Args:
      where: prefix of error messages.
      demo: without them.
      keys: "instruction" -> the style that gives the steps; "paraphrases" -> the style that gives other wordings.
      table: the episode's rows, with those of COLUMNS that are there.
      fps: frames per second.

    Raises:
      DemoError: the episode has no remark of a style; or a remark is damaged.
    """
    if not (wanted := {part: keys[part] for part in ("instruction", "paraphrases") if part in keys}):
        return demo
    remarks = list(_remarks(where, table, fps))
    for part, style in wanted.items():
        found = [remark for remark in remarks if remark.style == style]
        if not found:
            shown = listed(sorted({remark.style for remark in remarks}), 8) or "none"
            raise DemoError(
                f"{where}: no annotation of style {style!r} for keys {part}={style}; its styles are {shown}"
            )
        if part == "instruction":
            steps = {remark.first: remark.text for remark in sorted(found, key=lambda remark: remark.first)}
            demo = demo._replace(steps=tuple((first, text) for first, text in steps.items() if first < table.num_rows))
        else:
            texts = {normal(remark.text): remark.text for remark in found}
            texts.pop(normal(demo.instruction), None)
            demo = demo._replace(paraphrases=tuple(texts.values()))
    return demo


def _remarks(where: str, table: Any, fps: float) -> Iterator[Remark]:
    """Those about the whole scene; what is said of one camera's picture (questions, traces) is no instruction."""
    for column in COLUMNS:
        if column not in table.column_names:
            continue
        cells = table[column].slice(0, 1 if column == COLUMNS[0] else table.num_rows).to_pylist()
        for frame, cell in enumerate(cells):
            if not isinstance(cell, list | None) or not all(isinstance(remark, dict) for remark in cell or ()):
                raise DemoError(f"{where}: {column} of frame {frame} is {named(cell)}, expected a list of annotations")
            for remark in cell or ():
                style, text = remark.get("style"), remark.get("content")
                if style is None or remark.get("camera") is not None:
                    continue
                if not isinstance(text, str) or not text.strip():
                    raise DemoError(f"{where}: {column} of frame {frame}: a {style} is {named(text)}, expected text")
                time = remark.get("timestamp")
                if column == COLUMNS[0] and (not isinstance(time, int | float) or not 0 <= time < math.inf):
                    raise DemoError(f"{where}: {column}: the timestamp of a {style} is {named(time)}, expected seconds")
                first = frame if time is None else math.ceil(time * fps - 0.5)
                yield Remark(str(style), first, text.strip())
