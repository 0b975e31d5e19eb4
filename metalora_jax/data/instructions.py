"""What is said at a frame: the instruction, one of its paraphrases, or the step of the task that is under way.

A table lists texts for each task, without the instruction itself. The frozen front is cached for a fixed number of
variants of every frame, so a paraphrase belongs to a variant: the first one keeps the instruction, or its steps.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalora_jax.data.text import same
from metalora_jax.types import Demo

Table = dict[str, tuple[str, ...]]


def normal(text: str) -> str:
    """The normal form of a text: texts that differ only in case, spaces, or how letters are composed share it."""
    return same(text)


def read(path: Path) -> Table:
    """The table in a JSON file `{"<task>": ["<text>", ...], ...}`; configs embed it whole, to determine a run.

    Raises:
      ValueError: if there is no such file, or it is not such a table.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
        return checked(fields)
    except OSError as error:
        raise ValueError(f"{path}: cannot read paraphrases ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON from line {error.lineno}, column {error.colno} on") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def checked(fields: Any) -> Table:
    """The table in `fields`, read from a file or from config.paraphrases.

    Raises:
      ValueError: if it is not a table, or a text appears twice under a task.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"paraphrases are a {type(fields).__name__}, expected " + '{"task": ["text", ...]}')
    for task, texts in fields.items():
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"paraphrases of {task}: expected a list of non-empty texts")
        if len({normal(text) for text in texts}) < len(texts):
            raise ValueError(f"paraphrases of {task}: a text appears twice; drop one")
    return {task: tuple(texts) for task, texts in fields.items()}


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(twice)} appears twice; merge its texts")
    return dict(pairs)


def paraphrased(demos: Mapping[str, Sequence[Demo]], table: Table) -> dict[str, list[Demo]]:
    """`demos` with the paraphrases of their tasks; a table may hold further tasks.

    Raises:
      ValueError: if a task is not in the table, or its instruction is among its own paraphrases.
    """
    if missing := demos.keys() - table.keys():
        raise ValueError(f"no paraphrases of {min(missing)}; add the task to the table, with [] if it has none")
    out = {}
    for task, recorded in demos.items():
        own = {normal(demo.instruction) for demo in recorded}
        if said := [text for text in table[task] if normal(text) in own]:
            raise ValueError(f"{task}: {said[0]!r} is the instruction itself, not a paraphrase; drop it")
        out[task] = [demo._replace(paraphrases=table[task]) for demo in recorded]
    return out


def said(demo: Demo, seed: int, row: int, variant: int, moments: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The texts for one variant of a demonstration's frames: 0 gets what was said there, the others a paraphrase each.

    Args:
      demo: the demonstration.
      seed: of the augmentation.
      row: of the demonstration's first frame; every demonstration uses its paraphrases in a different order.
      variant: of the frames; if there are more variants than texts, texts repeat.
      moments: (n,) the frames that are used.

    Returns:
      Each text with the positions in `moments` that it belongs to.
    """
    if variant > 0 and demo.paraphrases:
        order = np.random.default_rng([seed, row]).permutation(len(demo.paraphrases))
        return [(demo.paraphrases[order[variant % len(order)]], np.arange(len(moments)))]
    texts = demo.instruction, *(text for _, text in demo.steps)
    which = np.searchsorted([first for first, _ in demo.steps], moments, side="right")
    return [(texts[i], np.flatnonzero(which == i)) for i in np.unique(which)]


def wordings(demos: Sequence[Demo]) -> tuple[str, ...]:
    """Every text that is said in demonstrations of a task: instructions, steps and paraphrases."""
    texts = (
        text for demo in demos for text in (demo.instruction, *(step for _, step in demo.steps), *demo.paraphrases)
    )
    return tuple(dict.fromkeys(texts))


def later(steps: Sequence[tuple[int, str]], before: int) -> tuple[tuple[int, str], ...]:
    """The steps of a demonstration whose first `before` frames are cut off."""
    begun = [text for first, text in steps if first <= before]
    kept = ((first - before, text) for first, text in steps if first > before)
    return (*(((0, begun[-1]),) if begun else ()), *kept)
