"""Sections of a config and JSON objects, made into the values that they describe."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Made = TypeVar("Made")


def from_fields(kind: Callable[..., Made], fields: Mapping[str, Any], section: str) -> Made:
    """A NamedTuple or dataclass from one section of a config or a JSON object; lists become tuples.

    Raises:
      ValueError: a field is unknown, or one without a default is missing; it is named as `section.field`.
    """
    known = inspect.signature(kind).parameters
    if unknown := fields.keys() - known.keys():
        raise ValueError(f"no field {section}.{min(unknown)}; known: {', '.join(known)}")
    required = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if missing := required - fields.keys():
        raise ValueError(f"{section}.{min(missing)} is missing; the fields are: {', '.join(known)}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
