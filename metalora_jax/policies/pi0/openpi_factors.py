"""An adapter as openpi's LoRA leaves: the inverse of `openpi_lora.split`.

openpi's layers with LoRA are wider than ours in one way, factors of its own for each head, and fixed in another, the
rank. What is expressed is exact, in openpi's own variants, where the scale is 1:

    q, k, v          the head's columns of B with all of A; rows of B that are zero there are left out with their
                     columns of A, so that what `split` put side by side comes apart again
    o                A's rows of the head; openpi sums B over the heads, so that it stands whole in the first one's
    gate, up, down   as they are

The scale is folded into B, and what is left of openpi's rank is zero.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from metalora_jax.adapters.attach import Theta
from metalora_jax.adapters.lora import LoRA
from metalora_jax.adapters.placement import Placement, resolve
from metalora_jax.policies.pi0 import openpi_names
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.openpi_lora import expert_of, leaf_name
from metalora_jax.policies.pi0.openpi_names import Leaf
from metalora_jax.words import listed

RANKS = {"decoder": 16, "expert": 32}
VARIANTS = {"decoder": "gemma_2b_lora", "expert": "gemma_300m_lora"}
"""openpi's configs with LoRA, whose ranks these are."""

_ADAPTED = r"PaliGemma/llm/layers/(attn/\w+/w|mlp(_1)?/(gating_einsum|linear))"


def factors(
    config: Pi0Config, placement: Placement, theta: Theta, ranks: Mapping[str, int] = RANKS
) -> dict[str, np.ndarray]:
    """All leaves that openpi's model with LoRA has beside a plain one's, by its names, joined by "/"; float32.

    Args:
      config: of the base.
      placement, theta: the adapter.
      ranks: openpi's, of "decoder" and "expert".

    Raises:
      ValueError: an adapter is no LoRA, is on a map that openpi has none for, or needs a higher rank; all such maps are
        named.
    """
    rules = resolve(placement, theta, allow_unused=True)
    table = {name: leaf for name, leaf in openpi_names.leaves(config).items() if re.fullmatch(_ADAPTED, name)}
    own = {_map(p) for leaf in table.values() for path in leaf.paths for p in openpi_names.places(path, config.layers)}
    others = sorted(path for path in theta if not isinstance(rules[path].kind, LoRA))
    strange = sorted(set(theta) - own)
    high: dict[str, str] = {}
    found: dict[str, np.ndarray] = {}
    for name, leaf in table.items() if not others else ():
        rank = ranks[expert_of(name)]
        a = np.zeros((*leaf.shape[:-1], rank), np.float32)
        b = np.zeros((*leaf.shape[:-2], rank, leaf.shape[-1]), np.float32)
        for path, own_a, own_b in _blocks(leaf, a, b, config.layers):
            if path not in theta:
                continue
            kind = rules[path].kind
            assert isinstance(kind, LoRA)
            x, y = (np.asarray(theta[path][part], np.float32) for part in "ab")
            if needed := _put(leaf, own_a, own_b, x, kind.scale * y):
                high[path] = f"{path} needs rank {needed} of openpi's {rank}"
        found |= {leaf_name(name, "a"): a, leaf_name(name, "b"): b}
    faults = [f"{listed(others)}: no plain LoRA"] if others else []
    faults += [f"{listed(strange)}: openpi has no LoRA there"] if strange else []
    faults += [listed([high[path] for path in sorted(high)])] if high else []
    if faults:
        raise ValueError(
            f"openpi's LoRA cannot hold this adapter: {'; '.join(faults)}; fold it into the weights (--format=merged), "
            "or train one of rank 16 at most on the decoder and 32 on the action expert (placement decoder, expert or "
            "openpi)"
        )
    return found


def _map(path: str) -> str:
    return path.removesuffix("/kernel")


def _blocks(leaf: Leaf, a: np.ndarray, b: np.ndarray, layers: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Our map, and views of openpi's factors with the layers that the map has; a single layer keeps its axis."""
    for index, path in enumerate(leaf.paths):
        parts = [x if leaf.part_axis is None else np.moveaxis(x, leaf.part_axis, 0)[index] for x in (a, b)]
        for place, where in openpi_names.places(path, layers).items():
            rows: Any = slice(where, where + 1) if isinstance(where, int) else where
            yield _map(place), parts[0][rows], parts[1][rows]


def _put(leaf: Leaf, a: np.ndarray, b: np.ndarray, own_a: np.ndarray, own_b: np.ndarray) -> int:
    """Writes our factors into openpi's `a` and `b`; the rank that is needed, where that is too low, else 0."""
    rank, highest = a.shape[-1], 0
    own_a, own_b = own_a.reshape(len(a), *own_a.shape[-2:]), own_b.reshape(len(b), *own_b.shape[-2:])
    for layer, (x, y) in enumerate(zip(own_a, own_b, strict=True)):
        if leaf.heads_first:
            heads = a.shape[1]
            blocks = [(x, part, a[layer, n], b[layer, n]) for n, part in enumerate(np.split(y, heads, axis=1))]
        elif a.ndim == 4:  # the output map: (L, N, H, r) and (L, N, r, D)
            blocks = [(x, y, a[layer].reshape(-1, rank), b[layer, 0])]
        else:
            blocks = [(x, y, a[layer], b[layer])]
        for x_block, y_block, a_block, b_block in blocks:
            used = np.flatnonzero(y_block.any(axis=1))
            highest = max(highest, len(used))
            if len(used) <= rank:
                a_block[:, : len(used)], b_block[: len(used)] = x_block[:, used], y_block[used]
    return highest if highest > rank else 0
