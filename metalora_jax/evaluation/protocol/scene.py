"""The first thing that a visitor sees: one task under a hidden condition, before and after adapting to it.

The frozen base runs one episode. A scripted expert shows the task once, from another start. A few gradient steps on
that demonstration, and the adapted policy runs the first episode again. All three become a film with three panels.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Agent
from metalora_jax.adaptation.base import Base
from metalora_jax.envs.condition_range import ConditionRange
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.experts import record
from metalora_jax.envs.world import World, check_shift, world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import filming
from metalora_jax.evaluation.rollout import Outcome, Rollout
from metalora_jax.fields import from_fields
from metalora_jax.machine.processes import in_processes
from metalora_jax.training.adapt import Adapted, Options, adapt
from metalora_jax.types import Demo

FILM, GIF = "opening.mp4", "opening.gif"
FIRST_DEMO = 30_000  # start of the first demonstration that a survey shows; none of these was trained on


class Opening(NamedTuple):
    """One such scene, pure in these fields."""

    task: str
    condition: Condition  # hidden: neither base nor adapter is told
    demo_start: int  # start of the demonstration
    episode_start: int  # start of both episodes; another one
    steps: int = 3  # gradient steps, at the rates that the adapter brings

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "Opening":
        """Reads the section `scene`; its `condition` has the fields of a Condition.

        Raises:
          ValueError: a field is unknown or missing, or the demonstration would show the very start it is tested on.
        """
        made = from_fields(cls, fields, "scene", {"condition": Condition.from_json})
        if made.demo_start == made.episode_start:
            raise ValueError(f"scene.demo_start and scene.episode_start are both {made.demo_start}; use two starts")
        return made


class Played(NamedTuple):
    """What came of it."""

    before: Outcome  # of the frozen base
    demo: Demo  # its actions are the commands that show the task under the condition
    adapted: Adapted
    after: Outcome  # of the adapted policy

    @property
    def verdict(self) -> str:
        """What the two episodes show, in a sentence."""
        return {
            (False, True): "before adapting the policy failed, after it the same episode succeeded",
            (False, False): "adapting did not help here: the policy failed before and after",
            (True, True): "this condition needed no adapting: the policy succeeded before and after",
            (True, False): "adapting did harm here: the policy succeeded before, and failed after",
        }[self.before.success, self.after.success]


def silent(_: str) -> None:
    """For `play`: says nothing."""


def aloud(line: str) -> None:
    """Prints at once, into a pipe as well: the next line may take half a minute."""
    print(line, flush=True)


def check(tried: Sequence[Opening], base: Base, control: Control) -> None:
    """Refuses what would only fail once a simulator is open and the policy is to act.

    Raises:
      ValueError: a task is unknown, a condition or the base does not fit the world.
      RuntimeError: nothing can be rendered here.
    """
    where = world(control.world)
    for opening in tried:
        where.instruction(opening.task)
        check_shift(opening.condition, control.world, where)
    rollout.check_base(base, control, where)
    where.prepare()


def play(
    base: Base,
    start: adapter.Start | Callable[[], adapter.Start],
    opening: Opening,
    control: Control,
    say: Callable[[str], None] = silent,
) -> Played:
    """Plays an opening in this process; what it says comes as one line when a stage begins, and one when it ends.

    Args:
      base: the frozen policy.
      start: the adapter that it starts from, with learned rates; or what reads it, when it is needed.
      opening: what is played.
      control: how the policies drive the robot.
      say: takes the lines.

    Raises:
      ValueError: the expert fails from `demo_start`, or the adapter has no learned rates.
    """
    where = world(control.world)
    take = Rollout("episode", opening.condition, opening.episode_start)
    with stage("before: the frozen base", say) as end:
        agent = Agent(base, fuse=control.fuse)
        before = _episode(where, opening.task, agent, control, take)
        end(_told(before))
    with stage("one demonstration, from another start", say) as end:
        with where.open(opening.task, control.cameras, control.image_size, **(control.simulator or {})) as env:
            steps, limits = where.demo_steps(opening.task), where.joint_limits
            demo = record(env, opening.demo_start, opening.condition, max_steps=steps, limits=limits)
        if demo is None:
            raise ValueError(f"the expert fails {opening.task} from start {opening.demo_start}: set scene.demo_start")
        end(f"{len(demo.actions)} control steps")
    with stage(f"adapting, {opening.steps} gradient steps", say) as end:
        adapted = adapt(base, start() if callable(start) else start, [demo], Options(steps=opening.steps))
        first, last = adapted.support_loss
        end(f"loss {first:.2f} -> {last:.2f}; the steps alone took {adapted.seconds:.2f} s")
    with stage("after: the adapted policy, from the same start", say) as end:
        agent.swap(adapted.learner)
        after = _episode(where, opening.task, agent, control, take)
        end(_told(after))
    return Played(before, demo, adapted, after)


def first_scene(opening: Opening, control: Control, workdir: Path, say: Callable[[str], None] = aloud) -> Played:
    """Plays an opening with the base and the adapter in the package, and films it to `workdir`.

    Writes `workdir/opening.mp4` and `workdir/opening.gif`: before, the demonstration, after.

    Args:
      opening: what is played.
      control: how the policies drive the robot.
      workdir: where the films go; those that are there are replaced.
      say: takes lines of text.
    """
    filming.check_encoder()
    base = bases.load()
    check([opening], base, control)
    turn = np.degrees(opening.condition.yaw)
    say(f"     {opening.task}, with the action frame turned by {turn:.0f} degrees, which no policy is told")
    say("     (seconds include compilation)")
    played = play(base, lambda: adapter.load(None, base), opening, control, say)
    with stage("film", say) as end:
        paths = workdir / FILM, workdir / GIF
        # In a process of its own: the encoder forks, which JAX, once it runs threads, must not see.
        [size] = in_processes(_film, [(paths, control, opening, _takes(opening, played))], workers=1)
        end(f"{paths[0]}, {paths[1]} ({size / 1e6:.1f} MB)")
    say(f"     {played.verdict}")
    return played


class Tried(NamedTuple):
    """An opening of a survey, and what came of it."""

    opening: Opening
    before: bool  # whether the frozen base solved it
    after: bool  # whether the adapted policy did
    lengths: tuple[int, int]  # of both episodes [control steps]


def openings(tasks: Sequence[str], within: ConditionRange, draws: int, seed: int) -> list[Opening]:
    """Openings of Meta-World under conditions that training never saw, `draws` for each task; pure in the arguments.

    Args:
      tasks: their names.
      within: what conditions are drawn from.
      draws: for each task.
      seed: of the conditions.
    """
    where, made = world("metaworld"), []
    for number, task in enumerate(sorted(tasks)):
        for draw in range(draws):
            condition = within.sample(np.random.default_rng([seed, number, draw]), "test")
            made.append(Opening(task, condition, FIRST_DEMO + draw, where.episode_start(task, draw, 0)))
    return made


def survey(tried: Sequence[Opening], control: Control, workers: int) -> Iterator[Tried]:
    """Plays openings with the base and the adapter in the package, without films, in `workers` processes."""
    check(tried, bases.load(), control)
    jobs = [(opening, control) for opening in tried]
    yield from in_processes(_try, jobs, workers, _settle, (workers,))


def _settle(workers: int) -> None:
    rollout.one_core_each(workers)


@functools.cache
def _shipped() -> tuple[Base, adapter.Start]:
    base = bases.load()
    return base, adapter.load(None, base)


def _try(opening: Opening, control: Control) -> Tried:
    played = play(*_shipped(), opening, control)
    lengths = played.before.length, played.after.length
    return Tried(opening, bool(played.before.success), bool(played.after.success), lengths)


def chosen(tried: Sequence[Tried]) -> Tried | None:
    """The opening to show: of those that adapting solves and the base does not, the one with the largest turn."""
    found = [each for each in tried if each.after and not each.before]
    return max(found, key=lambda each: abs(each.opening.condition.yaw), default=None)


def table(tried: Sequence[Tried]) -> list[str]:
    """A survey as lines of Markdown, with the choice of `chosen` in the last."""
    ordered = sorted(tried, key=lambda each: (each.opening.task, each.opening.episode_start))
    lines = ["| task | hidden turn [degrees] | frozen base | adapted |", "|---|---|---|---|"]
    for each in ordered:
        told = [
            f"{'solved' if success else 'failed'}, {length}"
            for success, length in zip((each.before, each.after), each.lengths, strict=True)
        ]
        lines.append(f"| {each.opening.task} | {np.degrees(each.opening.condition.yaw):.0f} | {' | '.join(told)} |")
    before, after = (sum(getattr(each, name) for each in tried) for name in ("before", "after"))
    lines.append(f"| all | | {before} of {len(tried)} | {after} of {len(tried)} |")
    shown = chosen(tried)
    return [*lines, "", "none is solved by adapting alone" if shown is None else f"to show: {shown.opening}"]


@contextmanager
def stage(name: str, say: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Says that a stage begins; the caller's `end(result)` says how it ended, and after how many seconds."""
    began = time.monotonic()
    say(f"     {name} ...")
    yield lambda result: say(f"         {result}  [{time.monotonic() - began:.1f} s]")


def _episode(where: World, task: str, agent: Agent, control: Control, take: Rollout) -> Outcome:
    with where.open(task, control.cameras, control.image_size, **(control.simulator or {})) as env:
        outcome = rollout.episode(env, agent, control, take)
    if outcome.error:
        raise RuntimeError(f"an episode of {task} broke: {outcome.error}")
    return outcome


def _told(outcome: Outcome) -> str:
    return f"{'succeeds' if outcome.success else 'fails'} after {outcome.length} control steps"


def _takes(opening: Opening, played: Played) -> list[tuple[str, Rollout, np.ndarray]]:
    episode = Rollout("episode", opening.condition, opening.episode_start)
    shown = Rollout("demonstration", opening.condition, opening.demo_start)
    ends = ["solved" if outcome.success else "failed" for outcome in (played.before, played.after)]
    return [
        (f"before: {ends[0]}", episode, played.before.commands),
        ("one demonstration", shown, played.demo.actions),
        (f"after {opening.steps} steps: {ends[1]}", episode, played.after.commands),
    ]


def _film(
    paths: tuple[Path, Path], control: Control, opening: Opening, takes: list[tuple[str, Rollout, np.ndarray]]
) -> int:
    """Writes both; returns the size of the second [bytes]."""
    parts = filming.panels(control, opening.task, takes)
    filming.write(paths[0], parts)
    return filming.write_gif(paths[1], parts).stat().st_size
