"""Statistics of lerobot policies: what is in force is used, what contradicts it is named, nothing else is read."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation import scaling
from metalora_jax.policies.smolvla import processors
from tests import lerobot_directory

PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
STATE = "policy_preprocessor_step_5_normalizer_processor.safetensors"


@pytest.fixture
def directory(tmp_path):
    return lerobot_directory.write(tmp_path / "policy", lerobot_directory.small())


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(bases.logging, "warning", lambda text, *args: lines.append(text % args))
    return lines


def numbers(width=6, **stats):
    values = {"mean": 1.0, "std": 2.0} | stats
    return {
        f"{feature}.{name}": np.full(width, value, np.float32)
        for feature in ("observation.state", "action")
        for name, value in values.items()
    }


def buffers(mean, places=("normalize_inputs", "normalize_targets", "unnormalize_outputs")):
    feature = {"normalize_inputs": "observation_state"}
    return {
        f"{place}.buffer_{feature.get(place, 'action')}.{name}": np.full(6, value, np.float32)
        for place in places
        for name, value in (("mean", mean), ("std", 2.0))
    }


def step(directory, file, **fields):
    pipeline = json.loads((directory / file).read_text())
    pipeline["steps"][-1] |= fields
    (directory / file).write_text(json.dumps(pipeline))


def in_mode(directory, mode):
    file = directory / "config.json"
    modes = {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalization_mapping": modes}))
    step(directory, PRE, config={"norm_map": modes})


def add_to_weights(directory, tensors):
    file = directory / "model.safetensors"
    save_file(load_file(file) | tensors, file, metadata={"format": "pt"})


def post(directory, tensors, norm_map=None):
    save_file(tensors, directory / "post.safetensors")
    config = {"norm_map": norm_map} if norm_map else {}
    steps = [{"registry_name": "unnormalizer_processor", "config": config, "state_file": "post.safetensors"}]
    (directory / POST).write_text(json.dumps({"name": "policy_postprocessor", "steps": steps}))


def test_a_sound_policy_is_read_without_a_word(directory, said):
    post(directory, numbers(mean=0.5))
    base = bases.load(directory)
    assert base.statistics.state_mean.tolist() == base.statistics.action_mean.tolist() == [0.5] * 6
    assert said == []


def test_old_checkpoints_act_by_their_buffers(directory, said):
    (directory / PRE).unlink()
    (directory / STATE).unlink()
    add_to_weights(directory, buffers(3.0))
    assert bases.load(directory).statistics.action_mean[0] == 3.0
    assert said == []


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/elsewhere/x.safetensors", "a/../../x", "", None, 5, ["a"], "..\\x"]
)
def test_a_state_file_cannot_leave_its_folder(directory, name):
    save_file(numbers(), directory.parent / "x.safetensors")
    step(directory, PRE, state_file=name)
    with pytest.raises(ValueError, match=r"policy_preprocessor\.json: state_file is .*; it must name a file in"):
        bases.load(directory)


def test_steps_that_are_none(directory):
    (directory / PRE).write_text('{"steps": {"a": 1}}')
    with pytest.raises(ValueError, match=r"policy_preprocessor\.json: `steps` is no list of objects"):
        bases.load(directory)


def test_buffers_that_contradict_the_processors_are_named(directory, said):
    add_to_weights(directory, buffers(7.0))
    assert bases.load(directory).statistics.action_mean[0] == 0.5
    assert any("but [7, 7, 7, 7, ...] in model.safetensors (unnormalize_outputs); the former counts" in s for s in said)


def test_a_file_that_no_processor_names_is_compared_too(directory, said):
    save_file(numbers(mean=9.0), directory / "policy_preprocessor_step_3_normalizer_processor.safetensors")
    assert bases.load(directory).statistics.action_mean[0] == 0.5
    assert any("in policy_preprocessor_step_3_normalizer_processor.safetensors; the former counts" in s for s in said)


def test_processors_that_contradict_each_other_are_refused(directory):
    post(directory, numbers(mean=5.0))
    with pytest.raises(
        ValueError, match=r"action\.mean is \[0\.5, .*but \[5, .*in post\.safetensors; provide your own"
    ):
        bases.load(directory)


def test_buffers_that_contradict_each_other_are_refused(directory):
    (directory / PRE).unlink()
    (directory / STATE).unlink()
    add_to_weights(directory, buffers(3.0) | buffers(8.0, ("unnormalize_outputs",)))
    with pytest.raises(ValueError, match=r"\[8, .*unnormalize_outputs\), but \[3, .*\(normalize_targets\)"):
        bases.load(directory)


def test_one_may_still_give_statistics_of_ones_own(directory):
    post(directory, numbers(mean=5.0))
    known = bases.load().statistics
    assert bases.load(directory, known).statistics.digest() == known.digest()


def test_the_processors_mode_counts_as_in_lerobot(directory, said):
    save_file(numbers(min=0.0, max=20.0), directory / STATE)
    step(directory, PRE, config={"norm_map": {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"}})
    assert bases.load(directory).statistics.action_mean[0] == 10.0
    assert "normalises STATE by MIN_MAX, config.json says MEAN_STD; the former counts" in said[0]


def test_actions_must_be_undone_as_they_were_made(directory):
    post(directory, numbers(mean=0.5), {"ACTION": "MIN_MAX"})
    with pytest.raises(ValueError, match=r"actions are normalised by MEAN_STD, but policy_post.* undoes MIN_MAX; "):
        bases.load(directory)


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        (numbers(width=7), "of observation.state have 7 dimensions, config.json says 6"),
        (numbers() | {"action.std": np.ones(3, np.float32)}, "action.std has 3 dimensions, .* of action 6"),
        (numbers() | {"action.std": np.ones(1, np.float32)}, "action.std has 1 dimension, .* of action 6"),
        (numbers(std=-2.0), "std is -2 in dimension 0"),
        (numbers(mean=np.nan), "holds NaN or infinity; provide your own statistics"),
        ({name: x for name, x in numbers().items() if name[0] == "o"}, "has no statistics of action that are in force"),
    ],
)
def test_unsound_statistics_are_refused(directory, tensors, complaint):
    save_file(tensors, directory / STATE)
    with pytest.raises(ValueError, match=complaint):
        bases.load(directory)


@pytest.mark.parametrize(("mode", "low", "high"), [("QUANTILES", "q01", "q99"), ("MIN_MAX", "min", "max")])
def test_a_constant_dimension_is_named_and_held(directory, said, mode, low, high):
    tensors = numbers(mean=0.0, std=0.5, **{low: -1.0, high: 1.0})
    tensors[f"action.{low}"][2] = tensors[f"action.{high}"][2] = tensors["action.mean"][2] = 0.7
    tensors["action.std"][2] = 0.0
    save_file(tensors, directory / STATE)
    in_mode(directory, mode)
    known = bases.load(directory).statistics
    assert said == [f"{directory}: action is constant in dimension 2 of the policy's statistics, at 0.7; its scale is raised to 0.01"]  # fmt: skip  # noqa: E501
    at = (np.array([0.7, 0.71]) - known.action_mean[2]) / known.action_std[2]
    np.testing.assert_allclose(at, [-1.0, 0.0], atol=1e-4)  # lerobot's -1 at the constant, bounded away from it


def smooth(reach):
    """Demonstrations (T, 6) whose ranges differ by `reach`."""
    rng = np.random.default_rng(0)
    for r in reach:
        t = np.linspace(0, 3, 60)[:, None]
        phase = rng.uniform(0, 6, (2, 6))
        state, actions = (r * np.sin(2 * t + p).astype(np.float32) for p in phase)
        yield bases.Demo("open the drawer", np.zeros((60, 0, 0, 0, 3), np.uint8), state, actions)


def quantiles(demos, averaged):
    out = {}
    for feature, parts in (("observation.state", [d.state for d in demos]), ("action", [d.actions for d in demos])):
        rows = np.concatenate(parts)
        stats = {"mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0)}
        for name, q in (("q01", 0.01), ("q99", 0.99)):
            each = [np.quantile(part, q, axis=0) for part in parts]
            stats[name] = np.mean(each, 0) if averaged else np.quantile(rows, q, axis=0)
        out |= {f"{feature}.{name}": value.astype(np.float32) for name, value in stats.items()}
    return out


@pytest.mark.parametrize("averaged", [False, True])
def test_statistics_of_demonstrations_keep_the_policys_mode(directory, said, averaged):
    demos = list(smooth((0.05, 0.3, 1.0)))
    save_file(quantiles(demos, averaged), directory / STATE)
    in_mode(directory, "QUANTILES")
    base, source = bases.convert(directory, demos)
    actions = np.concatenate([demo.actions for demo in demos])
    half = (np.quantile(actions, 0.99, axis=0) - np.quantile(actions, 0.01, axis=0)) / 2
    np.testing.assert_allclose(base.statistics.action_std, half, rtol=1e-5)
    assert source == "of 3 demonstrations, 180 frames: state by 1st and 99th percentile, actions by 1st and 99th percentile"  # fmt: skip  # noqa: E501
    assert bool(said) == averaged
    if averaged:
        assert "of the demonstrations' state numbers lie outside the policy's own quantiles (2% expected)" in said[0]


def test_averaged_quantiles_show_without_demonstrations(directory, said):
    demos = list(smooth((0.02, 0.05, 0.1, 2.0)))
    in_mode(directory, "QUANTILES")
    save_file(quantiles(demos, False), directory / STATE)
    bases.load(directory)
    assert said == []
    save_file(quantiles(demos, True), directory / STATE)
    bases.load(directory)
    assert "they look averaged over episodes" in said[0]


def test_a_dimension_that_hardly_moves_is_named(directory, said):
    demos = [demo._replace(state=demo.state * [1, 1, 1, 1, 1, 1e-4]) for demo in smooth((1.0,))]
    bases.convert(directory, [demo._replace(state=demo.state.astype(np.float32)) for demo in demos])
    assert [line.split(": ")[1] for line in said] == ["state dimension 5 varies by 7e-05 only; its scale is raised to 0.01"]  # fmt: skip  # noqa: E501


def test_demonstrations_of_two_robots(directory):
    one, other = list(smooth((1.0, 1.0)))
    with pytest.raises(ValueError, match="have 4 and 6 action dimensions; take statistics of one robot at a time"):
        bases.convert(directory, [one, other._replace(actions=other.actions[:, :4])])


def test_statistics_of_relative_actions_are_refused(directory, said):
    ahead = [demo._replace(actions=demo.state + 50 + np.roll(demo.state, -1, 0) / 10) for demo in smooth((1.0, 2.0))]
    demos = [demo._replace(state=demo.state + 50) for demo in ahead]
    kept = {name: value for name, value in quantiles(demos, False).items() if "q" not in name}
    save_file(kept, directory / STATE)
    bases.convert(directory, demos)
    apart = np.concatenate([demo.actions - demo.state for demo in demos])
    stats = {"mean": apart.mean(0), "std": apart.std(0), "min": apart.min(0), "max": apart.max(0)}
    save_file(kept | {f"action.{name}": value for name, value in stats.items()}, directory / STATE)
    with pytest.raises(ValueError, match=r"statistics of actions, in .*, are those of actions relative to the state"):
        bases.convert(directory, demos)
    bases.convert(directory, demos, absolute=True)
    assert "it is taken to have been trained on absolute ones, as it was told" in said[-1]
    save_file(kept | {f"action.{name}": 50 * value for name, value in stats.items()}, directory / STATE)
    bases.convert(directory, demos)  # the differences fit in, but are far less wide: statistics of other data


def test_where_they_came_from(directory):
    assert bases.convert(directory)[1].startswith(f"the policy's own, in {STATE}: state by mean and standard deviation")
    assert scaling.Scaling(bases.load().statistics, "there").doubts == ()


def test_the_eps_of_a_processor_is_part_of_the_scale(directory, said):
    step(directory, PRE, config={"eps": 0.5})
    assert bases.load(directory).statistics.state_std.tolist() == [2.5] * 6
    assert any("eps is 0.5, 20.0% of the scale of action" in line for line in said)


@pytest.mark.parametrize("only", [{"normalize_observation_keys": ["x"]}, {"features": {"action": {"shape": [6]}}}])
def test_a_state_that_its_processor_leaves_alone_is_left_alone(directory, only):
    step(directory, PRE, config={"norm_map": {"STATE": "MEAN_STD", "ACTION": "MEAN_STD"}} | only)
    known = bases.load(directory).statistics
    assert (known.state_mean[0], known.state_std[0], known.action_std[0]) == (0.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"eps": "small"}, r"policy_preprocessor\.json: eps is 'small'; it must be a number"),
        ({"norm_map": {"STATE": ["MEAN_STD"]}}, r"policy_preprocessor\.json: norm_map is .*; it must name a mode"),
        ({"features": {"action": {"shape": [7]}}}, "action has 7 dimensions by the processor of .*, 6 by config.json"),
    ],
)
def test_a_processor_of_another_form_is_refused(directory, config, complaint):
    step(directory, PRE, config=config)
    with pytest.raises(ValueError, match=complaint):
        bases.load(directory)


@pytest.mark.parametrize("other", [{"registry_name": "relative_actions_processor"}, {"class": "mine.Deltas"}])
def test_steps_that_are_not_done_here_are_refused_unless_they_are_off(directory, other):
    plain = json.loads((directory / PRE).read_text())
    off = other | {"config": {"enabled": False}}
    (directory / PRE).write_text(json.dumps(plain | {"steps": [off, *plain["steps"]]}))
    assert bases.load(directory).statistics.action_mean[0] == 0.5
    (directory / PRE).write_text(json.dumps(plain | {"steps": [other, *plain["steps"]]}))
    with pytest.raises(ValueError, match=r"policy_preprocessor\.json: its step '.*' is not done here"):
        bases.load(directory)


def test_statistics_that_no_data_can_have_are_named(directory, said):
    save_file(numbers(mean=9.0, min=0.0, max=4.0), directory / STATE)
    bases.load(directory)
    assert any("mean lies outside the smallest and the largest value of action, in dimensions 0, 1" in s for s in said)
    assert not any("std is too large" in line for line in said)


def test_names_of_cameras_are_the_robots_where_the_policy_tells_them(tmp_path):
    def features(*names):
        seen = {f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 64, 64]} for name in names}
        return {"input_features": {"observation.state": {"type": "STATE", "shape": [6]}} | seen}

    assert processors.cameras(tmp_path, features("top", "wrist", "empty_camera_0")) == ("top", "wrist")
    assert processors.cameras(tmp_path, features("camera1", "camera2")) is None
    renamed = {
        "observation.images.top": "observation.images.camera2",
        "observation.images.arm": "observation.images.camera1",
    }
    step = {"registry_name": "rename_observations_processor", "config": {"rename_map": renamed}}
    (tmp_path / processors.PREPROCESSOR).write_text(json.dumps({"steps": [step]}))
    assert processors.cameras(tmp_path, features("camera1", "camera2")) == ("arm", "top")
    assert processors.cameras(tmp_path, features("camera1", "camera2", "camera3")) is None
