"""Which linear maps get an adapter, and of what size: an ordered list of rules over module paths."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metalora_jax.adapters.adapter import Kind
from metalora_jax.adapters.kinds import KINDS
from metalora_jax.adapters.lora import LoRA
from metalora_jax.fields import check_types, meant
from metalora_jax.words import listed

_DEFAULT = LoRA()


@dataclasses.dataclass(frozen=True)
class Rule:
    """What happens to the linear maps whose whole path matches `pattern`.

    Attributes:
      pattern: regular expression for a full module path, such as r"expert/.*/(q|v)_proj". The layers of a stack share
        one path.
      kind: the adapter that they get; None leaves them frozen (for exceptions, ahead of a wider rule).
    """

    pattern: str
    kind: Kind | None = _DEFAULT

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"rule {self.pattern!r}: not a regular expression ({error})") from None
        if not isinstance(self.kind, Kind | None):
            raise ValueError(f"rule {self.pattern!r}: kind must be a Kind such as LoRA(rank=4), not {self.kind!r}")


Placement = tuple[Rule, ...]


def resolve(placement: Placement, paths: Iterable[str], allow_unused: bool = False) -> dict[str, Rule]:
    """The rule of every adapted path. First match wins; a path that no rule matches stays frozen.

    Raises:
      ValueError: a rule decides about no path (unless `allow_unused`): a typing error, or an earlier rule takes all.
    """
    paths = list(paths)
    first = {path: next((i for i, r in enumerate(placement) if re.fullmatch(r.pattern, path)), None) for path in paths}
    unused = [rule for i, rule in enumerate(placement) if i not in first.values()]
    if unused and not allow_unused:
        pattern = unused[0].pattern
        taken = [path for path in paths if re.fullmatch(pattern, path)]
        why = (
            f"all its paths are taken by earlier rules: {listed(taken, 4)}"
            if taken
            else f"near paths: {listed(difflib.get_close_matches(pattern, paths, n=4, cutoff=0.0), 4) or '(none)'}"
        )
        raise ValueError(f"rule {pattern!r} places nothing; {why}")
    return {path: placement[i] for path, i in first.items() if i is not None and placement[i].kind is not None}


def to_json(placement: Placement) -> list[dict[str, Any]]:
    """A JSON value that `from_json` turns back into an equal placement: pattern, kind and the kind's own fields."""
    return [
        {"pattern": rule.pattern, "kind": None if rule.kind is None else rule.kind.name}
        | ({} if rule.kind is None else dataclasses.asdict(rule.kind))
        for rule in placement
    ]


def from_json(value: Sequence[Mapping[str, Any]]) -> Placement:
    """The inverse of `to_json`; a rule that names no kind is LoRA's.

    Raises:
      ValueError: a rule has no pattern, names an unknown kind, or has a field that its kind does not have or that is of
        another type.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(fields, Mapping) for fields in value):
        raise ValueError(f"placement is {value!r}; it must be a list of rules, each with a pattern")
    return tuple(_rule(f"placement rule {number}", dict(fields)) for number, fields in enumerate(value))


def _rule(where: str, fields: dict[str, Any]) -> Rule:
    if "pattern" not in fields:
        raise ValueError(f"{where}: 'pattern' is missing")
    pattern, name = fields.pop("pattern"), fields.pop("kind", LoRA.name)
    if not isinstance(pattern, str):
        raise ValueError(f"{where}: pattern is {pattern!r}; it must be text")
    if name is not None and (not isinstance(name, str) or name not in KINDS):
        raise ValueError(f"{where}: kind must be {', '.join(map(repr, KINDS))} or None, not {name!r}")
    known = [] if name is None else [field.name for field in dataclasses.fields(KINDS[name])]
    if unknown := fields.keys() - set(known):
        raise ValueError(
            f"{where}: unknown field {min(unknown)!r} of kind {name!r}; it has: {', '.join(known) or 'none'}"
            f"{meant(min(unknown), known)}"
        )
    if name is not None:
        check_types(KINDS[name], fields, f"{where}: ")
    try:
        return Rule(pattern, None if name is None else KINDS[name](**fields))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
