"""Closed-loop success of a base on its own tasks, without any shift; raw records and one line for each task.

    python experiments/evaluate_base.py --base=runs/nano/base --config=configs/nano_smolvla.py --workdir=runs/nano_eval

With --pictures=noise (or grey, or first) the cameras' pictures are replaced: what it still solves, it solves blindly.
"""

from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from metalora_jax.adaptation import base as bases
from metalora_jax.envs.world import world
from metalora_jax.evaluation import rollout
from metalora_jax.evaluation.protocol import experiment
from metalora_jax.evaluation.protocol.checks import check_base, check_outcomes
from metalora_jax.evaluation.protocol.plan import base_job
from metalora_jax.evaluation.reports import provenance, statistics
from metalora_jax.evaluation.reports.records import EpisodeLog, read_episodes
from metalora_jax.training import checkpoint, command
from metalora_jax.training.recipe import Pretraining

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_BASE = flags.DEFINE_string("base", "", "Base directory; empty is the nano SmolVLA in the package.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for episodes.jsonl.", required=True)
_EPISODES = flags.DEFINE_integer("episodes", 20, "Episodes for each task.", lower_bound=1)
_WORKERS = flags.DEFINE_integer("workers", 2, "Processes.", lower_bound=1)
_PICTURES = flags.DEFINE_enum("pictures", "true", rollout.PICTURES, "What the base is shown; see rollout.PICTURES.")


def main(_: list[str]) -> None:
    config = Pretraining.from_config(_CONFIG.value.to_dict())
    base = bases.load(_BASE.value or None)
    part, control = config.learned, config.control
    where = world(control.world)
    check_base(base, control, where)
    workdir, judged = Path(_WORKDIR.value), {"control": control._asdict(), "tasks": list(part.tasks)}
    judged |= {} if _PICTURES.value == "true" else {"pictures": _PICTURES.value}
    checkpoint.claim(workdir, judged)
    inputs = provenance.inputs(judged, base.fingerprint, _BASE.value, base.statistics.digest(), {})
    stamp = inputs.fingerprint
    numbers, shown = range(_EPISODES.value), _PICTURES.value
    jobs = [base_job(task, number, where, stamp, shown) for task in part.tasks for number in numbers]
    file = workdir / "episodes.jsonl"
    with EpisodeLog(file) as log:
        provenance.keep(workdir, [inputs])
        todo = [job for job in jobs if not log.done(job.rollouts[0].key[0].key, stamp)]
        experiment.execute(todo, Path(_BASE.value) if _BASE.value else None, control, _WORKERS.value, log)
    episodes = read_episodes(file)
    check_outcomes([episode.error for episode in episodes], str(file))
    for task in part.tasks:
        wins = [episode.success for episode in episodes if episode.task == task]
        low, high = statistics.wilson(sum(wins), len(wins))
        print(f"{task:24s} {np.mean(wins):.2f}  [{low:.2f}, {high:.2f}]")
    print(f"mean of {len(part.tasks)} tasks: {np.mean([episode.success for episode in episodes]):.3f}")
    print(f"raw records: {file}")


if __name__ == "__main__":
    command.run(main)
