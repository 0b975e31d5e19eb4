"""The doctor on a robot of one's own: what it says of a whole data set, and how it says it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from metalora_jax.data import libero_hdf5, normalize, signals, units
from metalora_jax.data.sources.selection import selection
from metalora_jax.evaluation.doctor import choice, page, robust, scales, whole
from metalora_jax.evaluation.doctor.findings import Finding, Outcome, dropping, failing, to_drop
from metalora_jax.evaluation.doctor.sets import Layout
from tests import own_robot
from tests.evaluation.doctor_demos import CAMERAS as ROOM
from tests.evaluation.doctor_demos import DEMOS, TASK
from tests.evaluation.faults import damaged
from tests.evaluation.faulty_sets import Kind, make_set
from tests.evaluation.written_sets import above_info, digested, examined, outcomes, write_hdf5, write_lerobot

KIND = Kind(fps=10)
SOUND = make_set(KIND, 0)


def changed(change):
    return [change(demo) for demo in SOUND]


def only(found, check):
    return [finding.what for finding in found[check].findings]


def late(demo):
    return demo._replace(actions=np.concatenate([demo.actions[4:], demo.actions[-1:].repeat(4, 0)]))


@pytest.mark.parametrize(
    ("change", "check", "said", "severity"),
    [
        (
            lambda d: d._replace(state=d.state * [-1, 1, 1, 1, 1, 1]),
            "actions",
            "moves against its command in all",
            "error",
        ),
        (
            lambda d: d._replace(state=np.radians(d.state)),
            "actions",
            "ranges 0.017 times as far as its command",
            "error",
        ),
        (lambda d: d._replace(state=d.actions, actions=d.state), "actions", "0.7 frames before its commands", "error"),
        (lambda d: d._replace(actions=d.state[np.r_[1 : len(d.state), -1]]), "actions", "are the next states", "info"),
        (lambda d: d._replace(actions=d.actions * [1, 1, 1, 1, 1, 0]), "gripper", "never moves in any episode", "info"),
        (lambda d: d._replace(instruction="task_0"), "texts", "is a name or a number, not a sentence", "warning"),
    ],
)
def test_what_is_wrong_with_all_episodes_is_said_once(change, check, said, severity):
    demos = changed(change)
    demos = [d._replace(state=d.state.astype(np.float32), actions=d.actions.astype(np.float32)) for d in demos]
    found = outcomes(demos, KIND)[check].findings
    assert any(said in finding.what and finding.severity == severity for finding in found), found
    assert all(not finding.episodes for finding in found)


def test_the_notes_hold_figures():
    found = outcomes(SOUND, KIND)
    assert found["actions"].note.startswith("absolute; motion comes 0.7 frames after commands")
    assert "shoulder_pan.pos" in found["ranges"].note
    assert "degrees (90%)" in found["ranges"].note
    assert found["counts"].note == "12 episodes of 1 task"
    relative = Kind(relative=True)
    assert outcomes(make_set(relative, 0), relative)["actions"].note.startswith("differences")


def test_few_episodes_are_not_compared_and_that_is_said():
    found = outcomes(SOUND[:3], KIND)
    assert above_info(list(found.values())) == []
    assert found["paths"].skipped == "3 episodes: 5 are needed to say what is usual"


def test_a_set_of_two_kinds_has_no_odd_episodes():
    turned = [d if i % 2 else d._replace(state=-d.state) for i, d in enumerate(SOUND)]
    found = outcomes(turned, KIND)
    assert all(len(f.episodes) == 0 for f in found["commands"].findings)


@pytest.mark.parametrize(
    ("robot", "tasks", "each"), [(own_robot.CARTESIAN, ["a"], 12), (own_robot.CARTESIAN, ["a", "b", "c"], 5)]
)
def test_short_noisy_episodes_that_go_differently_far_are_sound(robot, tasks, each, tmp_path):
    path = own_robot.write(tmp_path / "set", robot, tasks, each)
    assert above_info([result.outcome for result in examined(path)]) == []


def test_a_joint_that_stops_half_way():
    demos, joint = list(SOUND), 1
    state = demos[4].state.copy()
    half = len(state) // 2
    state[half:, joint] = state[half, joint]
    demos[4] = demos[4]._replace(state=state)
    found = [f for f in outcomes(demos, KIND)["commands"].findings if "is stuck from frame" in f.what]
    assert [(f.what.split()[0], f.severity) for f in found] == [("shoulder_lift.pos", "error")]
    assert [int(number) for number in found[0].episodes] == [4]


def test_a_joint_that_is_mirrored_in_half_of_the_episodes():
    def mirrored(demo, both):
        sign = np.float32([1, -1, 1, 1, 1, 1])
        return demo._replace(state=demo.state * sign, actions=demo.actions * sign if both else demo.actions)

    found = outcomes([mirrored(d, both=False) if i % 2 else d for i, d in enumerate(SOUND)], KIND)
    assert any("shoulder_lift.pos moves along with its command in episodes 0, 2" in w for w in only(found, "actions"))
    found = outcomes([mirrored(d, both=True) if i % 2 else d for i, d in enumerate(SOUND)], KIND)
    assert any("shoulder_lift.pos starts near" in what for what in only(found, "actions"))


def test_a_gripper_beyond_its_range_in_some_frames():
    odd = SOUND[3]._replace(actions=SOUND[3].actions.copy())
    odd.actions[5:40, 5] = 200
    found = outcomes([odd if i == 3 else d for i, d in enumerate(SOUND)], KIND)
    assert "gripper.pos is 200 in " in only(found, "gripper")[0]
    assert only(found, "gripper")[0].endswith(", in episodes 3")


def test_an_idle_start_is_seen_behind_a_noisy_sensor():
    path = np.zeros((100, 2))
    path[40:, 0] = np.linspace(0, 1, 60)
    path[:, 1] = 0.4 * (np.arange(100) > 60) + np.random.default_rng(0).normal(0, 0.02, 100)
    start, _, end = signals.idle(path)
    assert 40 <= start <= 46
    assert end < 8


def test_texts_counts_and_names():
    told = [
        d._replace(instruction="Put the cube into the box." if i < 2 else d.instruction) for i, d in enumerate(SOUND)
    ]
    found = outcomes(told, KIND)
    assert "say the same: one task is counted as two" in only(found, "texts")[0]
    assert only(found, "counts") == ["10 episodes of 'put the cube into the box', 2 of 'Put the cube into the box.'"]
    layout = Layout("set", state=("a", "a", "b"), action=())
    assert "two dimensions named 'a'" in str(whole.names(layout, digested(SOUND)).findings)
    assert "3 names for 6 dimensions" in str(whole.names(layout, digested(SOUND)).findings)


def test_time_stamps_are_judged_in_frames():
    recordings = digested(SOUND[:2])
    steps = np.arange(len(SOUND[0].actions)) / 10
    tremble = np.random.default_rng(0).uniform(-0.004, 0.004, len(steps))
    even = whole.rate(Layout("set", fps=10, times={0: steps + tremble}), recordings)
    assert even.findings == ()
    gap = whole.rate(Layout("set", fps=10, times={0: steps + 0.3 * (steps > 2)}), recordings)
    assert gap.findings[0].what == "4.0 frames pass after frame 20"
    assert gap.findings[0].episodes == (0,)
    assert "another rate than declared" in str(whole.rate(Layout("set", fps=30, times={0: steps}), recordings).findings)


def test_units_by_name_and_by_range():
    def one(low, high, names=(), grippers=()):
        return [g.unit for g in units.guess(names, np.array(low), np.array(high), grippers)]

    assert one([-110, 0], [110, 100], (), (1,)) == ["degrees", "0 to 100"]
    assert one([-1.9, 0], [1.9, 1], (), (1,)) == ["radians", "0 to 1"]
    assert one([0, 1024], [4095, 3000]) == ["ticks", "ticks"]
    assert one([0.1, -0.2, -3], [0.3, 0.2, 3], ("x", "y", "yaw")) == ["metres", "metres", "radians"]


def test_reading_goes_on_past_a_bad_episode(tmp_path):
    root = write_lerobot(tmp_path / "set", [d._replace(images=d.images[:, :, ::4, ::4]) for d in SOUND], KIND, "png")
    [path] = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    rows = table["episode_index"].to_numpy() == 4
    numbers = np.where(rows, 7, table["frame_index"].to_numpy())
    pq.write_table(table.set_column(table.schema.get_field_index("frame_index"), "frame_index", [numbers]), path)
    files = next(r.outcome for r in examined(root) if r.outcome.check == "files")
    assert files.note.startswith("1 file, 11 demonstrations read")
    assert [f.episodes for f in files.findings] == [(4,)]
    assert to_drop([files]) == {"set": [4]}


def test_names_cameras_and_rate_come_from_the_data_set(tmp_path):
    demos, which = damaged("sign of one joint flipped in the state", KIND, 0)
    root = write_lerobot(tmp_path / "set", demos, KIND)
    results = examined(root)
    found = {r.outcome.check: r.outcome for r in results}
    assert found["names"].note.endswith("front, wrist; robot so101_follower")
    assert "shoulder_pan.pos" in found["names"].note
    assert found["rate"].note.startswith("10 frames per second")
    assert "11 of them with nothing against them" in found["files"].note
    html, *pictures = page.write(tmp_path / "page", results)
    text = html.read_text()
    assert len(pictures) == 12
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert text.index(f"set episode {which}: put the cube") < text.index("set episode 0: put the cube")
    assert "moves against its command" in text
    assert f"to drop or mend in set: drop=({which},)" in page.summary([r.outcome for r in results])
    written = page.as_json(results)
    [entry] = written["findings"]
    assert list(entry) == ["check", "severity", "file", "episode", "task", "what", "remedy", "figures"]
    assert (entry["check"], entry["severity"], entry["episode"]) == ("commands", "error", which)
    assert written["drop"] == {"set": [which]}
    json.dumps(written, allow_nan=False)


def test_severities_decide_what_fails():
    found = [Outcome("a", tuple(Finding("x", "y", "z", level) for level in ("info", "warning")))]
    assert [len(failing(found, level)) for level in ("never", "error", "warning", "info")] == [0, 0, 1, 2]
    assert page.line(found[0]).startswith("WARNING a")
    assert page.summary(found).startswith("1 thing is wrong:")


@pytest.mark.parametrize(("level", "status"), [("error", 0), ("warning", 1)])
def test_the_exit_status_is_for_continuous_integration(tmp_path, level, status):
    demos, which = damaged("a duplicate", KIND, 0, episodes=6)
    root = write_lerobot(tmp_path / "set", demos, KIND)
    command = [sys.executable, "experiments/doctor.py", f"--demos={root}", f"--output={tmp_path / 'page'}"]
    command += [f"--json={tmp_path / 'found.json'}", f"--fail_on={level}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert json.loads((tmp_path / "found.json").read_text())["drop"] == {"set": [which]}


def test_the_data_decide_on_the_world(tmp_path, monkeypatch):
    path = tmp_path / f"{TASK}_demo.hdf5"
    libero_hdf5.write(path, DEMOS, ROOM, TASK, {})
    chosen = choice.choose([path], {})
    assert chosen.world == "metaworld"
    assert "is its drawer-close" in chosen.why
    other = tmp_path / "sweep_demo.hdf5"
    libero_hdf5.write(other, [d._replace(instruction="sweep the floor") for d in DEMOS], ROOM, "sweep", {})
    chosen = choice.choose([other], {})
    assert chosen.world == "none"
    assert "as in metaworld, but no task of it is named" in chosen.why
    assert choice.choose([], {}) == ("none", "no demonstrations are given")


def test_statistics_that_are_too_wide_are_named():
    degrees = scales.of(normalize.compute(make_set(KIND, 3)))
    radians = digested([d._replace(state=np.radians(d.state), actions=np.radians(d.actions)) for d in SOUND])
    found = scales.statistics(degrees, "base", radians, bounded=False).findings
    assert any("vary 0.01" in f.what and "radians for degrees?" in f.what for f in found), found
    assert scales.statistics(degrees, "base", digested(SOUND), bounded=False).findings == ()


def test_one_value_does_not_move_what_is_usual():
    values = np.array([1.0, 1.1, 0.9, 1.0, 9.0, np.nan])
    away = robust.apart(values, 0.1)
    assert away[4] == pytest.approx(80)
    assert abs(away[:4]).max() < 2
    assert away[5] == 0
    near, theirs = robust.alone(robust.between(np.array([[0.0], [0.1], [5.0], [5.1], [9.0]])))
    assert near[4] == pytest.approx(3.9)
    assert theirs[4] == pytest.approx(0.5 * 4.95)
    near, theirs = robust.alone(robust.between(np.arange(9.0)[:, None]))
    assert theirs[0] == pytest.approx(1.5)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder, demos in (("clean", SOUND), ("noisy", damaged("a jump in one joint", KIND, 0)[0])):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        write_hdf5(tmp_path / "runs" / folder / "cube_demo.hdf5", demos)
    found = {r.outcome.check: r.outcome for r in examined(tmp_path / "runs")}
    assert {f.file for f in above_info(list(found.values()))} == {"noisy/cube_demo.hdf5"}
    assert found["ranges"].note.count("state:") == 2
    assert found["files"].note == "2 files, 24 demonstrations read, 23 of them with nothing against them"


def test_what_to_drop_is_printed_as_commands_and_configs_take_it():
    assert dropping("my_set", [3]) == "drop=(3,)"
    assert dropping("my_set", [3, 7]) == "drop=(3, 7)"
    assert dropping("clean/lift_demo.hdf5", [3, 7]) == "drop=('lift:3', 'lift:7')"
    for printed, numbers in (("(3,)", {(None, 3)}), ("('lift:3', 'lift:7')", {("lift", 3), ("lift", 7)})):
        assert selection(drop=printed.split(",")).drop == numbers  # as a flag splits it
        assert selection(drop=ast.literal_eval(printed)).drop == numbers  # as a config reads it
