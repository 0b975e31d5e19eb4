"""Configs are parsed by type: nothing is converted, or taken by its truth, and messages name the field."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pytest

from metalora_jax.fields import each, from_fields


class Inner(NamedTuple):
    rate: float
    steps: int = 1


class Section(NamedTuple):
    name: str
    count: int
    rate: float
    on: bool
    tasks: tuple[str, ...]
    interval: tuple[float, float]
    limit: int | None
    cameras: Sequence[str] = ()
    caps: int | Mapping[str, int] = 1
    mode: Literal["each", "product"] = "each"
    free: Any = None
    inner: Inner | None = None


SOUND = dict(name="a", count=3, rate=1, on=False, tasks=["t"], interval=(0, 1.5), limit=None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"limit": 4, "rate": 0.5, "tasks": ()},
        {"caps": {"a": 3}, "mode": "product", "free": object(), "cameras": ("x",)},
        {"inner": Inner(0.1)},
    ],
)
def test_sound_fields_pass(changes):
    made = from_fields(Section, SOUND | changes, "part")
    assert made.name == "a"
    assert isinstance(made.tasks, tuple)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": 3}, "part.name is 3; it must be text"),
        ({"count": "3"}, "part.count is '3'; it must be a whole number"),
        ({"count": 3.0}, r"part.count is 3\.0; it must be a whole number"),
        ({"count": True}, "part.count is True; it must be a whole number"),
        ({"rate": "1e-3"}, "part.rate is '1e-3'; it must be a number"),
        ({"rate": False}, "part.rate is False; it must be a number"),
        ({"rate": float("nan")}, "part.rate is nan; it must be a number"),
        ({"on": "false"}, "part.on is 'false'; it must be true or false"),
        ({"on": 1}, "part.on is 1; it must be true or false"),
        ({"tasks": "push"}, "part.tasks is 'push'; it must be a list, each text"),
        ({"tasks": ["push", 3]}, "part.tasks is .*; it must be a list, each text"),
        ({"cameras": "agentview"}, "part.cameras is 'agentview'; it must be a list, each text"),
        ({"interval": [0]}, r"part.interval is \[0\]; it must be a list of 2: a number, a number"),
        ({"limit": "none"}, "part.limit is 'none'; it must be a whole number or None"),
        ({"caps": {"a": "3"}}, "part.caps is .*; it must be a whole number or fields, each a whole number"),
        ({"mode": "all"}, "part.mode is 'all'; it must be 'each' or 'product'"),
    ],
)
def test_other_types_are_refused_by_name(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        from_fields(Section, SOUND | changes, "part")


def test_a_reader_of_its_own_decides_about_its_field():
    made = from_fields(
        Section, SOUND | {"inner": {"rate": 2}}, "part", {"inner": lambda x: from_fields(Inner, x, "in")}
    )
    assert made.inner == Inner(2)
    with pytest.raises(ValueError, match=r"in\.steps is 'x'; it must be a whole number"):
        from_fields(Section, SOUND | {"inner": {"rate": 2, "steps": "x"}}, "part", {"inner": lambda x: from_fields(Inner, x, "in")})  # fmt: skip  # noqa: E501


def test_an_unknown_field_is_held_against_the_known_ones():
    with pytest.raises(ValueError, match=r"no field part\.task; known: name, .*; did you mean tasks\?$"):
        from_fields(Section, SOUND | {"task": ("a",)}, "part")
    with pytest.raises(ValueError, match=r"no field part\.zzzz; known: name, [a-z, ]*$"):
        from_fields(Section, SOUND | {"zzzz": 1}, "part")


def test_named_sections_must_be_sections():
    with pytest.raises(ValueError, match="'abc' must be sections by name"):
        each(dict)("abc")
