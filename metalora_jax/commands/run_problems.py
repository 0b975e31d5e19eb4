"""Puts policies to a file of problems, in closed loop: a base directory, or an adapter, for each problem or for all.

    metalora run_problems --problems=runs/so101/problems.json --base=experiments/results/so101_nano/base \\
        --adapter='runs/mine/{problem}' --workdir=runs/mine_solved

`{problem}` stands for a problem's name. What each adapts to is for its problem alone: see docs/problems.md.
"""

from collections.abc import Iterator
from pathlib import Path

from absl import flags

from metalora_jax.envs import problems
from metalora_jax.evaluation.protocol import posed
from metalora_jax.evaluation.reports import statistics
from metalora_jax.evaluation.reports.records import Episode
from metalora_jax.training import checkpoint

_PROBLEMS = flags.DEFINE_string("problems", None, "The file of problems.", required=True)
_BASE = flags.DEFINE_string("base", "", "Base directory, perhaps with {problem}; empty is the one in the package.")
_ADAPTER = flags.DEFINE_string("adapter", None, "Adapter directory, perhaps with {problem}; without it, bases alone.")
_EXECUTE = flags.DEFINE_integer("execute", 1, "Commands of a chunk before the policy looks again.", lower_bound=1)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for episodes.jsonl.", required=True)
_WORKERS = flags.DEFINE_integer("workers", 2, "Processes.", lower_bound=1)


def main(_: list[str]) -> None:
    known, workdir = problems.read(_PROBLEMS.value), Path(_WORKDIR.value)
    policies = posed.policies(known, _BASE.value or None, _ADAPTER.value)
    claimed = {"problems": known.to_json(), "base": _BASE.value, "adapter": _ADAPTER.value, "execute": _EXECUTE.value}
    checkpoint.claim(workdir, claimed)
    episodes = posed.run(known, policies, _EXECUTE.value, _WORKERS.value, workdir)
    for line in _told(episodes):
        print(line)
    print(f"raw records: {workdir / posed.RECORDS}")


def _told(episodes: list[Episode]) -> Iterator[str]:
    for shots in sorted({episode.shots for episode in episodes}):
        own = [episode for episode in episodes if episode.shots == shots]
        for task in sorted({episode.task for episode in own}):
            yield _line(task, [episode.success for episode in own if episode.task == task])
        many = "demonstration" if shots == 1 else "demonstrations"
        yield _line(f"all, {shots} {many}", [episode.success for episode in own])


def _line(name: str, wins: list[bool]) -> str:
    low, high = statistics.wilson(sum(wins), len(wins))
    return f"{name:28s} {sum(wins)} of {len(wins)}  [{low:.2f}, {high:.2f}]"
