"""Statistics from files of others: what is no number, or no quantile of these demonstrations, is named."""

import json

import numpy as np
import pytest

from metalora_jax.evaluation.doctor import scales
from tests.evaluation import faulty_sets, written_sets

GOOD = {
    "observation.state": {"mean": [0.0, 0.0], "std": [1.0, 1.0]},
    "action": {"mean": [0.0, 0.0], "std": [1.0, 1.0]},
}


def read(tmp_path, action):
    path = tmp_path / "stats.json"
    path.write_text(json.dumps(GOOD | {"action": action}))
    return scales.read(path)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("much", r"action is 'much' \(text\), expected its statistics by name"),
        ({"mean": [0.0, 0.0]}, "action has no std"),
        ({"mean": "much", "std": [1.0, 1.0]}, r"action: mean is 'much' \(text\), expected numbers"),
        ({"mean": None, "std": [1.0, 1.0]}, r"action: mean is missing, expected numbers"),
        ({"mean": [], "std": []}, "action: mean is empty, expected numbers"),
    ],
)
def test_what_is_no_statistic_is_named(tmp_path, action, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, action)


def test_statistics_of_relative_actions_are_told_by_the_actions(tmp_path):
    demos = faulty_sets.make_set(faulty_sets.Kind(human=False, fps=10), 0, 3)
    root = written_sets.write_lerobot(tmp_path / "set", demos, faulty_sets.Kind(human=False, fps=10), "png")

    def found(values):
        stats = {"mean": values.mean(0), "std": values.std(0), "min": values.min(0), "max": values.max(0)}
        state = {"mean": [0.0] * 6, "std": [1.0] * 6}
        fields = {"action": {name: value.tolist() for name, value in stats.items()}, "observation.state": state}
        (root / "meta" / "stats.json").write_text(json.dumps(fields))
        outcomes = [result.outcome for result in written_sets.examined(root)]
        return written_sets.above_info(outcomes), [o for o in outcomes if o.check == "own statistics"]

    findings, [own] = found(np.concatenate([demo.actions for demo in demos]))
    assert (findings, own.findings) == ([], ())
    findings, _ = found(np.concatenate([demo.actions - demo.state * [1, 1, 1, 1, 1, 0] for demo in demos]))  # gripper
    [one] = [str(finding) for finding in findings]
    assert one.startswith("set/meta/stats.json: its statistics of actions are those of actions relative to the state")


def test_averaged_quantiles_are_told_by_the_share_of_numbers_outside():
    values = [np.random.default_rng(i).normal(5.0 * i, 1.0, (100, 2)) for i in range(6)]  # each episode at its place
    together = np.concatenate(values)
    low, high = (np.quantile(together, q, axis=0) for q in (0.01, 0.99))
    assert scales._narrow_quantiles("file", "action", {"q01": low, "q99": high}, values) == []
    low, high = (np.mean([np.quantile(each, q, axis=0) for each in values], axis=0) for q in (0.01, 0.99))
    [found] = scales._narrow_quantiles("file", "action", {"q01": low, "q99": high}, values)
    assert "% of the demonstrations' numbers lie outside [q01, q99], 2% expected" in str(found)
