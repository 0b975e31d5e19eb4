"""Relative actions: openpi's DeltaActions and AbsoluteActions, their statistics, and data of another convention."""

import json

import numpy as np
import pytest

from metalora_jax.data import normalize, relative
from metalora_jax.data.frames import gather, rows_and_labels
from metalora_jax.data.normalize import Statistics
from tests.tiny_base import make_base, make_demos

MASK = np.array([True, True, False, True])
DEMOS = make_demos("reach")
JOINTS = ("pan.pos", "lift.pos", "gripper.pos", "roll.pos")


def ramp(steps=6, speed=2.0):
    """A robot that is told every joint's place one step ahead, at a constant speed."""
    state = 10.0 + speed * np.arange(steps, dtype=np.float32)[:, None] * np.ones(4, np.float32)
    return DEMOS[0]._replace(state=state, actions=state + np.float32(speed), images=DEMOS[0].images[:steps])


def relative_base():
    base = make_base()
    known = normalize.compute(DEMOS, relative=MASK, chunk=base.sizes.chunk)
    return base.preprocessor._replace(statistics=known)


def test_one_state_is_taken_from_a_whole_chunk_and_given_back():
    rng = np.random.default_rng(0)
    actions, state = rng.integers(-99, 99, (2, 3, 4)).astype(np.float32), rng.integers(-9, 9, (2, 6)).astype(np.float32)
    apart = relative.subtracted(actions, state, MASK)
    np.testing.assert_array_equal(apart[..., MASK], actions[..., MASK] - state[:, None, [0, 1, 3]])
    np.testing.assert_array_equal(apart[..., 2], actions[..., 2])
    np.testing.assert_array_equal(relative.added(apart, state, MASK), actions)
    several = np.stack([apart, apart + 1])  # draws of noise stand in front
    np.testing.assert_array_equal(relative.added(several, state, MASK)[1], actions + 1)
    assert relative.subtracted(actions, state, None) is actions
    assert relative.added(actions, state, None) is actions


def test_statistics_are_of_all_actions_of_all_chunks():
    """At a constant speed v, h steps ahead is (h + 1) v away; past the end, the last action is repeated."""
    speed, steps, chunk = 2.0, 6, 3
    known = normalize.compute([ramp(steps, speed)], relative=MASK, chunk=chunk)
    away = [speed * (min(t + h, steps - 1) + 1 - t) for t in range(steps) for h in range(chunk)]
    absolute = [10 + speed * (min(t + h, steps - 1) + 1) for t in range(steps) for h in range(chunk)]
    np.testing.assert_allclose(known.action_mean[MASK], np.mean(away), rtol=1e-6)
    np.testing.assert_allclose(known.action_std[MASK], np.std(away), rtol=1e-6)
    np.testing.assert_allclose(known.action_mean[2], np.mean(absolute), rtol=1e-6)
    ends = normalize.compute([ramp(steps, speed)], modes={"ACTION": "MIN_MAX"}, relative=MASK, chunk=chunk)
    np.testing.assert_allclose(ends.action_mean + ends.action_std, [6, 6, 22, 6], rtol=1e-6)
    np.testing.assert_allclose(known.state_mean, normalize.compute([ramp(steps, speed)]).state_mean)


def test_commands_undo_labels():
    reads = relative_base()
    frames = gather({"reach": DEMOS}, reads)
    rows, labels = rows_and_labels(frames, "reach", range(len(DEMOS)))
    whole = np.concatenate([demo.actions for demo in DEMOS])
    np.testing.assert_allclose(reads.commands(labels.actions, frames.states(rows))[:, 0], whole, atol=1e-6)
    real = labels.actions[..., :4].reshape(-1, 4)
    np.testing.assert_allclose(real.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(real.std(0), 1, atol=1e-5)


def test_relabelled_commands_are_held_against_the_state():
    reads = relative_base()
    frames = gather({"reach": DEMOS}, reads, each=3)
    demo, chosen = DEMOS[1], frames.moments["reach"][1]
    _, labels = rows_and_labels(frames, "reach", [1], lambda actions: actions * np.float32([2, -1, 1, 3]))
    told = demo.actions * np.float32([2, -1, 1, 3])
    for label, t in zip(labels.actions, chosen, strict=True):
        ahead = told[np.minimum(t + np.arange(reads.sizes.chunk), len(told) - 1)]
        wanted = np.where(MASK, ahead - demo.state[t], ahead)
        known = reads.statistics
        np.testing.assert_allclose(label[:, :4], (wanted - known.action_mean) / known.action_std, atol=1e-5)


def test_it_is_written_only_where_it_is_set_and_changes_the_digest():
    plain = normalize.compute(DEMOS)
    assert list(plain.to_json()) == ["state_mean", "state_std", "action_mean", "action_std"]
    marked = plain._replace(relative=MASK)
    legacy = marked._replace(of_differences=True)
    assert len({each.digest() for each in (plain, marked, legacy, plain._replace(relative=~MASK))}) == 4
    for each in (plain, marked, legacy):
        back = Statistics.from_json(json.loads(json.dumps(each.to_json())))
        assert back.digest() == each.digest()
        np.testing.assert_array_equal(back.relative, each.relative)
        assert back.of_differences == each.of_differences
    assert legacy.narrowed(2, 1).checked().relative.tolist() == [True]
    assert marked._replace(relative=~MASK, of_differences=True).narrowed(3, 2).checked().relative is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"relative": [1, 1, 0, 1]}, "relative is .*; it must be a list of true or false"),
        ({"relative": [True]}, "it must hold true or false for each of 4"),
        ({"relative": [False] * 4}, "relative names no dimension of the action; leave it out"),
        ({"of_differences": True}, "of_differences is set, and no action is relative"),
        ({"relative": [True] * 4, "of_differences": 1}, "of_differences is 1; it must be true or false"),
        (
            {"relative": [False, False, False, True], "state_mean": [0.0] * 3, "state_std": [1.0] * 3},
            "action dimension 3 cannot be relative: .* there are 3 state dimensions",
        ),
    ],
)
def test_a_file_with_another_form_is_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        Statistics.from_json(normalize.compute(DEMOS).to_json() | fields)


@pytest.mark.parametrize(
    ("named", "joints", "wanted"),
    [
        (["0", "3"], (), [0, 3]),
        ([0, 1], (), [0, 1]),
        (["roll.pos", "1"], JOINTS, [1, 3]),
        (["all_but_gripper"], JOINTS, [0, 1, 3]),
        (["all_but_gripper"], (), [0, 1, 2]),
    ],
)
def test_dimensions_are_named(named, joints, wanted):
    assert np.flatnonzero(relative.mask_of(named, 4, 4, joints)).tolist() == wanted


def test_dimensions_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"no dimension 'rol.pos' of the action.*did you mean roll.pos"):
        relative.mask_of(["rol.pos"], 4, 4, JOINTS)
    with pytest.raises(ValueError, match="no dimension '4' of the action, there are 0 to 3"):
        relative.mask_of(["4"], 4, 4)
    with pytest.raises(ValueError, match="action dimension 3 cannot be relative"):
        relative.mask_of(["3"], 3, 4)


def test_the_convention_in_words():
    assert relative.said(MASK, joints=JOINTS).endswith("in pan.pos, lift.pos, roll.pos, and gripper.pos as recorded")
    assert "openpi's pi0_libero" in relative.said(MASK, of_differences=True)
    relative.check_exported(None, False, "peft")
    with pytest.raises(
        ValueError, match=r"in 0, 1, 3, and 2 as recorded, and .*--format=peft .*use --format=lerobot_pl"
    ):
        relative.check_exported(MASK, False, "peft")


def test_the_statistics_of_the_commands_are_estimated_by_those_of_the_state():
    demos = [DEMOS[0]._replace(state=state, actions=actions) for state, actions in map(recorded, [False] * 3, range(3))]
    marked, wanted = normalize.compute(demos, relative=MASK, chunk=20), normalize.compute(demos)
    told = marked.of_commands()
    assert told.relative is None
    np.testing.assert_allclose(told.action_mean, wanted.action_mean, atol=0.1)
    np.testing.assert_allclose(told.action_std[MASK], wanted.action_std[MASK], rtol=0.05)
    assert wanted.of_commands() is wanted
    legacy = marked._replace(of_differences=True).of_commands()
    np.testing.assert_array_equal(legacy.action_std, marked.action_std)


def recorded(differences, seed=0):
    """Smooth motions, told as places or as differences."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 60)[:, None]
    place = np.sin(2 * np.pi * (t * rng.uniform(0.7, 1.5, 4) + rng.uniform(size=4))).astype(np.float32)
    ahead = np.concatenate([place[1:], place[-1:]])
    return place, ahead - place if differences else ahead


def test_recorded_differences_are_told_from_absolute_actions():
    absolute, differences = (zip(*(recorded(kind, seed) for seed in range(3)), strict=True) for kind in (False, True))
    absolute, differences = tuple(absolute), tuple(differences)
    assert relative.mismatch(*absolute, MASK, False) is None
    assert "differences already" in str(relative.mismatch(*differences, MASK, False))
    assert "--relative_of_differences" in relative.mismatch(*differences, MASK, False).remedy
    assert relative.mismatch(*differences, MASK, True) is None
    assert "are absolute" in str(relative.mismatch(*absolute, MASK, True))
    assert relative.mismatch(*differences, None, False) is None
