"""The doctor on all but the demonstrations: statistics, a base, the set-up, and the page that it writes."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from metalora_jax.data import libero_hdf5, normalize
from metalora_jax.evaluation.doctor import page, pictures, run, scales, setup, visits
from metalora_jax.evaluation.doctor.findings import Outcome
from metalora_jax.evaluation.doctor.run import Request, examine
from metalora_jax.evaluation.doctor.simulated import Visit
from tests.evaluation.doctor_demos import CAMERAS, DEMOS, TASK, each, examined, make_demo, put, scenery, times, wrong
from tests.tiny_base import make_base


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
        ({"libero": lerobot(DEMOS) | {"num_transitions": 900, "num_trajectories": 1}}, "from 1 demonstration"),
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
        (change(3, "action_mean", -1.0) | {"action_std": [1.0] * 4}, "dimension 3: no values can have this mean"),
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
    assert "it uses 1 camera, but --cameras names 2" in wrong(examined(file, base=""))["base"]
    longer = [d._replace(instruction="push the drawer shut " * 9) for d in DEMOS]
    libero_hdf5.write(file, longer, CAMERAS, TASK, {"seeds": [0, 1, 2, 3]})
    assert "tokens" in wrong(examined(file, base=""))["base"]


def test_a_base_of_relative_actions_takes_no_recorded_differences(file, simulator, monkeypatch):
    known = make_base().statistics._replace(relative=np.array([True, True, True, False]))
    monkeypatch.setattr(run.bases, "load", lambda _: make_base()._replace(statistics=known))
    monkeypatch.setattr(run, "doubts", lambda base, demos: [])
    request = Request("metaworld", (str(file),), CAMERAS[:1], base="")
    [outcome] = [result.outcome for result in examine(request) if result.outcome.check == "base"]
    assert outcome.findings[0].what.startswith("the recorded actions are differences already")
    assert outcome.note.endswith("predicts action minus the state at the chunk's start in 0, 1, 2, and 3 as recorded")


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
    assert "pictures of 0.1" in found["numpy"].what


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
