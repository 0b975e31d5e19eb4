"""A grid of variants of one arm, written out as the arms of a comparison.

grid:
  start: meta                   the arm to vary, and the report's reference
  mode: each                    "each": one change at a time; "product": every combination, one value of each axis
  axes:
    rank:                       axis -> value -> dotted fields of the arm, and their new values
      1: {placement.0.rank: 1, placement.0.alpha: 2.0}
      16: {placement.0.rank: 16, placement.0.alpha: 32.0}
    method:
      Reptile: {meta: {...}, outer.learning_rate_of_rates: null}
"""

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from metalora_jax.fields import from_fields

MODES = ("each", "product")

Change = Mapping[str, Any]  # dotted field -> value


class Grid(NamedTuple):
    """The section `grid` of a config."""

    start: str
    mode: str
    axes: Mapping[str, Mapping[str, Change]]

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Grid":
        """Reads the section `grid`; see `fields.from_fields`."""
        return from_fields(cls, fields, "grid", {"axes": fixed})


class Variant(NamedTuple):
    """One arm of the grid."""

    name: str  # of the arm, and of its directory
    label: str  # shown in the report
    axis: str  # what it varies; "" if it is a combination
    change: Change


def expand(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with an arm for each variant, and with the report's labels, reference and figures set to them.

    The section `grid` is kept, as a record of the request. Other arms of the config are kept, too.

    Raises:
      ValueError: if the grid is empty or names an unknown arm, mode or field, or two variants are the same.
    """
    if "grid" not in config:
        raise ValueError("the config has no section `grid`: see configs/few_shot_ablation.py; few_shot compares arms")
    grid = Grid.from_config(config["grid"])
    if grid.start not in config["arms"]:
        raise ValueError(f"grid.start: no arm named {grid.start!r}; choose from {', '.join(config['arms'])}")
    start = changed(config["arms"][grid.start], {})
    arms, labels, made = dict(config["arms"]), dict(config["report"].get("labels", {})), [start]
    found = list(variants(grid))
    for variant in found:
        arm = changed(start, variant.change)
        if arm == start and grid.mode == "product":  # the start is a point of the grid: it is not run twice
            labels[grid.start] = variant.label
            continue
        if arm in made or variant.name in arms:
            raise ValueError(f"grid: {variant.name!r} appears twice, by its name or by its fields; leave one out")
        made.append(arm)
        arms[variant.name], labels[variant.name] = arm, variant.label
    report = {**config["report"], "reference": grid.start, "labels": labels}
    if len(groups := _groups(grid.start, found)) > 1:
        report["groups"] = groups
    return {**config, "arms": arms, "report": report}


def variants(grid: Grid) -> Iterator[Variant]:
    """The grid's variants of its start, without the start itself.

    Raises:
      ValueError: if the mode is unknown, or there is nothing to vary.
    """
    if grid.mode not in MODES:
        raise ValueError(f"grid.mode: no mode named {grid.mode!r}; choose from {', '.join(MODES)}")
    axes = {axis: list(values.items()) for axis, values in grid.axes.items()}
    if empty := [axis for axis, values in axes.items() if not values] or ([] if axes else ["axes"]):
        raise ValueError(f"grid.axes: {empty[0]!r} has nothing to vary")
    if grid.mode == "each":
        for axis, values in axes.items():
            for value, change in values:
                yield Variant(_slug([(axis, value)]), f"{axis}: {value}", axis, change)
        return
    for combination in itertools.product(*([(axis, *value) for value in values] for axis, values in axes.items())):
        together: dict[str, Any] = {}
        for axis, _, fields in combination:
            if shared := together.keys() & fields.keys():
                raise ValueError(f"grid.axes: {axis!r} and another axis both set {min(shared)!r}")
            together.update(fields)
        named = [(axis, value) for axis, value, _ in combination]
        yield Variant(_slug(named), ", ".join(f"{axis} {value}" for axis, value in named), "", together)


def changed(arm: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """A copy of `arm` with other values at dotted fields, such as "meta.inner_steps" or "placement.0.rank".

    Raises:
      ValueError: if the arm has no such field.
    """
    made = _mutable(arm)
    for path, value in change.items():
        *parents, last = path.split(".")
        inside = made
        for part in parents:
            inside = inside[_at(inside, part, path)]
        inside[_at(inside, last, path)] = value
    return fixed(made)


def _groups(start: str, found: Sequence[Variant]) -> dict[str, list[str]]:
    """Which arms share a figure: those of an axis with several values, and the other single changes together."""
    count = Counter(variant.axis for variant in found)
    groups: dict[str, list[str]] = {}
    for variant in found:
        title = variant.axis if count[variant.axis] > 1 else "single changes"
        groups.setdefault(title, [start]).append(variant.name)
    return groups


def _at(inside: Any, part: str, path: str) -> Any:
    """The key or index that `part` of a dotted field stands for."""
    known: list[str] = []
    if isinstance(inside, dict):
        known = list(inside)
    elif isinstance(inside, list):
        known = [str(i) for i in range(len(inside))]
    if part in known:
        return part if isinstance(inside, dict) else int(part)
    near = difflib.get_close_matches(part, known) or known
    raise ValueError(f"grid: the arm has no field {path!r}; {part!r} is none of: {', '.join(near) or 'nothing'}")


def _mutable(value: Any) -> Any:
    """A copy in which sequences are lists, whose items can be set."""
    if isinstance(value, Mapping):
        return {key: _mutable(each) for key, each in value.items()}
    return [_mutable(each) for each in value] if isinstance(value, list | tuple) else value


def fixed(value: Any) -> Any:
    """A copy in which sequences are tuples, as in the configs."""
    if isinstance(value, Mapping):
        return {key: fixed(each) for key, each in value.items()}
    return tuple(fixed(each) for each in value) if isinstance(value, list | tuple) else value


def _slug(named: Sequence[tuple[str, str]]) -> str:
    """A name for directories: letters, digits, and "_", "-", "."."""
    return "-".join(re.sub(r"[^\w.]+", "_", f"{axis}_{value}").strip("_") for axis, value in named)
