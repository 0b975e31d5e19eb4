"""The doctor: a sound file passes every check, and each kind of damage is named by the check that is for it."""

import json
import re
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest

from metalora_jax.data import libero_hdf5, normalize
from metalora_jax.envs.metaworld import instruction
from metalora_jax.evaluation.doctor import page, pictures, run, scales, setup, simulated, visits
from metalora_jax.evaluation.doctor.findings import Outcome
from metalora_jax.evaluation.doctor.run import Request, examine
from metalora_jax.evaluation.doctor.simulated import Played, Visit
from metalora_jax.types import Demo
from tests.tiny_base import make_base

TASK, CAMERAS, STEPS, SIZE = "drawer-close", ("agentview", "topview"), 40, 32


def scenery() -> np.ndarray:
    """What two cameras see of a room without a robot (C, H, W, 3) uint8: patches of colour, nowhere symmetric."""
    patches = np.random.default_rng(0).integers(0, 220, (2, 4, 4, 3), dtype=np.uint8)
    return patches.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


def make_demo(seed: int) -> Demo:
    """A hand that goes where its commands say, closes half way, and is seen as a white spot."""
    rng = np.random.default_rng(seed)
    turns = rng.uniform(-1, 1, (8, 3)).repeat(STEPS // 8, axis=0)
    gripper = np.where(np.arange(STEPS) < STEPS // 2, -1.0, 1.0)
    opening = np.clip(1.0 - 0.1 * np.cumsum(gripper > 0), 0.3, 1.0)
    place = np.cumsum(np.concatenate([[[0.0, 0.6, 0.2]], 0.009 * turns[:-1]]), axis=0)
    images = scenery()[None].repeat(STEPS, axis=0)
    for t, (x, y) in enumerate(((place[:, :2] - [-0.4, 0.2]) * SIZE / 0.9).astype(int)):
        images[t, :, x : x + 3, y : y + 3] = 255
    state = np.concatenate([place, opening[:, None]], axis=1).astype(np.float32)
    actions = np.concatenate([turns, gripper[:, None]], axis=1).astype(np.float32)
    return Demo(instruction(TASK), images, state, actions)


DEMOS = [make_demo(seed) for seed in range(4)]


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / f"{TASK}_demo.hdf5"
    libero_hdf5.write(path, DEMOS, CAMERAS, TASK, {"seeds": [0, 1, 2, 3], "noise": 0.0, "condition": {}})
    return path


@pytest.fixture
def simulator(monkeypatch):
    """A room that looks as `scenery`, in which the drawer closes where the commands are those of the seed's episode."""

    def visit(world, task, cameras, image_size, takes):
        if task != TASK:
            raise RuntimeError("a worker process died without an error message")
        return Visit(scenery()[: len(cameras)], 4, tuple(play(take, len(cameras)) for take in takes))

    def play(take, cameras):
        demo = DEMOS[take.start.seed]
        off = np.linalg.norm(take.state[:, :3] - demo.state[: len(take.state), :3], axis=1)
        return Played(
            demo.images[0, :cameras], same(take.actions, demo.actions), demo.state[0], off, mended(take, demo), ""
        )

    def same(actions, executed):
        return actions.shape == executed.shape and np.allclose(actions, executed)

    def mended(take, demo):
        return "the sign of the gripper reversed" if same(take.actions * [1, 1, 1, -1], demo.actions) else ""

    monkeypatch.setattr(simulated, "visit", visit)
    for name in ("versions", "graphics"):
        monkeypatch.setattr(setup, name, lambda world, name=name: Outcome(name))


def examined(file: Path, **fields) -> dict[str, Outcome]:
    request = Request("metaworld", (str(file),), CAMERAS, **fields)
    return {result.outcome.check: result.outcome for result in examine(request)}


def wrong(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: "\n".join(map(str, o.findings)) for name, o in outcomes.items() if o.findings}


def test_a_sound_file_passes_every_check(file, simulator):
    statistics = file.with_name("statistics.json")
    # Of enough data: other episodes than these.
    others = normalize.compute([make_demo(seed) for seed in range(10, 40)])
    statistics.write_text(json.dumps(others.to_json()))
    outcomes = examined(file, statistics=str(statistics))
    assert wrong(outcomes) == {}
    assert [name for name, outcome in outcomes.items() if outcome.skipped] == []
    assert outcomes["files"].note == "1 files, 4 demonstrations read"
    assert outcomes["replay"].note.startswith("4 of 4 succeed")


def each(change):
    """Changes every demonstration of an HDF5 file."""

    def damage(path):
        with h5py.File(path, "a") as opened:
            for group in opened["data"].values():
                change(group)

    return damage


def one(number, change):
    """Changes one."""

    def damage(path):
        with h5py.File(path, "a") as opened:
            change(opened["data"][f"demo_{number}"])

    return damage


def put(key, function):
    """Replaces an array by a function of it."""

    def change(group):
        value = function(group[key][()])
        del group[key]
        group[key] = value

    return change


def both(*changes):
    return lambda group: [change(group) for change in changes]


def swap(group):
    group.move("obs/agentview_rgb", "obs/t")
    group.move("obs/topview_rgb", "obs/agentview_rgb")
    group.move("obs/t", "obs/topview_rgb")


def duplicate(group):
    del group["obs/topview_rgb"]
    group["obs/topview_rgb"] = group["obs/agentview_rgb"][()]


def remove(key):
    return lambda group: group.__delitem__(key)


def truncate(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def tell(words):
    def damage(path):
        with h5py.File(path, "a") as opened:
            opened["data"].attrs["problem_info"] = json.dumps({"language_instruction": words})

    return damage


def absolute(group):
    group["actions"][:-1, :3] = group["obs/ee_pos"][1:]


def provenance(value):
    def damage(path):
        with h5py.File(path, "a") as opened:
            opened["data"].attrs["provenance"] = json.dumps(value)

    return damage


def columns(*order):
    return lambda actions: actions[:, list(order)]


def times(*factors):
    return lambda actions: actions * np.array(factors)


RGB = "obs/agentview_rgb"


@pytest.mark.parametrize(
    ("damage", "check", "complaint"),
    [
        (each(put(RGB, lambda x: x[:, ::-1])), "image orientation", "agentview is upside down, compared with the sim"),
        (each(put(RGB, lambda x: x[:, :, ::-1])), "image orientation", "agentview is mirrored"),
        (each(put("obs/topview_rgb", lambda x: x[:, ::-1, ::-1])), "image orientation", "topview is turned by 180"),
        (one(2, put(RGB, lambda x: x[:, ::-1])), "one orientation", r"demo_2 \(1 of 4\): agentview is upside down"),
        (each(swap), "image orientation", "agentview shows what topview sees"),
        (each(duplicate), "pictures", "agentview and topview show the same picture"),
        (one(1, put(RGB, lambda x: x * 0)), "pictures", r"demo_1 \(1 of 4\): agentview shows one even colour"),
        (one(1, put(RGB, lambda x: x[:1].repeat(len(x), 0))), "pictures", r"demo_1 .*: agentview stands still"),
        (each(put("actions", times(1, 1, 1, -1))), "gripper", "fingers open when the gripper command says close"),
        (one(3, put("actions", times(1, 1, 1, -1))), "gripper", r"demo_3 \(1 of 4\): the fingers open"),
        (
            each(put("actions", columns(3, 0, 1, 2))),
            "gripper",
            "fingers respond to action dimension 0, not to the last",
        ),
        (each(put("actions", times(1, 1, 1, -1))), "replay", "its actions, replayed, do not solve the task"),
        (each(put("actions", times(20, 20, 20, 1))), "action range", r"leaves \[-1, 1\]"),
        (each(put("actions", times(0.01, 0.01, 0.01, 1))), "action range", "metres, not fractions of a step"),
        (each(put("actions", times(0.1, 0.1, 0.1, 1))), "action frame", "moves 10 times as far as commanded"),
        (each(put("actions", columns(1, 0, 2, 3))), "action frame", "follow the commands' y, x, z: axes are swapped"),
        (each(put("actions", times(1, -1, 1, 1))), "action frame", "against its command in y: the sign is reversed"),
        (each(put("actions", lambda a: a * (np.arange(40) % 4 == 0)[:, None])), "action range", "more than 50%"),
        (each(put("obs/ee_pos", lambda x: x * 1000)), "state", "does not start where the simulator puts it"),
        (each(put("actions", lambda a: np.roll(a, -8, 0))), "action frame", "steps after its commands, usually 3"),
        (each(put("actions", lambda a: a[::-1])), "action frame", "hand does not follow its commands"),
        (each(put("actions", times(0, 0, 0, 1))), "action range", "the arm is never commanded to move"),
        (each(absolute), "action range", "absolute places, not displacements"),
        (each(put("obs/ee_pos", lambda x: x * 1000)), "proprioception", "m away: millimetres"),
        (each(put("obs/ee_pos", lambda x: x[:1].repeat(len(x), 0))), "proprioception", "the hand never moves"),
        (each(put(RGB, lambda x: x[..., ::-1])), "image orientation", "agentview has red and blue exchanged"),
        (one(1, put(RGB, lambda x: x[np.minimum(np.arange(40), 15)])), "pictures", "demo_1 .*: agentview stands still"),
        (each(put(RGB, lambda x: x // 8)), "pictures", "agentview is nearly black"),
        (each(put(RGB, lambda x: x[..., :1].repeat(3, -1))), "pictures", "agentview has no colour"),
        (provenance([]), "files", r"provenance is \[\], expected a JSON object"),
        (
            each(lambda group: group.__setitem__("states", np.zeros((0, 9)))),
            "files",
            r"states \(0, 9\) for 40 .* 3 demon",
        ),
        (one(0, remove("obs/ee_pos")), "files", "key missing .*ee_pos"),
        (one(3, remove(RGB)), "files", "key missing .*agentview_rgb"),
        (one(1, put("actions", lambda a: a * np.nan)), "files", "demo_1: actions at step 0 is not finite"),
        (each(put("actions", lambda a: a[:, :3])), "widths", "state and actions are 4 and 3 wide, the world's 4 and 4"),
        (truncate(0.5), "files", "damaged or truncated"),
        (tell(""), "files", "the instruction is ''"),
        (
            tell("push the drawer shut "),
            "instructions",
            "'push the drawer shut ' is spelled differently from 'push the d",
        ),
        (tell("Push_the_drawer_shut"), "instructions", "is spelled differently"),
        (tell("pull the drawer open"), "instructions", "is that of drawer-open, not of drawer-close"),
        (tell("tidy the kitchen"), "instructions", "is not that of drawer-close"),
    ],
)
def test_damage_is_named_by_the_check_that_is_for_it(file, simulator, damage, check, complaint):
    damage(file)
    found = wrong(examined(file))
    assert check in found, found
    assert re.search(complaint, found[check]), found


def test_the_others_are_checked_where_one_is_damaged(file, simulator):
    one(1, remove("actions"))(file)
    damaged = file.with_name("door-open_demo.hdf5")
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    file.with_name("faucet-close_demo.hdf5").write_bytes(file.read_bytes())
    outcomes = examined(file.parent)
    found = wrong(outcomes)
    assert outcomes["files"].note == "3 files, 6 demonstrations read"
    assert len(outcomes["files"].findings) == 3
    assert "door-open_demo.hdf5: " in found["files"]
    assert "faucet-close_demo.hdf5: " in found["simulator"] or "died without an error message" in found["simulator"]
    assert "is that of drawer-close, not of faucet-close" in found["instructions"]
    assert outcomes["replay"].note.startswith("3 of 3 succeed")


def test_the_remedy_of_a_reversed_gripper_is_that_which_solves_the_task(file, simulator):
    each(put("actions", times(1, 1, 1, -1)))(file)
    [finding] = examined(file)["replay"].findings
    assert finding.remedy == "they solve it with the sign of the gripper reversed: fix that"


@pytest.mark.parametrize(
    ("provenance", "reason"),
    [({"seeds": [0, 1, 2, 3], "noise": 0.3}, "recorded with pushes"), ({}, "no start is recorded")],
)
def test_what_cannot_be_replayed_is_skipped_with_the_reason(file, simulator, provenance, reason):
    libero_hdf5.write(file, DEMOS, CAMERAS, TASK, provenance)
    outcomes = examined(file)
    assert wrong(outcomes) == {}
    assert reason in outcomes["replay"].skipped
    assert outcomes["image orientation"].note.startswith("3 first pictures")  # held against any start of the task


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_demonstration_of_few_steps_is_looked_at(file, simulator, steps):
    short = [Demo(d.instruction, *(array[:steps] for array in d[1:4])) for d in DEMOS]
    libero_hdf5.write(file, short, CAMERAS, TASK, {"seeds": [0, 1, 2, 3]})
    assert "do not solve the task" in wrong(examined(file))["replay"]


def test_patterns_that_match_nothing(tmp_path, simulator):
    assert "none.hdf5: no such file" in wrong(examined(tmp_path / "none.hdf5"))["files"]
    assert "*_demo.hdf5: no such file" in wrong(examined(tmp_path / "*_demo.hdf5"))["files"]


def test_an_unknown_task_gets_the_near_ones(file, simulator):
    other = file.with_name("my_drawer_demo.hdf5")
    libero_hdf5.write(other, [d._replace(instruction="push drawer shut") for d in DEMOS], CAMERAS, "my", {})
    found = wrong(examined(other))
    assert (
        "no task of this world has instruction 'push drawer shut'; near: push the drawer shut" in found["instructions"]
    )
    assert "is not that of drawer-close" in wrong(examined(other, task=TASK))["instructions"]
    assert "no Meta-World task named 'drawer'; near: drawer-" in wrong(examined(other, task="drawer"))["files"]


def statistics_file(tmp_path, fields) -> str:
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps(fields))
    return str(path)


def change(index, key, value):
    fields = normalize.compute([make_demo(seed) for seed in range(10, 40)]).to_json()
    fields[key][index] = value
    return fields


def lerobot(demos, **more):
    parts = {"observation.state": np.concatenate([d.state for d in demos])}
    parts["action"] = np.concatenate([d.actions for d in demos])
    return {
        key: {"mean": v.mean(0).tolist(), "std": v.std(0).tolist(), "count": [len(v)]} | more
        for key, v in parts.items()
    }


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (normalize.compute(DEMOS[2:3]).to_json(), "one demonstration, drawer-close_demo.hdf5 demo_2"),
        (normalize.compute(DEMOS[:3]).to_json(), "computed from 3 demonstrations, the first of drawer-close"),
        (lerobot(DEMOS[:1]), "computed from 40 steps, which is one demonstration or less"),
        ({"libero": lerobot(DEMOS) | {"num_transitions": 900, "num_trajectories": 1}}, "from 1 demonstrations"),
        ({"norm_stats": lerobot(DEMOS[1:2])}, "computed from 40 steps"),
        (change(0, "state_std", 1e-6), "state dimension 0 has a standard deviation of 1e-06: degenerate"),
        (change(2, "action_std", 0.01), "action dimension 2 is constant in these statistics, but moves"),
        (change(3, "action_std", 0.01), "the gripper never moves in these statistics"),
        (
            change(1, "state_mean", 600.0),
            r"state dimension 1: the demonstrations lie -\d+\.\d standard dev",
        ),
        (change(1, "action_std", 0.03), "action dimension 1: the demonstrations .* vary"),
        (change(1, "action_std", float("nan")), "not all numbers are finite"),
        (lerobot(DEMOS, q01=[1.0] * 4, q99=[0.0] * 4), "q01 lies above q99"),
        (change(3, "action_mean", -1.0) | {"action_std": [1.0] * 4}, "dimension 3: no values have this mean and this"),
        ({"state_mean": [0.0]}, "normalisation statistics have keys"),
        ({"mean": 1}, "no statistics of state and action"),
        (change(0, "state_mean", 0.0) | {"state_std": [1.0] * 5}, "its statistics differ in width"),
    ],
)
def test_statistics(file, tmp_path, simulator, fields, complaint):
    found = wrong(examined(file, statistics=statistics_file(tmp_path, fields)))
    assert found.keys() == {"statistics"}
    assert re.search(complaint, found["statistics"]), found


def test_statistics_are_held_against_the_base_s():
    base = scales.of(normalize.compute([make_demo(seed) for seed in range(10, 40)]))
    assert scales.against(base, "here", base) == []
    millimetres = base._replace(state={name: values * 1000 for name, values in base.state.items()})
    assert "state dimension 0: 1e+03 times the base's scale" in str(scales.against(millimetres, "here", base)[0])
    narrow = base._replace(action={name: values[:3] for name, values in base.action.items()})
    assert "action has 3 dimensions, the base's has 4" in str(scales.against(narrow, "here", base)[0])


def test_a_base_that_does_not_fit(file, tmp_path, simulator, monkeypatch):
    assert "config.json" in wrong(examined(file, base=str(tmp_path)))["base"]
    monkeypatch.setattr(run.bases, "load", lambda _: make_base())
    assert "it uses 1 cameras, but --cameras names 2" in wrong(examined(file, base=""))["base"]
    longer = [d._replace(instruction="push the drawer shut " * 9) for d in DEMOS]
    libero_hdf5.write(file, longer, CAMERAS, TASK, {"seeds": [0, 1, 2, 3]})
    assert "tokens" in wrong(examined(file, base=""))["base"]


def test_a_base_is_asked_for_its_doubts(file, simulator, monkeypatch):
    seen = []
    monkeypatch.setattr(run.bases, "load", lambda _: make_base())
    monkeypatch.setattr(run, "doubts", lambda base, demos: seen.append(len(demos)) or ["other units?"])
    request = Request("metaworld", (str(file),), CAMERAS[:1], base="")
    outcomes = {result.outcome.check: result.outcome for result in examine(request)}
    assert str(outcomes["base"].findings[0]) == "drawer-close_demo.hdf5: other units?"
    assert seen == [4]


def test_views_are_told_apart_under_other_colours_and_lamps():
    room = scenery()[0]
    for name, view in pictures.VIEWS.items():
        darker = (0.5 * room[view] + np.array([40, 0, 20])).astype(np.uint8)
        assert pictures.other_view(darker, room) == ("" if name == pictures.AS_IT_IS else name)
    assert pictures.other_view(np.random.default_rng(1).integers(0, 255, room.shape), room) == ""


def test_a_black_rendering_is_a_problem(simulator):
    seen = visits.Seen(TASK, Visit(np.zeros_like(scenery()), 4, ()), {})
    assert "the simulator renders one even colour" in str(visits.rendering([seen], CAMERAS).findings[0])


def test_the_pins_are_those_of_the_project():
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for world, pins in setup.PINS.items():
        given = [*extras[world], *(root / "third_party/libero.txt").read_text().splitlines()]
        assert [
            f"{package}=={version}" for package, version in pins.items() if f"{package}=={version}" not in given
        ] == []


def test_a_missing_package_and_another_version(monkeypatch):
    monkeypatch.setitem(setup.PINS, "metaworld", {"no-such-package": "1.0", "numpy": "0.1"})
    found = {finding.where: finding for finding in setup.versions("metaworld").findings}
    assert "is not installed" in found["no-such-package"].what
    assert "pip install" in found["no-such-package"].remedy
    assert "those of 0.1" in found["numpy"].what


def test_the_page_and_the_short_list(file, tmp_path, simulator):
    each(put("actions", times(1, 1, 1, -1)))(file)
    results = list(examine(Request("metaworld", (str(file),), CAMERAS)))
    html, *images = page.write(tmp_path / "out", results)
    assert len(images) == 2
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)
    said = page.summary([result.outcome for result in results])
    assert said.startswith("2 things are wrong:")
    assert "fix: the simulators open at -1 and close at 1" in said
    assert "multiply the last action by -1" in html.read_text()
    assert "What is wrong" in (tmp_path / "out" / "report.md").read_text()
    assert page.line(Outcome("replay", skipped="no start")).split() == ["skipped", "replay", "no", "start"]
