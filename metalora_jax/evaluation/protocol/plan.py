"""Which episodes a comparison consists of, and the adapted policies that still have to run them.

Every adapted policy runs the episodes of its cell. After `retention_steps` on the fewest demonstrations it also runs
earlier tasks; so do the policies between it and the base (`retention_scales`), on its own task and on the earlier
ones; and in one episode the adapter is for its own instruction alone (`retention_gated`). After `instruction_steps` it
runs its own task under another task's instruction. The reference, with its first seed, runs it after `altered_steps`
with each of its inputs replaced. An arm that takes no steps runs all of this once, but has no adapter to scale or gate.

The first draw of demonstrations of all methods and tasks comes before the second: a comparison that is stopped early
lacks draws, but no method.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax

from metalora_jax import adapters
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import World, played
from metalora_jax.evaluation import alterations
from metalora_jax.evaluation.protocol import few_shot, identified
from metalora_jax.evaluation.protocol.arms import Adaptation, Arm, Choice
from metalora_jax.evaluation.protocol.few_shot import Cell, DataSet, Protocol
from metalora_jax.evaluation.protocol.identified import Identifier
from metalora_jax.evaluation.reports.records import Episode, EpisodeLog
from metalora_jax.evaluation.rollout import Job, Rollout
from metalora_jax.machine.processes import ALONE, Host
from metalora_jax.machine.progress import progress

BASE = "base"  # the method name of the frozen policy, which is not adapted
RETENTION = "base"  # the split of earlier tasks: those that the base and the adapters were trained on

MEMORY = 4e9  # [bytes] of adapted parameters kept in memory for their episodes

Stamps = Mapping[tuple[str, int], str]  # (method, meta-seed) -> fingerprint


class Work(NamedTuple):
    """One adaptation, and the episodes that wait for it."""

    arm: Arm | Identifier
    cell: Cell
    missing: dict[int, list[Episode]]  # gradient steps -> episodes

    @property
    def bytes(self) -> int:
        """Of the adapted parameters."""
        if isinstance(self.arm, Identifier):
            return 0
        policies = {(step, record.scale) for step, records in self.missing.items() for record in records}
        return len(policies) * sum(leaf.nbytes for leaf in jax.tree.leaves(self.arm.meta_params["theta"]))


def plan(
    arms: Sequence[Arm | Identifier],
    choices: Mapping[str, Mapping[str, Choice]],
    adapt: Adaptation,
    test: DataSet,
    protocol: Protocol,
    where: World,
    log: EpisodeLog,
    stamps: Stamps,
    host: Host = ALONE,
    reference: str | None = None,
) -> Iterator[list[Job]]:
    """Adapts every arm to every cell that lacks episodes, and yields those episodes in batches that fit the memory.

    Each of several hosts handles its share of all episodes, whatever its own log already has.
    """

    def adapted(work: Work) -> list[Job]:
        arm, cell, missing = work
        if isinstance(arm, Identifier):
            return _identified(arm, choices[arm.name], cell, missing[0], test)
        steps = list(missing)
        results = few_shot.adapted_at(arm, adapt, choices[arm.name], cell, test, protocol, steps)
        own = (where.instruction(cell.plays),)
        return [
            Job(
                task,
                arm.placement,
                theta if scale is None else adapters.scaled(theta, arm.placement, scale),
                tuple(_rollout(record, seconds, loss) for record in records),
                cell.draw,
                only_for=own if gated else None,
            )
            for step, theta, seconds, loss in results
            for (task, scale, gated), records in _by_policy(missing[step]).items()
        ]

    jobs = _base_jobs(test, protocol, where, log, stamps[BASE, 0], host)
    for batch in _batches(_work(arms, test, protocol, where, log, stamps, host, reference)):
        found = progress(few_shot.side_by_side(adapted, batch), description="adaptation, cells", total=len(batch))
        yield jobs + [job for made in found for job in made]
        jobs = []
    if jobs:
        yield jobs


def _identified(
    arm: Identifier, choices: Mapping[str, Choice], cell: Cell, missing: Sequence[Episode], test: DataSet
) -> list[Job]:
    """The episodes of the base through a map."""
    found = identified.fit(arm, choices, cell, test)
    return [
        Job(
            task,
            arm.placement,
            None,
            tuple(_rollout(record, found.seconds, found.loss) for record in records),
            cell.draw,
            found.action_map,
        )
        for (task, _, _), records in _by_policy(missing).items()
    ]


def _work(
    arms: Sequence[Arm | Identifier],
    test: DataSet,
    protocol: Protocol,
    where: World,
    log: EpisodeLog,
    stamps: Stamps,
    host: Host,
    reference: str | None,
) -> Iterator[Work]:
    first_seed = min(arm.meta_seed for arm in arms)
    adaptations = [
        (arm, shots == protocol.shots[0], number, cell)
        for arm in arms
        for shots in protocol.shots
        for number, cell in enumerate(test.cells[shots])
    ]
    adaptations.sort(key=lambda adaptation: adaptation[-1].draw)
    for arm, headline, number, cell in host.share(adaptations):
        missing = {}
        kind = arm.kind if isinstance(arm, Identifier) else None
        for step in (0,) if kind else protocol.steps if headline else protocol.shots_steps:

            def due(steps: int, headline: bool = headline, step: int = step, always: bool = kind is not None) -> bool:
                return headline and steps > 0 and (always or step == steps)

            wanted = _own(cell, step, protocol, where)
            if due(protocol.retention_steps):
                earlier = _earlier(cell, number, step, protocol, where)
                between = [] if kind else _scaled([*wanted, *earlier], protocol)
                wanted += [*earlier, *between, *([] if kind else _gated(earlier, protocol))]
            if due(protocol.instruction_steps):
                wanted += _misled(cell, step, test, protocol, where)
            if due(protocol.altered_steps) and (arm.name, arm.meta_seed) == (reference, first_seed):
                wanted += _altered(cell, step, test, protocol, where)
            wanted = [dataclasses.replace(record, identified=kind) for record in wanted]
            if left := _left(wanted, arm.name, arm.meta_seed, stamps[arm.name, arm.meta_seed], log):
                missing[step] = left
        if missing:
            yield Work(arm, cell, missing)


def _batches(work: Iterable[Work]) -> Iterator[list[Work]]:
    batch: list[Work] = []
    for item in work:
        if batch and sum(each.bytes for each in batch) + item.bytes > MEMORY:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def base_record(task: str, number: int, where: World, stamp: str, condition: Condition = Condition()) -> Episode:  # noqa: B008 (frozen)
    """An episode of the plain base, still to be run, for judging the base itself."""
    start = where.episode_start(task, 99, number)  # a draw that no comparison uses
    return dataclasses.replace(_blank(task, condition, start), adapter_on=False, fingerprint=stamp)


def record_job(record: Episode) -> Job:
    """What completes the record of an episode of the plain base."""
    return Job(record.task, (), None, (_rollout(record, 0.0, None),))


def _own(cell: Cell, step: int, protocol: Protocol, where: World) -> list[Episode]:
    """What the cell asks for: its task under its condition."""
    records = _episodes(cell.plays, cell.condition or Condition(), cell, protocol, where)
    return [dataclasses.replace(record, split=cell.split, steps=step) for record in records]


def _earlier(cell: Cell, number: int, step: int, protocol: Protocol, where: World) -> list[Episode]:
    """Retention: the next earlier tasks, without a shift. Under new conditions that is the cell's own task."""
    tasks, count = protocol.retention_tasks or (cell.plays,), protocol.retention_per_cell
    mine = [tasks[(number * count + i) % len(tasks)] for i in range(count)]
    return [
        dataclasses.replace(record, split=RETENTION, steps=step, adapted_to=None if task == cell.task else cell.task)
        for task in mine
        for record in _episodes(task, Condition(), cell, protocol, where)
    ]


def _scaled(records: Sequence[Episode], protocol: Protocol) -> list[Episode]:
    """The same episodes of the policies between the adapted one and the base."""
    return [dataclasses.replace(record, scale=scale) for scale in protocol.retention_scales for record in records]


def _gated(earlier: Sequence[Episode], protocol: Protocol) -> list[Episode]:
    """The first of the earlier tasks' episodes, which the base runs then: one is enough to show it."""
    return [dataclasses.replace(record, gated=True) for record in earlier[:1] if protocol.retention_gated]


def _misled(cell: Cell, step: int, test: DataSet, protocol: Protocol, where: World) -> list[Episode]:
    """The wrong-instruction control: as `_own`, told the next task's instruction that differs."""
    wrong = other_words(cell.plays, _played(test), where)
    if wrong is None:
        raise ValueError(
            "protocol.instruction_steps needs two test tasks with different instructions; set it to 0 or add a task"
        )
    return [dataclasses.replace(record, told=wrong) for record in _own(cell, step, protocol, where)]


def _altered(cell: Cell, step: int, test: DataSet, protocol: Protocol, where: World) -> list[Episode]:
    """What the policy uses: as `_own`, with one of its inputs replaced."""
    wrong = other_words(cell.plays, _played(test), where)
    return [
        altered
        for record in _own(cell, step, protocol, where)
        for name in protocol.altered
        if (altered := with_input(record, name, wrong)) is not None
    ]


def _played(test: DataSet) -> list[str]:
    return sorted({played(task) for task in test.frames.demos})


def other_words(task: str, tasks: Sequence[str], where: World) -> str | None:
    """The instruction of the next of `tasks` that is told otherwise than `task`; None where there is none."""
    at = tasks.index(task)
    others = [where.instruction(other) for other in (*tasks[at + 1 :], *tasks[:at])]
    return next((text for text in others if text != where.instruction(task)), None)


def with_input(record: Episode, altered: str, wrong: str | None) -> Episode | None:
    """The episode with one of the policy's inputs replaced; None where there are no other words to replace its own."""
    told = {alterations.NO_WORDS: "", alterations.OTHER_WORDS: wrong}.get(altered)
    if altered == alterations.OTHER_WORDS and told is None:
        return None
    return dataclasses.replace(record, altered=altered, told=told)


def _base_jobs(test: DataSet, protocol: Protocol, where: World, log: EpisodeLog, stamp: str, host: Host) -> list[Job]:
    """The frozen policy: on every test cell, and on earlier tasks (retention with the adapter off)."""
    wanted: dict[tuple, Episode] = {}
    for number, cell in enumerate(test.cells[protocol.shots[0]]):
        plain = cell._replace(shots=0)
        records = _own(plain, 0, protocol, where)
        if protocol.retention_steps:
            earlier = _earlier(plain, number, 0, protocol, where)
            records += [dataclasses.replace(record, adapter_on=False, adapted_to=None) for record in earlier]
        wanted |= {record.key: record for record in records}  # cells can share an earlier task, and its start
    left = _left(host.share(list(wanted.values())), BASE, 0, stamp, log)
    return [Job(record.task, (), None, (_rollout(record, 0.0, None),), record.draw) for record in left]


def _left(records: Iterable[Episode], method: str, meta_seed: int, stamp: str, log: EpisodeLog) -> list[Episode]:
    """A method's episodes that are not in the log yet."""
    own = [dataclasses.replace(r, method=method, meta_seed=meta_seed, fingerprint=stamp) for r in records]
    return [record for record in own if not log.done(record.key, record.fingerprint)]


def _by_policy(records: Iterable[Episode]) -> dict[tuple[str, float | None, bool | None], list[Episode]]:
    """By task, and by how the adapted parameters are used there: scaled, or gated."""
    groups: defaultdict[tuple[str, float | None, bool | None], list[Episode]] = defaultdict(list)
    for record in records:
        groups[record.task, record.scale, record.gated].append(record)
    return groups


def _episodes(task: str, condition: Condition, cell: Cell, protocol: Protocol, where: World) -> list[Episode]:
    starts = few_shot.starts(cell, task, cell.draw, protocol.episodes, protocol, where)
    blank = [_blank(task, condition, start) for start in starts]
    distribution, shots, draw = protocol.distribution, cell.shots, cell.draw
    return [dataclasses.replace(b, distribution=distribution, shots=shots, draw=draw) for b in blank]


def _rollout(record: Episode, seconds: float, loss: float | None) -> Rollout:
    """The episode that completes `record`, whose policy took `seconds` to adapt."""
    condition = Condition.from_json(record.condition)
    return Rollout((record, seconds, loss), condition, record.episode_seed, record.told, record.altered)


def _blank(task: str, condition: Condition, seed: int) -> Episode:
    """The record of an episode of the frozen base that is still to be run."""
    return Episode(
        method=BASE,
        meta_seed=0,
        distribution="conditions",
        split=RETENTION,
        task=task,
        condition=condition.to_json(),
        shots=0,
        draw=0,
        steps=0,
        episode_seed=seed,
        success=False,
        episode_return=0.0,
        length=0,
        adapt_seconds=0.0,
        support_loss=None,
        fingerprint="",
        error=None,
    )
