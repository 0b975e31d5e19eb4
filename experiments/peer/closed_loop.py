"""A policy of the world so101 in lerobot-rollout, held against this project's own loop: same starts, same noise.

    .venv-peer-0.6.1/bin/python experiments/peer/closed_loop.py --policy=runs/so101/policy --task=lift-red --starts=20

--policy is what `metalora export --format=lerobot_plugin` wrote. Both loops run in lerobot's environment, so that they
compute with the same JAX. At the end it says how fast lerobot's loop was, and what a control step cost.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags
from rollout import rollout

import metalora_jax as ml
from metalora_jax.adaptation.lerobot_policy import chunking_flags
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.control import Control
from metalora_jax.envs.world import world
from metalora_jax.evaluation.rollout import Outcome, Rollout, episode

_POLICY = flags.DEFINE_string("policy", None, "Directory of the policy.", required=True)
_TASK = flags.DEFINE_string("task", "lift-red", "Task of the world.")
_STARTS = flags.DEFINE_integer("starts", 20, "Episodes, from as many starts.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 42, "Control steps of an episode: a multiple of --execute.", lower_bound=1)
_EXECUTE = flags.DEFINE_integer("execute", 3, "Control steps before the policy looks again.", lower_bound=1)
_WORLD_FPS = flags.DEFINE_integer("world_fps", 10, "Control steps in a second of the world: 10 or 30.")
_FPS = flags.DEFINE_float("fps", 0.0, "Control steps in a second of the clock; 0: as in the world.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the policy's noise.")
_RTC = flags.DEFINE_bool("rtc", False, "Real-time chunking, in a thread of lerobot's, and a program for each start.")
_OUTPUT = flags.DEFINE_string("output", "", "JSON file for the commands of both loops.")


class _AsInLerobot(ml.Agent):
    """Numbers its chunks through all episodes, as the plugin does: they are what its noise is drawn from."""

    chunks = 0

    def act(self, images, state, instruction, key, executing=None):
        key = jax.random.fold_in(jax.random.key(_SEED.value), self.chunks)
        self.chunks += 1
        return super().act(images, state, instruction, key, executing)


class Rate(NamedTuple):
    """Of lerobot's control loop, over all steps but the first."""

    hertz: float
    late: float  # share of steps that took more than 1.1 of their time
    longest: float  # [ms]
    cpu: float  # [ms] of a step, in all threads: policy, simulator, lerobot


def in_lerobot(starts: list[int]) -> tuple[list[dict], Rate]:
    """The episodes (start, success and command of every step), and how fast they went."""
    world("so101").prepare()  # chooses how to render; lerobot imports MuJoCo before the robot could
    # Real-time chunking goes on from the last plan, and lerobot is not told that the world begins anew: each start has
    # a program of its own. Without it an episode is a whole number of chunks, and nothing is left of the last one.
    runs = [_lerobot_run(each) for each in ([[start] for start in starts] if _RTC.value else [starts])]
    episodes = [episode for said in runs for episode in said["episodes"]]
    clocks = [np.array(said["clock"]) for said in runs]
    gaps, cpu = np.concatenate([np.diff(clock, axis=0) for clock in clocks]).T
    return episodes, Rate(1 / gaps.mean(), np.mean(gaps > 1.1 / _fps()), 1e3 * gaps.max(), 1e3 * cpu.mean())


def _lerobot_run(starts: list[int]) -> dict:
    """What the robot logged."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log.json"
        (Path(scratch) / "robot").mkdir()
        rollout(
            *(sys.executable, Path(scratch) / "robot", Path(__file__).parent / "lerobot_robot_so101_sim"),
            *(f"--policy.path={_POLICY.value}", f"--policy.n_action_steps={_EXECUTE.value}"),
            *(f"--policy.seed={_SEED.value}", f"--task={world('so101').instruction(_TASK.value)}", f"--fps={_fps()}"),
            *("--robot.type=so101_sim", f"--robot.world_task={_TASK.value}", f"--robot.starts={starts}"),
            *(f"--robot.steps={_STEPS.value}", f"--robot.world_fps={_WORLD_FPS.value}", f"--robot.log={log}"),
            *(chunking_flags(_config()["chunk_size"], _EXECUTE.value) if _RTC.value else []),
        )
        return json.loads(log.read_text())


def _fps() -> float:
    return _FPS.value or _WORLD_FPS.value


def _config() -> dict:
    return json.loads((Path(_POLICY.value) / "config.json").read_text())


def here(starts: list[int]) -> list[Outcome]:
    """The same episodes in this project's loop; each ends when its task is done."""
    directory, config = Path(_POLICY.value), _config()
    base = ml.load_base(directory / config["base"])
    agent = _AsInLerobot(base, ml.load_adapter(directory / config["adapter"], base).learner)
    control = Control(tuple(config["cameras"]), _EXECUTE.value, _STEPS.value, "so101")
    done = []
    with world("so101").open(_TASK.value, control.cameras, control.image_size, fps=_WORLD_FPS.value) as env:
        for number, start in enumerate(starts):
            agent.chunks = number * _STEPS.value // _EXECUTE.value
            done.append(episode(env, agent, control, Rollout(None, Condition(), start)))
    return done


def main(_: list[str]) -> None:
    if _STEPS.value % _EXECUTE.value:
        raise app.UsageError(f"--steps={_STEPS.value} is no multiple of --execute={_EXECUTE.value}")
    starts = [world("so101").episode_start(_TASK.value, 0, number) for number in range(_STARTS.value)]
    theirs, rate = in_lerobot(starts)
    ours = [] if _RTC.value else here(starts)
    solved = [any(each["success"]) for each in theirs]
    print(f"lerobot:  {sum(solved)} of {len(solved)} solved")
    if ours:
        both = list(zip(solved, [each.success for each in ours], strict=True))
        apart = [np.abs(o.commands - t["commands"][: o.length]).max() for o, t in zip(ours, theirs, strict=True)]
        print(f"here:     {sum(each.success for each in ours)} of {len(ours)} solved")
        print(f"pairs:    {both.count((True, False))} solved by lerobot alone, {both.count((False, True))} here alone")
        print(f"commands: {max(apart):.2g} apart at most, over {sum(each.length for each in ours)} steps")
        if problems := [each.error for each in ours if each.error]:
            raise RuntimeError(problems[0])
    print(
        f"rate:     {rate.hertz:.1f} Hz, {100 * rate.late:.1f} % of steps late by more than a tenth, the longest "
        f"{rate.longest:.0f} ms; {rate.cpu:.0f} CPU-ms a step"
    )
    if _OUTPUT.value:
        own = [{"success": each.success, "commands": each.commands.tolist()} for each in ours]
        Path(_OUTPUT.value).write_text(json.dumps({"lerobot": theirs, "here": own, "rate": rate._asdict()}))


if __name__ == "__main__":
    app.run(main)
