"""Offline evaluation: rivals in closed form, and everything that a command writes."""

import json

import jax
import numpy as np
import pytest

from metalora_jax import trees
from metalora_jax.adaptation.learner import learner
from metalora_jax.adaptation.prediction import Prediction, recorded
from metalora_jax.adapters import placement
from metalora_jax.evaluation.offline import measure, page, rivals
from metalora_jax.evaluation.offline.measure import Settings
from metalora_jax.evaluation.reports import provenance
from metalora_jax.evaluation.reports.statistics import paired_difference
from metalora_jax.types import Demo
from tests.tiny_base import EXPERT, INSTRUCTIONS, make_base, make_demos

ABSOLUTE = rivals.Meaning(np.zeros(4, bool), "positions")
EVERY = Settings(stride=1)
HERE = {"reach": make_demos("reach")[:2]}


def result_of(held_out, training, known=ABSOLUTE, settings=EVERY):
    """Of the rivals alone."""
    base = make_base()
    seen = recorded(held_out, base.preprocessor, stride=settings.stride)
    episodes = [demo for demos in held_out.values() for demo in demos]
    chunks = {name: rivals.predicted(name, seen, episodes, training, known) for name in rivals.NAMES}
    made = {name: Prediction(chunk[None], chunk) for name, chunk in chunks.items()}
    return measure.assembled(base, seen, episodes, made, known, settings)


def still(steps=9):
    demo = make_demos("reach")[0]
    return Demo(demo.instruction, np.zeros((steps, 1, 64, 64, 3), np.uint8), *np.full((2, steps, 4), 0.3, np.float32))


def test_holding_the_pose_is_perfect_where_nothing_moves():
    result = result_of({"reach": [still()]}, HERE)
    np.testing.assert_array_equal(result.errors["hold"].error, 0)
    assert measure.verdict(result, "mean", "the mean").startswith("the mean is NOT better than standing still: ")
    assert (result.scaled("mean") > 0).all()


def test_holding_the_pose_is_zero_where_actions_are_differences():
    known = rivals.Meaning(np.array([True, True, True, False]), "differences")
    result = result_of({"reach": [still()]}, HERE, known)
    np.testing.assert_allclose(result.errors["hold"].error, [[0.3, 0.3, 0.3, 0.0]])


def test_the_mean_of_the_same_demonstrations_is_a_standard_deviation_off():
    demos = {"reach": [make_demos("reach")[3]]}
    [demo] = demos["reach"]
    lone = demo._replace(actions=np.concatenate([demo.actions[1:].mean(0, keepdims=True), demo.actions[1:]]))
    result = result_of({"reach": [lone]}, {"reach": [lone]}, settings=Settings(stride=1, ahead=1))
    np.testing.assert_allclose(np.sqrt(result.errors["mean"].squared[0]), lone.actions[1:].std(axis=0), rtol=1e-5)


def test_the_nearest_frame_of_the_same_demonstrations_replays_them():
    result = result_of(HERE, HERE)
    np.testing.assert_allclose(result.errors["nearest"].error, 0, atol=1e-6)


def test_the_nearest_frame_is_one_of_the_same_instruction():
    other = [demo._replace(actions=demo.actions + 100, instruction=INSTRUCTIONS["push"]) for demo in HERE["reach"]]
    result = result_of(HERE, {"push": other, **HERE})
    np.testing.assert_allclose(result.errors["nearest"].error, 0, atol=1e-6)


def swings(relative):
    """Demonstrations whose state follows their commands."""
    time = np.linspace(0, 7, 80)
    place = np.stack([np.sin(time + k) + 0.3 * k for k in range(4)], axis=1).astype(np.float32)
    command = np.diff(place, axis=0, append=place[-1:]) if relative else np.roll(place, -1, axis=0)
    return [Demo("swing", np.zeros((80, 0, 0, 0, 3), np.uint8), place, command) for _ in range(3)]


@pytest.mark.parametrize("relative", [False, True])
def test_what_actions_mean_is_read_from_how_the_state_follows(relative):
    found = rivals.meaning(swings(relative))
    assert found.relative.tolist() == [relative] * 3 + [False]  # the last is taken for a gripper
    assert rivals.meaning(swings(relative), "absolute").relative.tolist() == [False] * 4


def test_paired_differences():
    one, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 3.0, 4.0, 3.5])
    found = paired_difference(one, other, [list("abcd")])
    assert (found.pairs, found.better, found.worse) == (4, 3, 1)
    assert found.mean == pytest.approx(-0.625)
    assert found.interval.low <= found.mean <= found.interval.high
    assert found.p == pytest.approx(0.625)  # 2 (C(4, 3) + C(4, 4)) / 2^4
    assert paired_difference(one, one, [[0] * 4]).interval is None


@pytest.fixture(scope="module")
def evaluated():
    base = make_base()
    adapted = learner(base, placement.from_json([EXPERT]), jax.random.key(0))
    held_out = {"reach": make_demos("reach")[2:], "push": make_demos("push")[3:]}
    policies = {"adapted": adapted, "base": None}
    return measure.evaluate(base, policies, held_out, HERE, Settings(stride=2, samples=3), list("abcd"))


def test_shapes_are_as_documented(evaluated):
    frames, chunk = len(evaluated.demo), make_base().sizes.chunk
    assert evaluated.actions.shape == (frames, chunk, 4)
    assert evaluated.predictions["adapted"].samples.shape == (3, frames, chunk, 4)
    assert set(evaluated.predictions) == {"adapted", "base", *rivals.NAMES}
    assert evaluated.errors["adapted"].error.shape == (3, 4)
    assert evaluated.scaled("adapted").shape == evaluated.loss("adapted").shape == (3,)
    assert evaluated.loss("hold") is None
    for frame, (episode, moment) in enumerate(zip(evaluated.demo, evaluated.moment, strict=True)):
        recorded_action = evaluated.held_out[episode].actions[moment]
        np.testing.assert_allclose(evaluated.actions[frame, 0], recorded_action, atol=1e-6)


def test_policies_differ_and_see_the_same_noise(evaluated):
    base = make_base()
    zero = learner(base, placement.from_json([EXPERT]), jax.random.key(0))
    zero = zero.replace(theta=jax.tree.map(np.zeros_like, zero.theta))
    again = measure.evaluate(
        base, {"zero": zero}, {"reach": make_demos("reach")[2:]}, HERE, Settings(stride=2, samples=3)
    )
    own = evaluated.predictions["base"].quiet[: len(again.demo)]
    np.testing.assert_allclose(again.predictions["zero"].quiet, own, atol=1e-4)
    assert np.abs(evaluated.predictions["adapted"].quiet[: len(again.demo)] - own).max() > 1e-3


def test_the_page_and_the_records_hold_the_same_numbers(evaluated, tmp_path):
    base = make_base()
    inputs = provenance.inputs({}, base.fingerprint, "", base.statistics.digest(), {"test": "t"})
    made = {"adapted": inputs._replace(adapter="a"), "base": inputs}
    names = ["episode 2", "episode 3", "episode 7"]
    request = page.Request({"adapted": "Adapted <b>", "base": "Base"}, names, made, {"demos": "somewhere"}, ["careful"])
    written = page.write(tmp_path / "out", evaluated, request)
    html = written.read_text()
    assert "Offline error is no success rate" in html
    assert "1809.04843" in html
    assert "2108.03298" in html
    assert "Adapted &lt;b&gt;" in html
    assert "careful" in html
    assert html.count("data:image/png") >= 1 + 3 + 1
    rows = [json.loads(line) for line in (tmp_path / "out" / page.RECORDS).read_text().splitlines()]
    assert len(rows) == len(evaluated.errors) * 3
    assert {row["fingerprint"] for row in rows} == set(provenance.read(tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / page.SUMMARY).read_text())
    for name in evaluated.errors:
        own = [row["scaled_error"] for row in rows if row["policy"] == name]
        assert summary["policies"][name]["scaled_error"] == pytest.approx(np.mean(own))
        assert own == pytest.approx(evaluated.scaled(name).tolist())


def test_worst_moments_lie_apart(evaluated):
    rows = page.worst_moments(evaluated, "adapted")
    assert rows[0] == int(evaluated.by_frame("adapted").argmax())
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("settings", "message"),
    [(Settings(stride=0), "offline.stride is 0; it must be positive"), (Settings(actions="joint"), "choose from auto")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        measure.evaluate(make_base(), {}, HERE, HERE, settings)


def test_a_rival_s_name_is_taken():
    with pytest.raises(ValueError, match="'hold', which is a rival's name"):
        measure.evaluate(make_base(), {"hold": None}, HERE, HERE)


def test_a_policy_of_another_base_is_refused():
    other = learner(make_base(), (), jax.random.key(0)).replace(base="another")
    with pytest.raises(ValueError, match="the adapters are on base another"):
        measure.evaluate(make_base(), {"mine": other}, HERE, HERE)
    assert trees.count(other.theta) == 0
