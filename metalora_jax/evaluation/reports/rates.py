"""How the rates of a run were chosen, from its search.json: what was tried, and whether the best lies at an edge.

Only validation cells count here; no test episode is among these.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metalora_jax.evaluation.reports.document import Block, Heading, Table, Text
from metalora_jax.evaluation.reports.settings import Settings
from metalora_jax.evaluation.reports.tables import NONE, named, percent
from metalora_jax.machine import files
from metalora_jax.words import listed

FILE = "search.json"
STARTS = "starts.json"  # arm -> which of its alternatives was chosen
_BUDGETS = {"short": "few", "long": "many", "no_steps": "none"}


class Row(NamedTuple):
    """One choice: of a method, for the step counts that share it."""

    method: str
    budget: str
    optimizer: str
    learning_rate: float
    success: float | None  # on validation cells; None: it was chosen by loss
    episodes: int
    loss: float
    tried: Mapping[str, Sequence[float]]  # optimiser -> values, ascending

    @property
    def edge(self) -> str | None:
        """The choice is the "smallest", "largest" or "only one" of the values that were tried; None: none of these."""
        values = self.tried[self.optimizer]
        if len(values) == 1:
            return "only one"
        return {values[-1]: "largest", values[0]: "smallest"}.get(self.learning_rate)


def read(run_dir: Path) -> tuple[Row, ...]:
    """The choices of a run; none where no search was recorded."""
    file = run_dir / FILE
    if not file.exists():
        return ()
    known, rates = files.read_json(file), files.read_json(run_dir / "rates.json")
    return tuple(
        _row(method, budget, choice, known[method][budget])
        for method, budgets in rates.items()
        for budget, choice in budgets.items()
        if budget in known.get(method, {})
    )


def _row(method: str, budget: str, choice: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> Row:
    own = next(each for each in tried if all(each[name] == value for name, value in choice.items()))
    kinds = dict.fromkeys(each["optimizer"] for each in tried)
    values = {kind: sorted(each["learning_rate"] for each in tried if each["optimizer"] == kind) for kind in kinds}
    found = own["success"], own["episodes"], own["loss"]
    return Row(method, budget, choice["optimizer"], choice["learning_rate"], *found, values)


def cautions(rows: Sequence[Row], widenings: int) -> Iterable[str]:
    """Choices at an edge of what was tried, though grids could be widened by so many points."""
    at_edge = [
        f"{row.method}, {row.learning_rate:g} of {row.optimizer} ({row.edge}) for {_BUDGETS.get(row.budget)} steps"
        for row in rows
        if row.edge is not None
    ]
    if at_edge:
        bound = f", after widening by at most {widenings} points" if widenings else "; no grid was widened"
        yield f"Choices lie at the edge of what was tried{bound}, and better ones may lie beyond: {listed(at_edge)}."


def starts(run_dir: Path) -> list[str]:
    """A sentence for each arm that was trained in several ways."""
    if not (run_dir / STARTS).exists():
        return []
    known, said = files.read_json(run_dir / FILE), []
    for method, chosen in files.read_json(run_dir / STARTS).items():
        ways = [each for each in known if each.startswith(f"{method}@")]
        names = ", ".join(each.partition("@")[2] for each in ways)
        said.append(
            f"{method} was trained in {len(ways)} ways with the first meta-seed ({names}), each with its own search of "
            f"rates; {chosen.partition('@')[2]} did best on validation, and is what is tested."
        )
    return said


def blocks(rows: Sequence[Row], settings: Settings, ways: Sequence[str] = ()) -> Iterable[Block]:
    """The section of a report; `ways` are the sentences of `starts`."""
    if not rows:
        return
    yield Heading("How rates were chosen")
    by_success = any(row.success is not None for row in rows)
    yield Text(
        "On validation cells, whose conditions, demonstrations and starts no test cell has, with the first meta-seed. "
        + (
            "Chosen by success in closed loop, averaged over the step counts that share a choice; the lower loss on "
            "demonstrations that were not adapted to decides where two succeed alike."
            if by_success
            else "Chosen by the loss on demonstrations that were not adapted to, not by success in closed loop."
        )
    )

    def line(row: Row) -> list[str]:
        solved = NONE if row.success is None else f"{percent(row.success)}\nof {row.episodes}"
        tried = "\n".join(f"{kind}: {', '.join(f'{v:g}' for v in values)}" for kind, values in row.tried.items())
        chosen = f"{row.optimizer} {row.learning_rate:g}"
        return [
            *(named(row.method, settings), _BUDGETS.get(row.budget, row.budget), chosen),
            *(row.edge or "inside", solved, f"{row.loss:.3g}", tried),
        ]

    for sentence in ways:
        yield Text(sentence)
    head = ["method", "steps", "chosen", "of those tried", "solved in validation", "loss", "tried"]
    yield Table(head, [line(row) for row in rows])
