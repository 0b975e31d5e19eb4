"""Checkpoints as openpi writes them, with random weights of any size.

To measure the memory that reading one takes:

    python -m tests.policies.openpi_directories /tmp/random 400      # about 400 MB of float32 parameters
    /usr/bin/time -v metalora convert --policy=/tmp/random --tokenizer=... --output=/tmp/base
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from metalora_jax.policies.pi0 import openpi_names
from metalora_jax.policies.pi0.config import Pi0Config


def random_tree(config: Pi0Config, spread: float = 0.1, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {name: leaf.shape for name, leaf in openpi_names.leaves(config).items()}
    return {name: spread * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def nested(tree: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, value in tree.items():
        *outer, last = name.split("/")
        node = root
        for key in outer:
            node = node.setdefault(key, {})
        node[last] = value
    return root


def statistics(state: int, action: int) -> dict[str, Any]:
    rng, found = np.random.default_rng(1), {}
    for name, width in (("state", state), ("actions", action)):
        low = rng.normal(size=width)
        spread = rng.uniform(0.5, 2.0, width)
        found[name] = {"mean": low + spread / 2, "std": spread / 4, "q01": low, "q99": low + spread}
    return {name: {k: v.tolist() for k, v in each.items()} for name, each in found.items()}


def write(directory: Path, tree: Mapping[str, Any], stats: Mapping[str, Any] | None = None) -> Path:
    """`params/` and, with statistics by asset id, `assets/`."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(directory.absolute() / "params", {"params": nested(tree)})
    for asset, found in (stats or {}).items():
        (directory / "assets" / asset).mkdir(parents=True)
        (directory / "assets" / asset / "norm_stats.json").write_text(json.dumps({"norm_stats": found}))
    return directory


if __name__ == "__main__":
    megabytes = int(sys.argv[2])
    width = int((megabytes * 1e6 / 4 / 330) ** 0.5) // 16 * 16  # the parameters grow with its square
    sizes: dict[str, Any] = dict(text_hidden=width, text_mlp=8 * width, expert_hidden=width // 2, expert_mlp=2 * width)
    sizes |= dict(layers=12, vision_layers=6, vision_hidden=width // 2, vision_mlp=2 * width, vocab_size=4096)
    config = Pi0Config.pi0_nano(action_dim=32, heads=8, vision_heads=8, **sizes)
    tree = random_tree(config, 0.02)
    write(Path(sys.argv[1]), tree, {"robot": statistics(8, 7)})
    print(f"{sum(value.nbytes for value in tree.values()) / 1e6:.0f} MB in {len(tree)} tensors; {config}")
