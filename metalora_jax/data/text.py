"""Text in files of demonstrations: always UTF-8, whatever the locale, and never anything but text.

A byte order mark is skipped, lines end with LF or CRLF and nowhere else: JSON may hold U+2028 as it is.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metalora_jax.data.demos import DemoError, unreadable

_IDS = re.compile(r"(\b(view|tb|language|initstate|noise|sample)( \d+)+|\bdemo ?\(?\d*\)?|\.hdf5)$")


def read(path: Path, remedy: str) -> str:
    """The text of a file.

    Raises:
      DemoError: if the file is missing, cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error, remedy) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DemoError(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8, or {remedy}") from error


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object that a file holds; raises DemoError as `read` does, or if it holds anything else."""
    return _object(f"{path}", read(path, remedy), remedy)


def read_lines(path: Path, remedy: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one on each line; empty lines are skipped. Raises DemoError as `read` does."""
    for number, line in enumerate(read(path, remedy).split("\n"), start=1):
        if line.strip():
            yield _object(f"{path}: line {number}", line, remedy)


def _object(where: str, text: str, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DemoError(f"{where}: damaged or truncated, no valid JSON from {place} on; {remedy}") from error
    except RecursionError as error:
        raise DemoError(f"{where}: damaged, JSON nested too deeply; {remedy}") from error
    if not isinstance(value, dict):
        raise DemoError(f"{where}: damaged, holds {named(value)}, expected a JSON object; {remedy}")
    return value


def named(value: object) -> str:
    """A value and its kind, as messages name them."""
    if value is None:
        return "missing"
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    shown = repr(value)
    return f"{shown[:60] + '...' if len(shown) > 60 else shown} ({kinds.get(type(value), type(value).__name__)})"


def same(text: str) -> str:
    """What texts share that differ only in case, white space, invisible characters, or how Unicode composes letters."""
    return " ".join(_visible(unicodedata.normalize("NFC", text)).lower().split())


def _visible(text: str) -> str:
    """Without characters that show nothing, such as a byte order mark or a zero-width space."""
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")


def oddities(texts: Iterable[str]) -> list[str]:
    """What is odd about instructions: each as one sentence.

    A policy reads the characters as they are. It has not seen decomposed letters or stray white space, and two forms of
    one instruction are two tasks.
    """
    found, forms = [], dict[str, str]()
    for text in dict.fromkeys(texts):
        if text != unicodedata.normalize("NFC", text):
            found.append(f"the instruction {text!r} has decomposed letters (Unicode NFD); write it in NFC")
        if text != _visible(text):
            found.append(f"the instruction {text!r} has invisible characters; remove them")
        if text != " ".join(text.split()):
            found.append(f"the instruction {text!r} has stray white space; remove it")
        if match := _IDS.search(text.replace("_", " ")):
            found.append(f"the instruction {text!r} ends like a file's name, with {match[0]!r}; remove it")
        if (other := forms.setdefault(same(text), text)) != text:
            found.append(f"{other!r} and {text!r} are the same words in two forms, and so two tasks; write one form")
    return found
