"""All checks of demonstrations that need no simulator, and no world."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from metalora_jax.evaluation.doctor import group as groups
from metalora_jax.evaluation.doctor import odd_commands, odd_motion, odd_pictures, whole
from metalora_jax.evaluation.doctor.findings import Finding, Outcome
from metalora_jax.evaluation.doctor.group import FEWEST, Group
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.evaluation.doctor.sets import Layout
from metalora_jax.words import listed, plural

_WHOLE: tuple[Callable[[Group], Outcome], ...] = (whole.ranges, whole.meaning, whole.gripper, whole.idle)
_MOTION: tuple[Callable[[Group], Outcome], ...] = (
    odd_motion.durations,
    odd_motion.idle_ends,
    odd_motion.smoothness,
    odd_motion.paths,
    odd_motion.duplicates,
)
_ODD = (*_MOTION, odd_commands.commands)
_SHOWN = 3  # files whose figures a note holds
_MOST = 1 / 3  # share of the episodes that may stand apart; where more do, there is no usual one


class Examined(NamedTuple):
    """The outcomes, and the groups that the page draws."""

    outcomes: tuple[Outcome, ...]
    groups: tuple[Group, ...]


def examine(layouts: Sequence[Layout], found: Sequence[Recording]) -> Examined:
    """Every check of each file or data set; the outcomes of one check over several files are put together."""
    by_check: dict[str, list[Outcome]] = {}
    made = []
    for layout in layouts:
        own = [r for r in found if r.file == layout.name]
        if not own:
            continue
        usual = groups.usual_widths(own)
        right = [r for r in own if (r.state.shape[1], r.actions.shape[1]) == usual]
        made.append(groups.make(layout, right))
        for outcome in (whole.names(layout, own), whole.rate(layout, own), *_of_group(made[-1])):
            by_check.setdefault(outcome.check, []).append(outcome)
    if found:
        by_check["counts"] = [whole.counts(found)]
        by_check["texts"] = [whole.texts(found)]
    return Examined(tuple(_merged(check, outcomes) for check, outcomes in by_check.items()), tuple(made))


def against_others(layouts: Sequence[Layout], found: Sequence[Recording]) -> tuple[Outcome, ...]:
    """Only how each episode moves, against the others of its file, where there are enough: for data of a known world.

    Commands are left to the world's own checks: scripted ones saturate, and say little about the motion that follows.
    """
    by_check: dict[str, list[Outcome]] = {}
    for layout in layouts:
        own = [r for r in found if r.file == layout.name]
        usual = groups.usual_widths(own) if own else ()
        right = [r for r in own if (r.state.shape[1], r.actions.shape[1]) == usual]
        if len(right) >= FEWEST:
            group = groups.make(layout, right)
            for check in _MOTION:
                by_check.setdefault((outcome := _unusual(group, check(group))).check, []).append(outcome)
    return tuple(_merged(check, outcomes) for check, outcomes in by_check.items())


def _of_group(group: Group) -> Iterator[Outcome]:
    yield from (check(group) for check in _WHOLE)
    yield from whole.explained(group, [*_odd(group), odd_pictures.pictures(group)])


def _odd(group: Group) -> list[Outcome]:
    if len(group) >= FEWEST:
        return [_unusual(group, check(group)) for check in _ODD]
    few = f"{plural(len(group), 'episode')}: {FEWEST} are needed to say what is usual"
    names = ("durations", "idle ends", "smoothness", "paths", "duplicates", "commands")
    return [Outcome(name, skipped=few) for name in names]


def _unusual(group: Group, outcome: Outcome) -> Outcome:
    """Episodes that are half of all are not the odd ones: then the data set is of two kinds."""
    if outcome.check == "duplicates":
        return outcome
    who = {number for finding in outcome.findings for number in finding.episodes}
    if len(who) <= _MOST * len(group):
        return outcome
    which = listed([str(number) for number in sorted(who)], 12)
    what = f"{len(who)} of {len(group)} episodes ({which}) stand apart in this: the data set is of several kinds"
    found = Finding(group.layout.name, what, "look at the strips, and split it", "warning", group.layout.name)
    return outcome._replace(findings=(found,))


def _merged(check: str, outcomes: Sequence[Outcome]) -> Outcome:
    if len(outcomes) == 1:
        return outcomes[0]
    findings = tuple(finding for outcome in outcomes for finding in outcome.findings)
    notes = [outcome.note for outcome in outcomes if outcome.note]
    more = f" and {len(notes) - _SHOWN} more files" if len(notes) > _SHOWN else ""
    skipped = "" if any(not outcome.skipped for outcome in outcomes) else outcomes[0].skipped
    return Outcome(check, findings, " | ".join(notes[:_SHOWN]) + more, skipped)
