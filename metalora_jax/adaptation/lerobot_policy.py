"""Writes a policy directory for lerobot's plugin `lerobot_policy_metalora`, which runs base and adapter in JAX.

config.json  policy_preprocessor.json  policy_postprocessor.json     what lerobot reads (0.6.1)
adapter/                                                             the adapter directory, as it is
base/                                                                the base, unless it is named by its place
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.base import Base
from metalora_jax.machine import files


def write(
    directory: Path,
    base: Base,
    adapter: Path,
    cameras: Sequence[str],
    picture: tuple[int, int] = (480, 640),
    base_name: str = "",
) -> None:
    """Writes it, as a whole or not at all.

    Args:
      directory: made here; must not exist.
      base: what the adapter was learned on.
      adapter: its directory, which `adapter.load` reads.
      cameras: the robot's names of them, in the order of the base.
      picture: height and width [px] of what they show; others work, after a moment at the first frame.
      base_name: how the plugin is to find the base: a directory, by its path from `directory`; or a name on the hub.
        "" puts the base into `directory`.

    Raises:
      ValueError: the directory exists, cameras appear twice, or there are none or more than the base takes.
    """
    if directory.exists():
        raise ValueError(f"{directory} exists; choose another directory")
    shown = ", ".join(cameras) or "none"
    if not 0 < len(set(cameras)) == len(cameras) <= base.sizes.cameras:
        raise ValueError(
            f"the cameras are {shown}, the base takes 1 to {base.sizes.cameras}, each once; name those of the robot in "
            "the order of the base"
        )
    config = _config(base, cameras, picture, base_name or "base")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_directory(directory) as staging:
        if not base_name:
            bases.save(staging / "base", base)
        shutil.copytree(adapter, staging / "adapter")
        before = [
            _step("rename_observations_processor", rename_map={}),
            _step("to_batch_processor"),
            _step("device_processor", device="cpu", float_dtype=None),
        ]
        after = [_step("device_processor", device="cpu", float_dtype=None)]
        for name, steps in (("policy_preprocessor", before), ("policy_postprocessor", after)):
            files.write_json(staging / f"{name}.json", {"name": name, "steps": steps}, indent=2)
        files.write_json(staging / "config.json", config, indent=2)


def chunking_flags(chunk: int, executed: int) -> list[str]:
    """Flags of lerobot-rollout for real-time chunking, which computes the next chunk while the robot moves.

    lerobot asks for a chunk as soon as no more commands are left than its threshold says, 30 by default: a policy whose
    chunks are shorter is asked without pause. Of each chunk it drops at least one step.

    Args:
      chunk: steps that the policy predicts.
      executed: steps of each chunk before the next one is asked for.

    Raises:
      ValueError: the chunk has no such step left.
    """
    if not 0 < executed < chunk:
        raise ValueError(
            f"real-time chunking drops a step of each chunk: execute 1 to {chunk - 1} steps, not {executed}"
        )
    return ["--inference.type=rtc", f"--inference.queue_threshold={chunk - 1 - executed}"]


def _config(base: Base, cameras: Sequence[str], picture: tuple[int, int], base_name: str) -> dict[str, Any]:
    statistics = base.statistics
    shown = {"type": "VISUAL", "shape": [3, *picture]}
    return {
        "type": "metalora",
        "device": "cpu",  # of torch; JAX chooses its own
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [len(statistics.state_mean)]},
            **{f"observation.images.{camera}": shown for camera in cameras},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [len(statistics.action_mean)]}},
        "base": base_name,
        "adapter": "adapter",
        "cameras": list(cameras),
        "chunk_size": base.sizes.chunk,
        "n_action_steps": 0,
    }


def _step(name: str, **config: Any) -> dict[str, Any]:
    return {"registry_name": name, "config": config}
