"""The directory that lerobot's plugin runs, without lerobot."""

import json

import pytest

import metalora_jax as ml
from metalora_jax.adaptation import adapter, lerobot_policy


def test_base_and_adapter_are_inside(tmp_path):
    base, root = ml.load_base(), tmp_path / "out" / "policy"
    lerobot_policy.write(root, base, adapter.NANO, ["front"], (48, 64))
    config = json.loads((root / "config.json").read_text())
    assert config["input_features"]["observation.images.front"] == {"type": "VISUAL", "shape": [3, 48, 64]}
    inside = ml.load_base(root / config["base"])
    assert inside.fingerprint == base.fingerprint
    ml.load_adapter(root / config["adapter"], inside)
    steps = {file: json.loads((root / f"policy_{file}.json").read_text())["steps"] for file in PROCESSORS}
    assert {file: [step["registry_name"] for step in each] for file, each in steps.items()} == PROCESSORS
    with pytest.raises(ValueError, match="policy exists; choose another directory"):
        lerobot_policy.write(root, base, adapter.NANO, ["front"])


PROCESSORS = {
    "preprocessor": ["rename_observations_processor", "to_batch_processor", "device_processor"],
    "postprocessor": ["device_processor"],
}


def test_a_base_that_is_named_is_not_copied(tmp_path):
    lerobot_policy.write(tmp_path / "policy", ml.load_base(), adapter.NANO, ["front"], base_name="../base")
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["base"] == "../base"
    assert not (tmp_path / "policy" / "base").exists()


@pytest.mark.parametrize("cameras", [[], ["front", "wrist"], ["front", "front"]])
def test_cameras_that_do_not_fit_leave_nothing_behind(tmp_path, cameras):
    with pytest.raises(ValueError, match="the base takes 1 to 1, each once"):
        lerobot_policy.write(tmp_path / "policy", ml.load_base(), adapter.NANO, cameras)
    assert not (tmp_path / "policy").exists()


def test_lerobot_asks_anew_when_the_steps_are_executed():
    assert lerobot_policy.chunking_flags(10, 3) == ["--inference.type=rtc", "--inference.queue_threshold=6"]
    assert lerobot_policy.chunking_flags(10, 9)[1] == "--inference.queue_threshold=0"
    for executed in (0, 10):
        with pytest.raises(ValueError, match="execute 1 to 9 steps"):
            lerobot_policy.chunking_flags(10, executed)
