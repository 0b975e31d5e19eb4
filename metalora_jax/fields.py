"""Sections of a config and JSON objects, made into the values that they describe, and back."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Made = TypeVar("Made")
Part = Callable[[Any], Any]


def from_fields(
    kind: Callable[..., Made], fields: Mapping[str, Any], section: str = "", parts: Mapping[str, Part] | None = None
) -> Made:
    """A NamedTuple or dataclass from one section of a config or a JSON object; lists become tuples.

    Args:
      kind: what is made.
      fields: the section.
      section: its name, for messages; "" for a whole config.
      parts: what reads a field that is a section of its own, by the field's name.

    Raises:
      ValueError: a field is unknown, or one without a default is missing; it is named as `section.field`.
    """
    known, where = inspect.signature(kind).parameters, f"{section}." if section else "config."
    if not isinstance(fields, Mapping):
        raise ValueError(f"{section or 'the config'} is {fields!r}; it must have fields: {', '.join(known)}")
    if unknown := fields.keys() - known.keys():
        raise ValueError(f"no field {where}{min(unknown)}; known: {', '.join(known)}")
    required = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if missing := required - fields.keys():
        raise ValueError(f"{where}{min(missing)} is missing; the fields are: {', '.join(known)}")
    readers = parts or {}
    return kind(**{name: readers.get(name, _fixed)(value) for name, value in fields.items()})


def optional(part: Part) -> Part:
    """A reader of a section that may be None."""
    return lambda value: None if value is None else part(value)


def each(part: Part) -> Part:
    """A reader of a section whose fields have names of the user's own, and are all sections of the same kind."""
    return lambda value: {name: part(fields) for name, fields in value.items()}


def to_fields(value: Any) -> Any:
    """The JSON value that `from_fields` made `value` of; fields that were left out have their defaults.

    What has a `to_json` of its own decides about itself.
    """
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: to_fields(part) for name, part in zip(value._fields, value, strict=True)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_fields(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_fields(part) for name, part in value.items()}
    return [to_fields(part) for part in value] if isinstance(value, list | tuple) else value


def _fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
