"""Problems for any policy: the file says all that an episode needs, and the environment plays it as recorded."""

import json

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed; enable with: pip install -e '.[metaworld]'")

from gymnasium.utils.env_checker import check_env

from metalora_jax.data.config import DataConfig, read_demos
from metalora_jax.envs.collect import RecordingJob, record_file
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.problems import ProblemEnv, Problems, read

SHIFT = Condition(joint_offset=(10.0, -6.0, 5.0, 0.0, 0.0, 0.0), joint_gain=(0.9, 1.1, 1.0, 1.0, 1.0, 1.0))
START = 50
PROBLEM = dict(
    task="lift-red",
    instruction="lift the red cube",
    demonstrations="lift-red@0_demo.hdf5",
    support=[0],
    condition=SHIFT.to_json(),
    starts=[START, START + 1],
    max_steps=60,
)
FILE = dict(
    title="one robot",
    world="so101",
    cameras=["front"],
    image_size=48,
    simulator={"fps": 10},
    problems={"lift-red@0/1": PROBLEM},
)


def changed(**fields):
    return FILE | {"problems": {"lift-red@0/1": PROBLEM | fields}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (FILE | {"problems": {}}, "no problems in it"),
        (FILE | {"world": "moon"}, "no world named 'moon'"),
        (changed(starts=[]), r"lift-red@0/1.starts is empty"),
        (changed(start=[1]), "did you mean starts"),
        (changed(condition={"joint_offse": [1.0]}), "joint_offse"),
        (changed(max_steps="60"), "max_steps is '60'"),
    ],
)
def test_a_file_that_says_too_little_or_too_much_is_refused(fields, message, tmp_path):
    (tmp_path / "problems.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "problems.json")


def test_what_is_written_is_read_again():
    known = Problems.from_json(FILE)
    assert Problems.from_json(json.loads(json.dumps(known.to_json()))) == known
    with pytest.raises(ValueError, match=r"no problem named 'lift-red@1/1' among 1; did you mean lift-red@0/1\?"):
        known.named("lift-red@1/1")


@pytest.mark.so101
@pytest.mark.filterwarnings("ignore:.*Box:UserWarning")  # joints have ranges of their own
def test_an_episode_runs_on_the_robot_that_the_demonstration_was_recorded_on(tmp_path):
    """What was recorded there solves its own start there, and nowhere else."""
    job = RecordingJob("lift-red", tmp_path / "lift-red@0_demo.hdf5", 1, START, 0.0, "so101", 48)
    record_file(job._replace(condition=SHIFT, simulator={"fps": 10}))
    [demo] = read_demos(DataConfig(str(tmp_path), ("lift-red@0",), 1, cameras=("front",)))["lift-red@0"]
    for shift, solves in ((SHIFT, True), (Condition(), False)):
        env = ProblemEnv(Problems.from_json(changed(condition=shift.to_json())), "lift-red@0/1")
        observation, info = env.reset()
        assert (info["start"], info["episode"], info["instruction"]) == (START, 0, "lift the red cube")
        assert np.allclose(observation["state"], demo.state[0], atol=1e-3) is solves
        assert any(env.step(action)[2] for action in demo.actions) is solves
        assert env.reset()[1]["start"] == START + 1  # they follow each other
        if solves:
            check_env(env, skip_render_check=True)
        with pytest.raises(ValueError, match="from 0 to 1"):
            env.reset(options={"episode": 2})
        env.close()
