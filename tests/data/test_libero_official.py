"""LIBERO's own HDF5: turned pictures, the benchmark's words, and files that LIBERO's scripts find whole."""

import json

import h5py
import numpy as np
import pytest

from metalora_jax.data import libero_hdf5
from metalora_jax.data.demos import DemoError
from metalora_jax.data.libero_hdf5 import spoken
from metalora_jax.envs.experts import record, record_whole
from metalora_jax.envs.world import Frame, Step
from tests.demo_formats import CAMERAS, ORIGIN, TASKS, make_libero_demos, recordings

NAME = f"{TASKS[0].replace(' ', '_')}_demo.hdf5"


@pytest.fixture
def demos():
    return make_libero_demos()


@pytest.fixture
def file(tmp_path, demos):
    libero_hdf5.write_official(tmp_path / NAME, recordings(demos), CAMERAS, {"seeds": [1, 2]})
    return tmp_path / NAME


def change(file, edit):
    with h5py.File(file, "a") as opened:
        edit(opened["data"])


def test_pictures_lie_upside_down_in_the_file_and_upright_in_the_demo(file, demos):
    with h5py.File(file) as opened:
        assert opened["data"].attrs["macros_image_convention"] == "opengl"
        stored = opened["data/demo_0/obs/eye_in_hand_rgb"][()]
    np.testing.assert_array_equal(stored, demos[0].images[:, 1, ::-1, ::-1])
    np.testing.assert_array_equal(libero_hdf5.read(file, CAMERAS)[0].images, demos[0].images)


def test_robosuite_s_other_convention_is_mirrored(file, demos):
    def edit(data):
        data.attrs["macros_image_convention"] = "opencv"
        data["demo_0/obs/agentview_rgb"][...] = demos[0].images[:, 0, :, ::-1]

    change(file, edit)
    np.testing.assert_array_equal(libero_hdf5.read(file, CAMERAS[:1])[0].images, demos[0].images[:, :1])


def test_unknown_convention(file):
    change(file, lambda data: data.attrs.update(macros_image_convention="vulkan"))
    with pytest.raises(DemoError, match="macros_image_convention is 'vulkan', expected opengl or opencv"):
        libero_hdf5.read(file, CAMERAS)


def test_everything_that_libero_s_scripts_look_for(file, demos):
    with h5py.File(file) as opened:
        data = opened["data"]
        steps = [len(demo.actions) for demo in demos]
        assert (data.attrs["num_demos"], data.attrs["total"]) == (2, sum(steps))
        assert json.loads(data.attrs["problem_info"]) == {
            "problem_name": ORIGIN.problem_name,
            "domain_name": "robosuite",
            "language_instruction": TASKS[0],
        }
        arguments = json.loads(data.attrs["env_args"])
        assert arguments["type"] == 1
        assert arguments["env_name"] == data.attrs["env_name"] == ORIGIN.env_name
        assert arguments["bddl_file"] == data.attrs["bddl_file_name"] == ORIGIN.bddl_file_name
        assert arguments["env_kwargs"] == ORIGIN.env_kwargs
        assert data.attrs["bddl_file_content"] == ORIGIN.bddl_file_content
        group = data["demo_1"]
        assert group.attrs["model_file"] == ORIGIN.model_file
        assert group.attrs["num_samples"] == 6
        np.testing.assert_array_equal(group.attrs["init_state"], group["states"][0])
        assert {name: (group[name].shape, group[name].dtype) for name in group if name != "obs"} == {
            "actions": ((6, 7), np.float64),
            "dones": ((6,), np.uint8),
            "rewards": ((6,), np.uint8),
            "robot_states": ((6, 9), np.float64),
            "states": ((6, 77), np.float64),
        }
        assert group["dones"][()].tolist() == group["rewards"][()].tolist() == [0] * 5 + [1]
        widths = {name: group["obs"][name].shape[1] for name in group["obs"] if not name.endswith("_rgb")}
        assert widths == {"ee_ori": 3, "ee_pos": 3, "ee_states": 6, "gripper_states": 2, "joint_states": 7}


@pytest.mark.parametrize(
    ("name", "recorded", "expected"),
    [
        (NAME, "Pick the akita black bowl on the stove and place it on the plate", TASKS[0]),
        ("KITCHEN_SCENE8_turn_on_the_stove_demo.hdf5", '"turn on the stove"', "turn on the stove"),
        ("my_task_demo.hdf5", "Turn on the stove", "Turn on the stove"),
    ],
)
def test_an_official_file_tells_what_the_benchmark_tells(file, name, recorded, expected):
    def edit(data):
        del data.attrs["provenance"]
        data.attrs["problem_info"] = json.dumps({"language_instruction": recorded})

    change(file, edit)
    renamed = file.rename(file.with_name(name))
    assert libero_hdf5.read(renamed, CAMERAS, 1)[0].instruction == expected


def test_our_own_file_tells_what_it_was_recorded_with(file):
    renamed = file.rename(file.with_name("pick_up_the_bowl_on_the_stove_and_place_it_on_the_plate_demo.hdf5"))
    assert libero_hdf5.read(renamed, CAMERAS, 1)[0].instruction == TASKS[0]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("turn_on_the_stove", "turn on the stove"),
        ("KITCHEN_SCENE10_close_the_top_drawer", "close the top drawer"),
        ("LIVING_ROOM_SCENE5_put_the_red_mug_on_the_left_plate", "put the red mug on the left plate"),
        ("reach the goal", "reach the goal"),
    ],
)
def test_how_tasks_are_spoken(task, words):
    assert spoken(task) == words


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda data: data.attrs.pop("macros_image_convention"), "key missing .*macros_image_convention"),
        (lambda data: data["demo_0/obs"].pop("gripper_states"), "data/demo_0: key missing .*gripper_states"),
        (lambda data: data["demo_0/obs"].pop("ee_ori"), "data/demo_0: key missing .*ee_ori"),
        (lambda data: data["demo_0/obs"].pop("eye_in_hand_rgb"), "key missing .*eye_in_hand_rgb"),
        (lambda data: data["demo_1"].attrs.modify("num_samples", 9), "demo_1: num_samples is 9, but there are 6 steps"),
        (lambda data: data.attrs.modify("problem_info", "{"), "damaged"),
        (
            lambda data: data.attrs.modify("problem_info", '{"language_instruction": ["a"]}'),
            r"is \['a'\] \(a list\), expected text",
        ),
        (
            lambda data: data.attrs.modify("problem_info", '{"language_instruction": ""}'),
            "demo_0: the instruction is ''",
        ),
    ],
)
def test_damage(file, edit, complaint):
    change(file, edit)
    with pytest.raises(DemoError, match=complaint) as error:
        libero_hdf5.read(file, CAMERAS)
    assert NAME in str(error.value)


def replaced(key, value):
    def edit(data):
        del data[key]
        data[key] = value

    return edit


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("demo_0/actions", np.zeros((5, 7), int), "demo_0: actions are int64"),
        ("demo_0/actions", np.zeros(5), r"demo_0: actions are float64 \(5,\)"),
        ("demo_0/actions", [b"x"] * 5, "demo_0: actions are object"),
        ("demo_0/obs/ee_ori", np.full((5, 3), np.nan), "demo_0: state at step 0 is not finite"),
        ("demo_0/obs/agentview_rgb", np.zeros((5, 8, 8, 3), np.uint8), "demo_0: cameras differ in shape"),
        ("demo_0/obs/agentview_rgb", np.zeros((5, 16), np.uint8), r"agentview_rgb is uint8 \(5, 16\), expected"),
    ],
)
def test_wrong_arrays(file, key, value, complaint):
    change(file, replaced(key, value))
    with pytest.raises(DemoError, match=complaint):
        libero_hdf5.read(file, CAMERAS)


def test_what_cannot_be_written_officially(tmp_path, demos):
    path = tmp_path / NAME
    short = recordings(demos)[0]._replace(moments=())
    with pytest.raises(DemoError, match=r"recording 0 has 0 simulator states for 5 steps; .*Traced"):
        libero_hdf5.write_official(path, [short], CAMERAS, {})
    narrow = [r._replace(demo=r.demo._replace(state=r.demo.state[:, :4])) for r in recordings(demos)]
    with pytest.raises(DemoError, match="recording 0 has 4 state dimensions, LIBERO has 8"):
        libero_hdf5.write_official(path, narrow, CAMERAS, {})
    with pytest.raises(DemoError, match="no demonstration to write"):
        libero_hdf5.write_official(path, [], CAMERAS, {})
    assert list(tmp_path.iterdir()) == []


class Simulated:
    """A simulator of numbers that succeeds at its third step."""

    task, instruction = "turn_on_the_stove", "turn on the stove"

    def reset(self, start, condition=None):
        self.time = 0

    def observe(self):
        return Frame(np.full((2, 8, 8, 3), self.time, np.uint8), np.full(8, self.time, np.float32))

    def step(self, command):
        self.time += 1
        return Step(0.0, self.time >= 3)

    def expert(self):
        return lambda: np.zeros(7)


class Traced(Simulated):
    def origin(self):
        assert self.time == 0
        return ORIGIN

    def moment(self):
        return recordings(make_libero_demos(count=1))[0].moments[0]._replace(state=np.full(77, self.time))


def test_the_recorder_asks_a_simulator_that_tells_its_state():
    recording = record_whole(Traced(), 0, tail=1)
    assert recording.origin is ORIGIN
    assert [moment.state[0] for moment in recording.moments] == [0, 1, 2] == recording.demo.state[:, 0].tolist()
    plain = record_whole(Simulated(), 0, tail=1)
    assert plain[1:] == (None, ())
    np.testing.assert_array_equal(record(Simulated(), 0, tail=1).images, plain.demo.images)
