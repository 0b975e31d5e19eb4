"""Sections of a config and JSON objects, made into the values that they describe, and back."""

import collections.abc
import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
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
      ValueError: a field is unknown, one without a default is missing, or a value is not of the field's type; it is
        named as `section.field`.
    """
    known, where = inspect.signature(kind).parameters, f"{section}." if section else "config."
    if not isinstance(fields, Mapping):
        raise ValueError(f"{section or 'the config'} is {fields!r}; it must have fields: {', '.join(known)}")
    if unknown := fields.keys() - known.keys():
        wrong = min(unknown, key=str)
        raise ValueError(f"no field {where}{wrong}; known: {', '.join(known)}{meant(wrong, known)}")
    required = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if missing := required - fields.keys():
        raise ValueError(f"{where}{min(missing)} is missing; the fields are: {', '.join(known)}")
    readers = parts or {}
    check_types(kind, {name: value for name, value in fields.items() if name not in readers}, where)
    return kind(**{name: readers.get(name, _fixed)(value) for name, value in fields.items()})


def check_types(kind: Callable[..., Any], values: Mapping[str, Any], where: str) -> None:
    """Refuses values that are not of the types that `kind` annotates: nothing is converted, or taken by its truth.

    A whole number may stand for a float, and a list for a tuple; true and false are no numbers.

    Args:
      kind: a NamedTuple or dataclass.
      values: some of its fields.
      where: what stands before a field's name in messages, such as "meta.".

    Raises:
      ValueError: one line with the field, its value and the expected type.
    """
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            raise ValueError(f"{where}{name} is {value!r}; it must be {_described(hints[name])}")


def meant(wrong: object, known: typing.Iterable[str]) -> str:
    """A suggestion for messages: "; did you mean inner_steps?", or "" where nothing is near."""
    near = difflib.get_close_matches(str(wrong), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def check_positive(values: Any, section: str, names: Iterable[str]) -> None:
    """Refuses fields of `values` that are not above zero, and finite; None is left to the field's meaning.

    Raises:
      ValueError: the field is named as `section.field`.
    """
    for name in names:
        value = getattr(values, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{section}.{name} is {value}; it must be positive")


def optional(part: Part) -> Part:
    """A reader of a section that may be None."""
    return lambda value: None if value is None else part(value)


def each(part: Part) -> Part:
    """A reader of a section whose fields have names of the user's own, and are all sections of the same kind."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError(f"{value!r} must be sections by name")
        return {name: part(fields) for name, fields in value.items()}

    return read


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


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; types that no config holds are taken as they are."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin in _MANY:
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and (not inner or inner[-1] is not ...):
            return len(value) == len(inner) and all(map(_fits, value, inner))
        return all(_fits(one, inner[0]) for one in value)
    if origin in _NAMED:
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and _fits(part, inner[1]) for key, part in value.items()
        )
    if hint in (None, types.NoneType):
        return value is None
    if hint is float:
        return type(value) in (int, float) and value == value  # NaN is not
    if hint in (int, str, bool):
        return type(value) is hint
    return True


_MANY = (tuple, list, collections.abc.Sequence, collections.abc.Iterable)
_NAMED = (dict, collections.abc.Mapping)
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "None"}


def _described(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_described, inner))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple and (not inner or inner[-1] is not ...):
        return f"a list of {len(inner)}: {', '.join(map(_described, inner))}"
    if origin in _MANY:
        return f"a list, each {_described(inner[0])}"
    if origin in _NAMED:
        return f"fields, each {_described(inner[1])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
