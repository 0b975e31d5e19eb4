"""Which linear maps get an adapter, and of what size: an ordered list of rules over module paths."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metalora_jax.words import listed


@dataclasses.dataclass(frozen=True)
class Rule:
    """What happens to the linear maps whose whole path matches `pattern`.

    Attributes:
      pattern: regular expression for a full module path, such as r"expert/.*/(q|v)_proj". The layers of a stack share
        one path.
      kind: "lora"; "dense" for full fine-tuning, which has no use for the fields below; or None to leave the maps
        frozen (for exceptions, ahead of a wider rule).
      rank: inner width r of the update.
      alpha: the update is scaled by alpha / rank, or alpha / sqrt(rank) with `rslora` (Kalajdzievski 2023).
      dropout: probability with which an input of the adapter (not of the base map) is zeroed in training.
      rslora: see alpha.
      b_std: standard deviation of B's start. 0 is LoRA's standard, where the adapted map starts equal to the base; but
        A then has no gradient, so a meta-learned start wants a small positive value.
    """

    pattern: str
    kind: str | None = "lora"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rslora: bool = False
    b_std: float = 0.0

    def __post_init__(self):
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"rule {self.pattern!r}: not a regular expression ({error})") from None
        for field, good, wanted in (
            ("kind", self.kind in ("lora", "dense", None), '"lora", "dense" or None'),
            ("rank", self.rank >= 1, "at least 1"),
            ("alpha", self.alpha > 0, "positive"),
            ("dropout", 0 <= self.dropout < 1, "in [0, 1)"),
            ("b_std", self.b_std >= 0, "at least 0"),
        ):
            if not good:
                raise ValueError(f"rule {self.pattern!r}: {field} must be {wanted}, not {getattr(self, field)!r}")

    @property
    def scale(self) -> float:
        """The factor before A B."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


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


def report(placement: Placement, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """A table, one line for each linear map: its path, its kernel's shape, and the rule that decides about it."""
    rules = resolve(placement, shapes, allow_unused=True)
    width = max(map(len, shapes), default=0)
    lines = []
    for path, shape in shapes.items():
        rule = rules.get(path)
        what = "frozen" if rule is None else f"dense ({rule.pattern})"
        if rule is not None and rule.kind == "lora":
            what = f"lora r={rule.rank} scale={rule.scale:g} ({rule.pattern})"
        lines.append(f"{path:<{width}}  {'x'.join(map(str, shape)):<14}  {what}")
    return "\n".join(lines)


def to_json(placement: Placement) -> list[dict[str, Any]]:
    """A JSON value that `from_json` turns back into an equal placement."""
    return [dataclasses.asdict(rule) for rule in placement]


def from_json(value: Sequence[Mapping[str, Any]]) -> Placement:
    """The inverse of `to_json`; unknown fields are refused by name."""
    known = {field.name for field in dataclasses.fields(Rule)}
    for number, fields in enumerate(value):
        if unknown := fields.keys() - known:
            raise ValueError(
                f"placement rule {number}: unknown field {min(unknown)!r}; known: {', '.join(sorted(known))}"
            )
    return tuple(Rule(**fields) for fields in value)
