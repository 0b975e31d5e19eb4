import json

import numpy as np
import pytest

from metalora_jax.data import normalize
from metalora_jax.data.normalize import Statistics
from tests.tiny_base import make_demos

DEMOS = make_demos("reach")
STATISTICS = normalize.compute(DEMOS)


def test_training_data_get_zero_mean_and_unit_scale():
    actions = np.concatenate([demo.actions for demo in DEMOS])
    normal = normalize.normalize_actions(STATISTICS, actions, 4)
    np.testing.assert_allclose(normal.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(normal.std(0), 1, atol=1e-6)


def test_a_constant_dimension_does_not_blow_up():
    still = [demo._replace(state=np.full_like(demo.state, 0.3)) for demo in DEMOS]
    statistics = normalize.compute(still, floor=0.02)
    np.testing.assert_allclose(statistics.state_std, 0.02, rtol=1e-6)
    assert np.abs(normalize.normalize_state(statistics, still[0].state + 0.01, 4)).max() < 1


def test_round_trip_and_padding():
    actions = DEMOS[0].actions
    wide = normalize.normalize_actions(STATISTICS, actions, 7)
    assert wide.shape == (len(actions), 7)
    assert wide.dtype == np.float32
    assert not wide[:, 4:].any()
    np.testing.assert_allclose(normalize.unnormalize_actions(STATISTICS, wide), actions, atol=1e-6)


def test_too_wide_for_the_model():
    with pytest.raises(ValueError, match="4 dimensions do not fit the model's 3"):
        normalize.normalize_state(STATISTICS, DEMOS[0].state, 3)


def test_no_demonstrations():
    with pytest.raises(ValueError, match="at least one demonstration"):
        normalize.compute([])


def test_json_keeps_every_bit_and_the_digest():
    back = Statistics.from_json(json.loads(json.dumps(STATISTICS.to_json())))
    assert back.digest() == STATISTICS.digest()
    for got, wanted in zip(back, STATISTICS, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("field", list(STATISTICS.to_json()))
def test_digest_sees_every_field(field):
    changed = STATISTICS._replace(**{field: np.nextafter(getattr(STATISTICS, field), np.float32(9))})
    assert changed.digest() != STATISTICS.digest()


def test_json_with_other_keys():
    fields = STATISTICS.to_json()
    del fields["state_std"]
    with pytest.raises(ValueError, match=r"expected .*state_std"):
        Statistics.from_json(fields)


@pytest.mark.parametrize(
    ("field", "values", "complaint"),
    [
        ("action_mean", 0.14, "action_mean is 0.14; it must be a list with a number for each dimension"),
        ("action_mean", [0.14], r"action_mean has shape \(1,\) and action_std \(4,\)"),
        ("action_std", ["0.5"] * 4, "action_std is .*; it must be a list with a number"),
        ("action_std", [0.5, 0.5, 0.5, None], "action_std is .*; it must be a list with a number"),
        ("state_std", [True] * 4, "state_std is .*; it must be a list with a number"),
        ("state_std", [[0.5] * 4], "state_std is .*; it must be a list with a number"),
        (
            "state_std",
            [1.0, 0.0, 1.0, 1.0],
            "state: not all numbers are finite and positive, state_std is 0 in dimension 1",
        ),
        ("state_mean", [float("nan")] * 4, "state: not all numbers are finite, state_mean is nan in dimension 0"),
    ],
)
def test_json_that_is_no_row_of_numbers(field, values, complaint):
    with pytest.raises(ValueError, match=complaint):
        Statistics.from_json(STATISTICS.to_json() | {field: values})


@pytest.mark.parametrize("width", [1, 3, 5])
def test_no_dimension_is_repeated_for_the_others(width):
    values = np.zeros((2, width), np.float32)
    with pytest.raises(ValueError, match=f"actions have {width} dimensions?, the base's statistics have 4"):
        normalize.normalize_actions(STATISTICS, values, 32)
    with pytest.raises(ValueError, match=f"states have {width} dimensions?, the base's statistics have 4"):
        normalize.normalize_state(STATISTICS, values, 32)
