"""Closed-loop success of a base on its own tasks, and what it uses of its inputs; raw records.

    metalora evaluate_base --base=runs/nano/base --config=configs/nano_smolvla.py --workdir=runs/nano_evaluation

After a line for each task follows one for each input of the policy: what it still solves with that input replaced.
With `--condition` the robot differs from the base's, in a field of `envs.conditions.Condition` for each flag:

    ... --condition=camera=[0,0,0.05] --condition=light=0.6
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from metalora_jax.adaptation import base as bases
from metalora_jax.envs import conditions
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import check_shift, world
from metalora_jax.evaluation import alterations, rollout
from metalora_jax.evaluation.protocol import experiment, plan
from metalora_jax.evaluation.protocol.checks import check_outcomes
from metalora_jax.evaluation.reports import provenance, statistics
from metalora_jax.evaluation.reports.contrasts import REPLAYS
from metalora_jax.evaluation.reports.records import Episode, EpisodeLog, read_episodes
from metalora_jax.training import checkpoint
from metalora_jax.training.recipe import Pretraining

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_BASE = flags.DEFINE_string("base", "", "Base directory; empty is the nano SmolVLA in the package.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for episodes.jsonl.", required=True)
_EPISODES = flags.DEFINE_integer("episodes", 20, "Episodes for each task.", lower_bound=1)
_ALTERED = flags.DEFINE_list("altered", ["all"], "Inputs to replace, such as noise,no_words.")
_ALTERED_EPISODES = flags.DEFINE_integer(
    "altered_episodes", 3, "How many of them also with each input replaced.", lower_bound=0
)
_CONDITION = flags.DEFINE_multi_string("condition", [], "A hidden shift of the robot, FIELD=JSON; may be repeated.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Processes.", lower_bound=1)

check = Pretraining.from_config  # what --print_config holds the config against


def main(_: list[str]) -> None:
    config = Pretraining.from_config(_CONFIG.value.to_dict())
    base = bases.load(_BASE.value or None)
    part, control = config.learned, config.control
    where, condition = world(control.world), conditions.from_flags(_CONDITION.value)
    check_shift(condition, control.world, where)
    rollout.check_base(base, control, where)
    altered = alterations.known(control.cameras) if _ALTERED.value == ["all"] else tuple(_ALTERED.value)
    alterations.check(altered, control.cameras, "--altered")
    workdir, judged = Path(_WORKDIR.value), {"control": control._asdict(), "tasks": list(part.tasks)}
    judged |= {"condition": condition.to_json()} if condition != Condition() else {}
    checkpoint.claim(workdir, judged)
    inputs = provenance.inputs(judged, base.fingerprint, _BASE.value, base.statistics.digest(), {})
    stamp = inputs.fingerprint
    wanted = []
    for task in part.tasks:
        records = [plan.base_record(task, number, where, stamp, condition) for number in range(_EPISODES.value)]
        wrong = plan.other_words(task, part.tasks, where)
        replaced = [plan.with_input(r, name, wrong) for r in records[: _ALTERED_EPISODES.value] for name in altered]
        wanted += records + [record for record in replaced if record is not None]
    file = workdir / "episodes.jsonl"
    with EpisodeLog(file) as log:
        provenance.keep(workdir, [inputs])
        todo = [plan.record_job(record) for record in wanted if not log.done(record.key, stamp)]
        experiment.execute(todo, Path(_BASE.value) if _BASE.value else None, control, _WORKERS.value, log)
    episodes = read_episodes(file)
    check_outcomes([episode.error for episode in episodes], str(file))
    plain = [episode for episode in episodes if episode.altered is None]
    for task in part.tasks:
        wins = [episode.success for episode in plain if episode.task == task]
        low, high = statistics.wilson(sum(wins), len(wins))
        print(f"{task:24s} {np.mean(wins):.2f}  [{low:.2f}, {high:.2f}]")
    print(f"mean of {len(part.tasks)} tasks: {np.mean([episode.success for episode in plain]):.3f}")
    if any(episode.altered for episode in episodes):
        _tell_uses(episodes, part.tasks)
    print(f"raw records: {file}")


def _tell_uses(episodes: Sequence[Episode], tasks: Sequence[str]) -> None:
    """What is still solved without one of the inputs, and which tasks are solved without looking."""
    won = {(e.altered, e.task, e.episode_seed): e.success for e in episodes}
    names = dict.fromkeys(e.altered for e in episodes if e.altered)
    print("\nsolved with one input replaced, and the same episodes as they are:")
    for name in names:
        so = [key for key in won if key[0] == name]
        solved, own = sum(won[key] for key in so), sum(won[None, *key[1:]] for key in so)
        print(f"  {alterations.meaning(name):48s} {solved} and {own} of {len(so)}")
    if "noise" in names:
        rates = {
            task: [np.mean([won[key] for key in won if key[:2] == (name, task)]) for name in ("noise", None)]
            for task in tasks
        }
        blind = [task for task, (noise, own) in rates.items() if noise > REPLAYS * own]
        if blind:
            print(f"solved without looking, {100 * REPLAYS:.0f} % of the success or more on noise: {', '.join(blind)}")
