"""Checkpoints as openpi writes them, with random weights of any size.

To measure the memory that reading one takes:

    python -m tests.policies.openpi_directories /tmp/random 400      # about 400 MB of float32 parameters
    python -m tests.policies.openpi_directories /tmp/random full     # pi0's real size, bfloat16, 6.5 GB
    /usr/bin/time -v metalora convert --policy=/tmp/random --tokenizer=/tmp/random --output=/tmp/base
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
from tokenizers import Tokenizer, models, pre_tokenizers

from metalora_jax.policies.pi0 import openpi_names, orbax_writer, tokenizer
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.tensor_file import Pieces

_PIECE = 50_000_000  # numbers that are drawn at a time


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
        _write_assets(directory, asset, found)
    return directory


def _write_assets(directory: Path, asset: str, stats: Mapping[str, Any]) -> None:
    (directory / "assets" / asset).mkdir(parents=True)
    (directory / "assets" / asset / "norm_stats.json").write_text(json.dumps({"norm_stats": stats}))


def letters_of_size(size: int, others: Mapping[str, int] = {}) -> Tokenizer:
    """A token for each byte, and unused ones; what is known of PaliGemma's stands where it does there."""
    numbers = {name.replace("\n", "Ċ"): number for name, number in (tokenizer.KNOWN | others).items() if number < size}
    free = iter(sorted(set(range(size)) - set(numbers.values())))
    letters = {name: next(free) for name in sorted(pre_tokenizers.ByteLevel.alphabet()) if name not in numbers}
    words = Tokenizer(models.BPE(numbers | letters | {f"unused {k}": k for k in free}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return words


def write_full(directory: Path, config: Pi0Config) -> int:
    """The same of any size, in bfloat16, a layer at a time, beside a tokenizer of bytes; returns the weights' bytes."""
    rng, dtype = np.random.default_rng(0), np.dtype(ml_dtypes.bfloat16)

    def tensor(shape: tuple[int, ...]) -> Pieces:
        rows = max(1, _PIECE * shape[0] // int(np.prod(shape)))
        parts = ((min(rows, shape[0] - at), *shape[1:]) for at in range(0, shape[0], rows))
        return Pieces(shape, dtype, (0.02 * rng.standard_normal(part, np.float32) for part in parts))

    shapes = {name: leaf.shape for name, leaf in openpi_names.leaves(config).items()}
    _write_assets(directory, "robot", statistics(6, 6))
    letters_of_size(config.vocab_size).save(str(directory / "tokenizer.json"))
    orbax_writer.write(directory / "params", {name: tensor(shape) for name, shape in shapes.items()}, lambda _: dtype)
    return sum(int(np.prod(shape)) for shape in shapes.values()) * dtype.itemsize


if __name__ == "__main__":
    if sys.argv[2] == "full":
        print(f"{write_full(Path(sys.argv[1]), Pi0Config.pi0_base()) / 1e6:.0f} MB")
        sys.exit()
    megabytes = int(sys.argv[2])
    width = int((megabytes * 1e6 / 4 / 330) ** 0.5) // 16 * 16  # the parameters grow with its square
    sizes: dict[str, Any] = dict(text_hidden=width, text_mlp=8 * width, expert_hidden=width // 2, expert_mlp=2 * width)
    sizes |= dict(layers=12, vision_layers=6, vision_hidden=width // 2, vision_mlp=2 * width, vocab_size=4096)
    config = Pi0Config.pi0_nano(action_dim=32, heads=8, vision_heads=8, **sizes)
    tree = random_tree(config, 0.02)
    write(Path(sys.argv[1]), tree, {"robot": statistics(8, 7)})
    print(f"{sum(value.nbytes for value in tree.values()) / 1e6:.0f} MB in {len(tree)} tensors; {config}")
